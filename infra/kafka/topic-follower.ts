/** Reads all partitions of a topic whole, and then what comes: outside any group, by every instance for itself. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { Standing } from './partition-buffer.ts';
import { PartitionFetcher } from './partition-fetcher.ts';
import { withAdmin } from './topics.ts';

export interface TopicFollowerOptions {
  readonly topic: string;
  /** Fetched and not yet given, a partition, bytes. */
  readonly maxBufferedBytes: number;
  /** Committed records of one partition, in order; awaited before more is given. */
  readonly onRecords: (records: readonly SourceRecord[]) => Promise<void>;
  /** A fault that is tried again. */
  readonly onTrouble: (error: PipelineError) => void;
  /** A fault that waiting does not mend: nothing more is read. */
  readonly onFailed: (error: PipelineError) => void;
}

/** Given at once: each is decoded, and the event loop is others' too. */
const RECORDS_AT_ONCE = 200;
/** Wait before reading goes on where the brokers did not answer for long, ms. */
const RETRY_MS = 1_000;

export class TopicFollower {
  readonly #kafka: Kafka;
  readonly #options: TopicFollowerOptions;
  readonly #fetcher: PartitionFetcher;
  /** Where each partition's next record is to be found; its end when reading began. */
  readonly #partitions = new Map<number, { position: number; readonly end: number }>();
  readonly #caughtUp: Promise<void>;
  #settle!: { readonly resolve: () => void; readonly reject: (error: PipelineError) => void };
  #wake: () => void = () => undefined;
  #retry: NodeJS.Timeout | undefined;
  #reading: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(kafka: Kafka, options: TopicFollowerOptions) {
    this.#kafka = kafka;
    this.#options = options;
    this.#fetcher = new PartitionFetcher(kafka, {
      maxBufferedBytes: options.maxBufferedBytes,
      onData: () => this.#wake(),
      onError: (error) => this.#failed(error),
      onTrouble: options.onTrouble,
    });
    this.#caughtUp = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#caughtUp.catch(() => undefined);
  }

  /**
   * Begins to read, from the beginning of every partition.
   *
   * @returns when all has been given that was there when it was called
   * @throws PipelineError Kafka's
   */
  async open(): Promise<void> {
    const { topic } = this.#options;
    await this.#fetcher.connect([topic]);
    const found = await withAdmin(this.#kafka, `looking up ${topic}`, (admin) => admin.fetchTopicMetadata({ topics: [topic] }));
    for (const { partitionId } of found.topics[0]!.partitions.sort((a, b) => a.partitionId - b.partitionId)) {
      const { first, end } = await this.#fetcher.offsets({ topic, partition: partitionId });
      this.#partitions.set(partitionId, { position: first, end });
    }
    this.#assign();
    this.#reading = this.#read();
    await this.#caughtUp;
  }

  /** Where each partition's next record to be given is to be found. */
  get positions(): ReadonlyMap<number, number> {
    return new Map([...this.#partitions].map(([partition, { position }]) => [partition, position]));
  }

  /** Partitions that cannot be read on now. */
  get standing(): readonly Standing[] {
    return this.#fetcher.standing();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#settle.reject(new PipelineError('KAFKA_FAILED', `${this.#options.topic} is read no more: the instance is stopping`));
    this.#wake();
    await this.#fetcher.close();
    await this.#reading;
  }

  #assign(): void {
    const { topic } = this.#options;
    for (const [partition, { position }] of this.#partitions) this.#fetcher.assign({ topic, partition }, position);
  }

  async #read(): Promise<void> {
    while (!this.#closed) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      let given = false;
      for (const partition of this.#partitions.keys()) given = (await this.#give(partition)) || given;
      if ([...this.#partitions.values()].every(({ position, end }) => position >= end)) this.#settle.resolve();
      // Others' turn; and nothing more until something comes.
      await (given ? new Promise(setImmediate) : woken);
    }
  }

  async #give(partition: number): Promise<boolean> {
    const { topic, onRecords } = this.#options;
    const { records, nextOffset } = this.#fetcher.take({ topic, partition }, RECORDS_AT_ONCE);
    if (Number.isNaN(nextOffset)) return false;
    if (records.length > 0) {
      try {
        await onRecords(records);
      } catch (thrown) {
        // What was taken is fetched again, and nothing after it before that.
        this.#fetcher.unassign({ topic, partition });
        if (!this.#closed) this.#failed(thrown as PipelineError);
        return false;
      }
    }
    this.#partitions.get(partition)!.position = nextOffset;
    return records.length > 0;
  }

  /** The fetcher has let go of all partitions. */
  #failed(error: PipelineError): void {
    if (this.#closed) return;
    if (!error.retriable) {
      this.#settle.reject(error);
      this.#options.onFailed(error);
      return;
    }
    this.#options.onTrouble(error);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#assign();
      this.#wake();
    }, RETRY_MS);
  }
}
