/** Reads a partition of the changelog up to its end: how a lost, old or new local store is brought up to date. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { PartitionFetcher } from './partition-fetcher.ts';

export interface ChangelogPart {
  /** Records in order, of committed transactions only. */
  readonly records: readonly SourceRecord[];
  /** Where the next record is to be found. */
  readonly nextOffset: number;
}

export interface ReadOptions {
  readonly partition: number;
  /** Offset to begin at. */
  readonly from: number;
  /** Stops the reading. */
  readonly signal: AbortSignal;
  /** Awaited before more is given: the reader's memory is bounded. */
  readonly apply: (part: ChangelogPart, end: number) => Promise<void>;
}

const MAX_BUFFERED_BYTES = 16 * 2 ** 20;
const MAX_BYTES_PER_FETCH = 2 ** 20;

export class ChangelogReader {
  readonly #topic: string;
  readonly #fetcher: PartitionFetcher;
  readonly #waiting = new Map<number, () => void>();
  /** By partition that is being read: what ended the reading. */
  readonly #failures = new Map<number, PipelineError | undefined>();

  constructor(kafka: Kafka, topic: string) {
    this.#topic = topic;
    this.#fetcher = new PartitionFetcher(kafka, {
      maxBufferedBytes: MAX_BUFFERED_BYTES,
      maxBytesPerFetch: MAX_BYTES_PER_FETCH,
      onData: ({ partition }) => this.#waiting.get(partition)?.(),
      onStanding: ({ partition, code, reason }) => {
        if (code !== 'BATCH_UNREADABLE' || !this.#failures.has(partition)) return;
        this.#failures.set(partition, new PipelineError(code, reason));
        this.#waiting.get(partition)?.();
      },
      onError: (error) => {
        for (const partition of this.#failures.keys()) this.#failures.set(partition, error);
        for (const wake of this.#waiting.values()) wake();
      },
    });
  }

  connect(): Promise<void> {
    return this.#fetcher.connect([this.#topic]);
  }

  /** First and next offset of what is committed. */
  offsets(partition: number): Promise<{ readonly first: number; readonly end: number }> {
    return this.#fetcher.offsets({ topic: this.#topic, partition });
  }

  /**
   * Reads from `from` to the end that the partition has when called.
   *
   * @returns where a later reading goes on
   * @throws PipelineError when the broker does not answer, `BATCH_UNREADABLE`; `DOMException` `AbortError` when stopped
   */
  async readToEnd({ partition, from, signal, apply }: ReadOptions): Promise<number> {
    const at = { topic: this.#topic, partition };
    const { end } = await this.offsets(partition);
    let position = from;
    if (position >= end) return position;
    this.#failures.set(partition, undefined);
    this.#fetcher.assign(at, from);
    try {
      while (position < end) {
        signal.throwIfAborted();
        const failure = this.#failures.get(partition);
        if (failure !== undefined) throw failure;
        const { records, nextOffset } = this.#fetcher.take(at, Number.MAX_SAFE_INTEGER);
        const fault = records.find((record) => record.fault !== undefined)?.fault;
        if (fault !== undefined) throw new PipelineError('BATCH_UNREADABLE', `${this.#topic}/${partition}: ${fault.message}`);
        if (!(nextOffset > position)) await this.#data(partition, signal);
        else {
          await apply({ records, nextOffset }, end);
          position = nextOffset;
        }
      }
      return position;
    } finally {
      this.#fetcher.unassign(at);
      this.#waiting.delete(partition);
      this.#failures.delete(partition);
    }
  }

  close(): Promise<void> {
    return this.#fetcher.close();
  }

  #data(partition: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', wake);
        this.#waiting.delete(partition);
        resolve();
      };
      signal.addEventListener('abort', wake, { once: true });
      this.#waiting.set(partition, wake);
    });
  }
}
