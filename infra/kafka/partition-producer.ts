/** What one input partition gives to the world, in transactions that only its owner can commit. */
import type { Kafka, Message, Producer, Transaction } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { compressionType } from './compression.ts';
import { kafkaError } from './kafka-errors.ts';
import { allSettled, fenceOthers, inTransaction, transactionalProducer } from './transactions.ts';

export interface OutgoingRecord {
  readonly key: Uint8Array | string | null;
  /** Null: a tombstone. */
  readonly value: Uint8Array | null;
  readonly timestampMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** @default that of the input */
  readonly partition?: number;
}

/** Records by topic; unless they say otherwise, they go to the partition number of the input. */
export type OutgoingRecords = ReadonlyMap<string, readonly OutgoingRecord[]>;

export interface Commit {
  readonly records: OutgoingRecords;
  /** Next offset of every input topic that moved. */
  readonly inputs: Readonly<Record<string, number>>;
}

/** Of one request, before compression: well under the broker's 1 MiB, with room for what a record costs beside its bytes. */
const MAX_SEND_BYTES = 700_000;
/** What a record costs beside its key and value, at most. */
const RECORD_BYTES = 100;

/**
 * The producer of one input partition. Its transactional id is `<applicationId>-<partition>`: whoever opens it last fences
 * all before, and ends what they left open.
 */
export class PartitionProducer {
  readonly #kafka: Kafka;
  readonly #config: KafkaConfig;
  readonly #partition: number;
  #producer: Producer;
  readonly #maxBytes: ReadonlyMap<string, number>;
  /** Met a fault: used no more, see docs/decisions/017-a-producer-is-not-used-after-an-error.md. */
  #spent = false;

  /** @param maxBytes largest batch that a topic takes, bytes. @default topics take what is sent */
  constructor(kafka: Kafka, config: KafkaConfig, partition: number, maxBytes: ReadonlyMap<string, number> = new Map()) {
    this.#maxBytes = maxBytes;
    this.#kafka = kafka;
    this.#config = config;
    this.#partition = partition;
    this.#producer = transactionalProducer(kafka, config, partition);
  }

