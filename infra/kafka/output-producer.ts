/** Records at once, outside any transaction: what `at-least-once` publishes with, and `produce` writes actions with. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka, Producer } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { compressionType } from './compression.ts';
import { kafkaError } from './kafka-errors.ts';
import { chunks, type OutgoingRecord, type OutgoingRecords } from './partition-producer.ts';
import { allSettled, statedPartition } from './transactions.ts';

const CLOSE_WITHIN_MS = 2_000;

/**
 * Idempotent, so that what kafkajs sends again is not there twice. The broker knows a repetition by its sequence number, and
 * kafkajs gives the number of a request whose answer was lost to the next one: the next one would then be taken for the
 * repetition, and dropped. So a topic partition has one request under way, and after one that failed for good its numbers
 * are not gone on with: another producer takes over.
 */
export class OutputProducer {
  readonly #kafka: Kafka;
  readonly #config: KafkaConfig;
  readonly #maxBytes: ReadonlyMap<string, number>;
  #producer: Promise<Producer> | undefined;
  /** By topic partition: the last of its sends. */
  readonly #last = new Map<string, Promise<void>>();

  /** @param maxBytes as `PartitionProducer` */
  constructor(kafka: Kafka, config: KafkaConfig, maxBytes: ReadonlyMap<string, number> = new Map()) {
    this.#maxBytes = maxBytes;
    this.#kafka = kafka;
    this.#config = config;
  }

  /** @throws PipelineError when no broker answers or lets us in */
  async open(): Promise<void> {
    try {
      await this.#connected();
    } catch (thrown) {
      this.#producer = undefined;
      throw kafkaError(thrown, 'becoming a producer');
    }
  }

  /**
   * Resolves when all replicas in sync have the records. One `send` a topic partition: see `PartitionProducer`.
   *
   * @throws PipelineError; some of the records may have been written
   */
  async send(partition: number, records: OutgoingRecords): Promise<void> {
    try {
      await allSettled([...records].map(([topic, list]) => this.#inTurn(topic, partition, list)));
    } catch (thrown) {
      throw kafkaError(thrown, `producing to partition ${partition} of ${[...records.keys()].join(', ')}`);
    }
  }

  async close(): Promise<void> {
    const producer = await this.#producer?.catch(() => undefined);
    await producer?.disconnect().catch(() => undefined);
    // A send that was under way connects again, to try again: it is waited for, a while, and its connection closed too.
    await Promise.race([Promise.allSettled(this.#last.values()), sleep(CLOSE_WITHIN_MS, undefined, { ref: false })]);
    await producer?.disconnect().catch(() => undefined);
  }

  #inTurn(topic: string, partition: number, list: readonly OutgoingRecord[]): Promise<void> {
    const key = `${partition}/${topic}`;
    const before = this.#last.get(key) ?? Promise.resolve();
    const sent = before.catch(() => undefined).then(() => this.#send(topic, partition, list));
    this.#last.set(key, sent);
    return sent;
  }

  async #send(topic: string, partition: number, list: readonly OutgoingRecord[]): Promise<void> {
    const used = this.#connected();
    try {
      const producer = await used;
      const compression = compressionType(this.#config.compression);
      for (const messages of chunks(list, partition, this.#maxBytes.get(topic)))
        await producer.send({ topic, acks: -1, compression, messages });
    } catch (error) {
      if (this.#producer === used) {
        this.#producer = undefined;
        void used.then((producer) => producer.disconnect()).catch(() => undefined);
      }
      throw error;
    }
  }

  #connected(): Promise<Producer> {
    this.#producer ??= connect(this.#kafka);
    return this.#producer;
  }
}

async function connect(kafka: Kafka): Promise<Producer> {
  const producer = kafka.producer({
    idempotent: true,
    maxInFlightRequests: 5,
    allowAutoTopicCreation: false,
    createPartitioner: statedPartition,
    retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 20 },
  });
  await producer.connect();
  return producer;
}
