/** The head of a live stream: one input partition's records in batches, as many under way as the acknowledgements allow. */
import { Observable } from 'rxjs';
import type { SourceRecord } from '../../schemas/action.ts';
import type { SourceBatch } from '../../schemas/batch.ts';

interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** Where a partition's records wait after they were fetched. */
export interface FetchedRecords {
  /** Up to `max` records, oldest first, those before the first of `beforeMs` or later. */
  take(
    at: TopicPartition,
    max: number,
    beforeMs?: number,
  ): { readonly records: readonly SourceRecord[]; readonly nextOffset: number };
  /** The timestamp of the record that waits first, ms; `none` where nothing is left of the log; undefined where that is not known yet. */
  headMs(at: TopicPartition): number | 'none' | undefined;
}

export interface PartitionSourceOptions {
  readonly partition: number;
  /**
   * Input topics. Those of one group are merged by their records' timestamps, of equal ones the earlier topic first; groups take
   * turns.
   */
  readonly topics: readonly (readonly string[])[];
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
 * Of a group, no record is taken while another of its topics may hold an older one: far behind, an erasure stays where it stands
 * among the actions, as in a replay. What is written after its timestamp was passed comes when it comes.
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
      const next = this.#nextOf(topics[(this.#turn + i) % topics.length]!);
      if (next === undefined) continue;
      const { topic, beforeMs } = next;
      const { records, nextOffset } = fetched.take({ topic, partition }, batchEvents, beforeMs);
      if (records.length === 0) continue;
      this.#turn = (this.#turn + i + 1) % topics.length;
      return { topic, partition, records, nextOffset, readAtMs: now(), ack: () => this.#ack() };
    }
    return undefined;
  }

  /** The topic of a group that holds its oldest record, and how far it may go before another's turn. */
  #nextOf(group: readonly string[]): { readonly topic: string; readonly beforeMs: number } | undefined {
    const { fetched, partition } = this.#options;
    let oldest: { readonly topic: string; readonly headMs: number } | undefined;
    let beforeMs = Number.POSITIVE_INFINITY;
    for (const topic of group) {
      const headMs = fetched.headMs({ topic, partition });
      if (headMs === undefined) return undefined;
      if (headMs === 'none') continue;
      if (oldest === undefined) oldest = { topic, headMs };
      else if (headMs < oldest.headMs) {
        beforeMs = oldest.headMs;
        oldest = { topic, headMs };
        // Equal ones of a later topic come after.
      } else beforeMs = Math.min(beforeMs, headMs + 1);
    }
    return oldest === undefined ? undefined : { topic: oldest.topic, beforeMs };
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