  /** Fences earlier owners; a transaction that they left open is settled, committed or aborted, before this returns. */
  async open(): Promise<void> {
    try {
      await fenceOthers(this.#producer, `becoming the producer of partition ${this.#partition}`);
    } catch (error) {
      this.#spent = true;
      throw error;
    }
  }

  /**
   * After a fault: another producer takes the place of the one that met it, by the next epoch, so that nothing of before which is
   * still on its way can count any more. Whether the commit that failed was done can be read from then on.
   */
  async reopen(): Promise<void> {
    await this.close();
    this.#producer = transactionalProducer(this.#kafka, this.#config, this.#partition);
    this.#spent = false;
    await this.open();
  }

  /**
   * Commits records and input offsets as one.
   *
   * @returns by topic, the offset after the last record that was written to the partition number of the input
   * @throws PipelineError; the transaction may be committed or not: `reopen`, which settles it, and look
   */
  commit({ records, inputs }: Commit): Promise<ReadonlyMap<string, number>> {
    return this.#inTransaction(async (transaction) => {
      const ends = await this.#send(transaction, records);
      await this.#sendOffsets(transaction, inputs);
      return ends;
    });
  }

  /**
   * Commits records that come in parts, and input offsets, as one: for what is too much to be held.
   *
   * @throws PipelineError as `commit`, and what `write` throws, with nothing committed
   */
  commitParts(
    write: (send: (topic: string, records: readonly OutgoingRecord[]) => Promise<void>) => Promise<void>,
    inputs: Commit['inputs'],
  ): Promise<void> {
    return this.#inTransaction(async (transaction) => {
      await write(async (topic, records) => {
        await this.#send(transaction, new Map([[topic, records]]));
      });
      await this.#sendOffsets(transaction, inputs);
    });
  }

  /** Commits where a group begins with all partitions of `topic`: next offsets by partition. @throws PipelineError as `commit` */
  commitStarts(topic: string, starts: ReadonlyMap<number, number>): Promise<void> {
    const partitions = [...starts].map(([partition, offset]) => ({ partition, offset: String(offset) }));
    return this.#inTransaction((transaction) =>
      transaction.sendOffsets({ consumerGroupId: this.#config.applicationId, topics: [{ topic, partitions }] }),
    );
  }

  async close(): Promise<void> {
    await this.#producer.disconnect().catch(() => undefined);
  }

  async #inTransaction<T>(write: (transaction: Transaction) => Promise<T>): Promise<T> {
    if (this.#spent) throw new Error(`the producer of partition ${this.#partition} has met a fault, and is to be opened anew`);
    try {
      return await inTransaction(this.#producer, `committing partition ${this.#partition}`, write);
    } catch (error) {
      this.#spent = true;
      throw error;
    }
  }

  async #sendOffsets(transaction: Transaction, inputs: Commit['inputs']): Promise<void> {
    if (Object.keys(inputs).length === 0) return;
    await transaction.sendOffsets({
      consumerGroupId: this.#config.applicationId,
      topics: Object.entries(inputs).map(([topic, offset]) => ({
        topic,
        partitions: [{ partition: this.#partition, offset: String(offset) }],
      })),
    });
  }

  /**
   * One `send` a topic partition: kafkajs loses acknowledged records when a leader dies while several partitions share a
   * request (tulios/kafkajs#1303).
   */
  async #send(to: Pick<Transaction, 'send'>, records: OutgoingRecords): Promise<ReadonlyMap<string, number>> {
    const compression = compressionType(this.#config.compression);
    const ends = new Map<string, number>();
    await allSettled(
      byTopicPartition(records, this.#partition).map(async ([topic, partition, list]) => {
        for (const messages of chunks(list, partition, this.#maxBytes.get(topic))) {
          const [answer] = await to.send({ topic, acks: -1, compression, messages }).catch((thrown: unknown) => {
            throw kafkaError(thrown, whatIsSent(topic, partition, messages));
          });
          const base = Number(answer?.baseOffset ?? answer?.offset);
          if (partition === this.#partition) ends.set(topic, base + messages.length);
        }
      }),
    );
    return ends;
  }
}

function byTopicPartition(
  records: OutgoingRecords,
  own: number,
): readonly (readonly [topic: string, partition: number, list: readonly OutgoingRecord[]])[] {
  return [...records].flatMap(([topic, list]) => {
    if (list.every(({ partition = own }) => partition === own)) return [[topic, own, list] as const];
    const lists = new Map<number, OutgoingRecord[]>();
    for (const record of list) {
      const { partition = own } = record;
      const of = lists.get(partition);
      if (of === undefined) lists.set(partition, [record]);
      else of.push(record);
    }
    return [...lists].map(([partition, of]) => [topic, partition, of] as const);
  });
}

/** Runs of records that fit into a request each, in order. */
export function* chunks(records: readonly OutgoingRecord[], partition: number, maxBytes?: number): Generator<Message[]> {
  const most = Math.min(MAX_SEND_BYTES, roomOf(maxBytes));
  let messages: Message[] = [];
  let bytes = 0;
  for (const record of records) {
    const { key, value, timestampMs, headers } = record;
    const size = bytesOf(record);
    if (messages.length > 0 && bytes + size > most) {
      yield messages;
      messages = [];
      bytes = 0;
    }
    messages.push({
      partition,
      key: key === null || typeof key === 'string' ? key : asBuffer(key),
      value: value === null ? null : asBuffer(value),
      ...(timestampMs !== undefined && { timestamp: String(timestampMs) }),
      ...(headers !== undefined && { headers }),
    });
    bytes += size;
  }
  if (messages.length > 0) yield messages;
}

/** Of a record in a batch, bytes, before compression: at least what it costs. */
export const bytesOf = ({ key, value, headers = {} }: OutgoingRecord): number =>
  RECORD_BYTES +
  lengthOf(key) +
  lengthOf(value) +
  Object.entries(headers).reduce((sum, [name, text]) => sum + RECORD_BYTES + lengthOf(name) + lengthOf(text), 0);

/** For the records of a batch whose topic takes so much, bytes: without the batch's head, and what compression may add. */
export const roomOf = (maxMessageBytes = Number.POSITIVE_INFINITY): number => Math.floor(maxMessageBytes * 0.998) - 1_024;

function whatIsSent(topic: string, partition: number, messages: readonly Message[]): string {
  const largest = Math.max(...messages.map(({ key, value }) => lengthOf(key ?? null) + lengthOf(value)));
  return `writing ${messages.length} record(s) to ${topic}/${partition}, the largest of ${largest} bytes`;
}

const lengthOf = (value: Uint8Array | string | null): number =>
  value === null ? 0 : typeof value === 'string' ? Buffer.byteLength(value) : value.byteLength;

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
