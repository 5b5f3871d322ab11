/** Writes user actions, each user's to one partition and in order: what `produce`, tests and benchmarks feed a stream with. */
import { type Kafka, Partitioners, type PartitionMetadata } from 'kafkajs';
import type { UserAction } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { OutputProducer } from './output-producer.ts';
import type { OutgoingRecord } from './partition-producer.ts';
import { withAdmin } from './topics.ts';

/**
 * The partition of a key among `partitions`: Java's default (murmur2), which state and outputs follow. Producers that use
 * another (librdkafka without `partitioner=murmur2_random`) must use it for all of a deployment's topics.
 */
export function partitionOf(key: string, partitions: number): number {
  const partitionMetadata = Array.from(
    { length: partitions },
    (_, partitionId) => ({ partitionId, leader: 0 }) as PartitionMetadata,
  );
  return murmur2({ topic: '', partitionMetadata, message: { key, value: null } });
}

const murmur2 = Partitioners.DefaultPartitioner();

export class ActionProducer {
  readonly #producer: OutputProducer;
  readonly #config: KafkaConfig;
  readonly #codec: AvroCodec;
  readonly #partitions: number;
  /** By user: the hash is dear, and users come again. */
  readonly #partitionOf = new Map<string, number>();

  /** @throws PipelineError when no broker answers or the topic is missing */
  static async open(kafka: Kafka, config: KafkaConfig, codec: AvroCodec): Promise<ActionProducer> {
    const topic = config.topics.userActions;
    const partitions = await withAdmin(kafka, `looking up ${topic}`, async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      return topics[0]!.partitions.length;
    });
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    return new ActionProducer(producer, config, codec, partitions);
  }

  private constructor(producer: OutputProducer, config: KafkaConfig, codec: AvroCodec, partitions: number) {
    this.#producer = producer;
    this.#config = config;
    this.#codec = codec;
    this.#partitions = partitions;
  }

  /** Resolves when all replicas in sync have the actions. Calls must not overlap, or the order of a user's actions may change. */
  async send(actions: readonly UserAction[], timestampMs?: number): Promise<void> {
    const byPartition = new Map<number, OutgoingRecord[]>();
    for (const action of actions) {
      const partition = this.#lookUp(action.userId);
      const list = byPartition.get(partition) ?? [];
      byPartition.set(partition, list);
      const value = this.#codec.encode('UserAction', action);
      list.push({ key: action.userId, value, ...(timestampMs !== undefined && { timestampMs }) });
    }
    const topic = this.#config.topics.userActions;
    await Promise.all(
      [...byPartition].map(([partition, records]) => this.#producer.send(partition, new Map([[topic, records]]))),
    );
  }

  close(): Promise<void> {
    return this.#producer.close();
  }

  #lookUp(userId: string): number {
    let partition = this.#partitionOf.get(userId);
    if (partition === undefined) {
      partition = partitionOf(userId, this.#partitions);
      this.#partitionOf.set(userId, partition);
    }
    return partition;
  }
}
