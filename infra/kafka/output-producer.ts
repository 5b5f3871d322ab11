/** Outputs at once, outside any transaction: what `at-least-once` publishes with. */
import type { Kafka, Producer } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { compressionType } from './compression.ts';
import { kafkaError } from './kafka-errors.ts';
import { chunks, type OutgoingRecords, statedPartition } from './partition-producer.ts';

export class OutputProducer {
  readonly #producer: Producer;
  readonly #config: KafkaConfig;

  constructor(kafka: Kafka, config: KafkaConfig) {
    this.#config = config;
    this.#producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 5,
      allowAutoTopicCreation: false,
      createPartitioner: statedPartition,
      retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 20 },
    });
  }

  async open(): Promise<void> {
    try {
      await this.#producer.connect();
    } catch (thrown) {
      throw kafkaError(thrown, 'becoming a producer of outputs');
    }
  }

  /** Resolves when all replicas in sync have the records. One `send` a topic partition: see `PartitionProducer`. */
  async send(partition: number, records: OutgoingRecords): Promise<void> {
    const compression = compressionType(this.#config.compression);
    try {
      await Promise.all(
        [...records].map(async ([topic, list]) => {
          for (const messages of chunks(list, partition)) await this.#producer.send({ topic, acks: -1, compression, messages });
        }),
      );
    } catch (thrown) {
      throw kafkaError(thrown, `publishing partition ${partition}`);
    }
  }

  async close(): Promise<void> {
    await this.#producer.disconnect().catch(() => undefined);
  }
}
