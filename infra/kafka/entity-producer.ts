/** Writes what is said of entities to their topic, each entity's to one partition and in order. */
import type { Kafka } from 'kafkajs';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { EntityUpdate } from '../../schemas/catalogue.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { partitionOf } from './action-producer.ts';
import { OutputProducer } from './output-producer.ts';
import type { OutgoingRecord } from './partition-producer.ts';
import { withAdmin } from './topics.ts';

export class EntityProducer {
  readonly #producer: OutputProducer;
  readonly #topic: string;
  readonly #partitions: number;
  readonly #codec: AvroCodec;

  /** @throws PipelineError when no broker answers or the topic is missing */
  static async open(kafka: Kafka, config: KafkaConfig, topic: string, codec: AvroCodec): Promise<EntityProducer> {
    const partitions = await withAdmin(kafka, `looking up ${topic}`, async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      return topics[0]!.partitions.length;
    });
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    return new EntityProducer(producer, topic, partitions, codec);
  }

  private constructor(producer: OutputProducer, topic: string, partitions: number, codec: AvroCodec) {
    this.#producer = producer;
    this.#topic = topic;
    this.#partitions = partitions;
    this.#codec = codec;
  }

  /** Resolves when all replicas in sync have the updates; one that is `removed` is a record without a value. */
  async send(updates: readonly EntityUpdate[]): Promise<void> {
    const byPartition = new Map<number, OutgoingRecord[]>();
    for (const update of updates) {
      const partition = partitionOf(update.entity, this.#partitions);
      const list = byPartition.get(partition) ?? [];
      byPartition.set(partition, list);
      list.push({ key: update.entity, value: update.removed === true ? null : this.#codec.encode('Entity', update) });
    }
    await Promise.all(
      [...byPartition].map(([partition, records]) => this.#producer.send(partition, new Map([[this.#topic, records]]))),
    );
  }

  close(): Promise<void> {
    return this.#producer.close();
  }
}
