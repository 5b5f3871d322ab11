/** The head of a live stream: one input partition's records in batches, as many under way as the acknowledgements allow. */
import { Observable } from 'rxjs';
import type { SourceRecord } from '../../schemas/action.ts';
import type { SourceBatch } from '../../schemas/batch.ts';

/** Where a partition's records wait after they were fetched. */
export interface FetchedRecords {
  take(
    at: { readonly topic: string; readonly partition: number },
    max: number,
  ): { readonly records: readonly SourceRecord[]; readonly nextOffset: number };
}

export interface PartitionSourceOptions {
  readonly partition: number;
  /** Input topics, in the order in which they take turns. */
  readonly topics: readonly string[];
  readonly fetched: FetchedRecords;
  readonly batchEvents: number;
  readonly maxInFlightBatches: number;
  /** Awaited with a batch's records before it is let on: what decoding needs that is not here yet (schemas). */
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/**
 * Batches of one partition number, each of one topic.
 *
 * A batch takes all that has come, up to `batchEvents`: small ones while little comes, large ones under load.
 */
export class PartitionSource {
  readonly #options: PartitionSourceOptions;
  #turn = 0;
  #wake: (() => void) | undefined;
  #inFlight = 0;
  /** When the oldest batch under way was read, ms since the epoch. */
  #inFlightSince: number[] = [];

  constructor(options: PartitionSourceOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** When the oldest batch under way was read, ms since the epoch; undefined while none is. */
  get oldestInFlightMs(): number | undefined {
    return this.#inFlightSince[0];
  }

  /** Says that records have come. */
  notify(): void {
    this.#wake?.();
  }

  /** Completes when `drain` was aborted and all that was read before is acknowledged. */
  batches(drain: AbortSignal): Observable<SourceBatch> {
    return new Observable((subscriber) => {
      this.#inFlight = 0;
      this.#inFlightSince = [];
      const stop = () => this.#wake?.();
      drain.addEventListener('abort', stop);
      const run = async () => {
        while (!subscriber.closed && !drain.aborted) {
          const batch = this.#inFlight < this.#options.maxInFlightBatches ? this.#nextBatch() : undefined;
          if (batch === undefined) {
            await this.#woken();
            continue;
          }
          this.#inFlight += 1;
          this.#inFlightSince.push(batch.readAtMs);
          await this.#options.prepare?.(batch.records);
          if (!subscriber.closed) subscriber.next(batch);
        }
        while (!subscriber.closed && this.#inFlight > 0) await this.#woken();
        subscriber.complete();
      };
      run().catch((error: unknown) => subscriber.error(error));
      return () => {
        drain.removeEventListener('abort', stop);
        this.#wake?.();
      };
    });
  }

  #nextBatch(): SourceBatch | undefined {
    const { topics, fetched, partition, batchEvents, now } = this.#options;
    for (let i = 0; i < topics.length; i++) {
      const topic = topics[(this.#turn + i) % topics.length]!;
      const { records, nextOffset } = fetched.take({ topic, partition }, batchEvents);
      if (records.length === 0) continue;
      this.#turn = (this.#turn + i + 1) % topics.length;
      return { topic, partition, records, nextOffset, readAtMs: now(), ack: () => this.#ack() };
    }
    return undefined;
  }

  #ack(): void {
    this.#inFlight -= 1;
    this.#inFlightSince.shift();
    // Not at once: an acknowledgement arrives from within the last operator of the batch before.
    setImmediate(() => this.#wake?.());
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }
}
