/** Writes records to a topic, each key's to one partition and in order. */
import { type Kafka, Partitioners, type PartitionMetadata } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { OutputProducer } from './output-producer.ts';
import type { OutgoingRecord } from './partition-producer.ts';
import { withAdmin } from './topics.ts';

/**
 * The partition of a key among `partitions`: Java's default (murmur2), which state and outputs follow. Producers that use
 * another (librdkafka without `partitioner=murmur2_random`) must use it for all of a deployment's topics.
 */
export const partitionOf = (key: string, partitions: number): number => partitioner(partitions)(key);

/** The same for many keys. */
export function partitioner(partitions: number): (key: string) => number {
  // Only its length counts where there is a key.
  const partitionMetadata = new Array<PartitionMetadata>(partitions);
  return (key) => murmur2({ topic: '', partitionMetadata, message: { key, value: null } });
}

const murmur2 = Partitioners.DefaultPartitioner();

export interface KeyedRecord extends OutgoingRecord {
  readonly key: string;
}

export class KeyedProducer {
  readonly #producer: OutputProducer;
  readonly #topic: string;
  readonly #murmur2: (key: string) => number;
  /** By key: the hash is dear, and keys come again. */
  readonly #partitionOf = new Map<string, number>();

  /** @throws PipelineError when no broker answers or the topic is missing */
  static async open(kafka: Kafka, config: KafkaConfig, topic: string): Promise<KeyedProducer> {
    const partitions = await withAdmin(kafka, `looking up ${topic}`, async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      return topics[0]!.partitions.length;
    });
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    return new KeyedProducer(producer, topic, partitions);
  }

  private constructor(producer: OutputProducer, topic: string, partitions: number) {
    this.#producer = producer;
    this.#topic = topic;
    this.#murmur2 = partitioner(partitions);
  }

  /** Resolves when all replicas in sync have the records. Calls must not overlap, or the order of a key's records may change. */
  async send(records: readonly KeyedRecord[]): Promise<void> {
    const byPartition = new Map<number, KeyedRecord[]>();
    for (const record of records) {
      const partition = this.#lookUp(record.key);
      const list = byPartition.get(partition) ?? [];
      byPartition.set(partition, list);
      list.push(record);
    }
    await Promise.all(
      [...byPartition].map(([partition, list]) => this.#producer.send(partition, new Map([[this.#topic, list]]))),
    );
  }

  close(): Promise<void> {
    return this.#producer.close();
  }

  #lookUp(key: string): number {
    let partition = this.#partitionOf.get(key);
    if (partition === undefined) {
      partition = this.#murmur2(key);
      this.#partitionOf.set(key, partition);
    }
    return partition;
  }
}
