/** The head of a live stream: one input partition's records in batches, as many under way as the acknowledgements allow. */
import { Observable } from 'rxjs';
import type { SourceRecord } from '../../schemas/action.ts';
import type { SourceBatch } from '../../schemas/batch.ts';
import { nextOfMerged, type WaitingRecords } from './erasure-order.ts';

interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** Where a partition's records wait after they were fetched. */
export interface FetchedRecords {
  /** Up to `max` records, oldest first, those before `beforeOffset`. */
  take(
    at: TopicPartition,
    max: number,
    beforeOffset?: number,
  ): { readonly records: readonly SourceRecord[]; readonly nextOffset: number };
  /** What waits, to look at; undefined for a partition that is not read. */
  waiting(at: TopicPartition): WaitingRecords | undefined;
}

export interface PartitionSourceOptions {
  readonly partition: number;
  /** Input topics that take turns. */
  readonly topics: readonly string[];
  /** The two of `topics` that share a turn: an erasure stands at one place among the actions (`nextOfMerged`). @default none do */
  readonly merged?: {
    readonly actions: string;
    readonly erasures: string;
    readonly placeOf: (erasure: SourceRecord) => number | undefined;
  };
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
  /** The topics, the two that share a turn by the name of the actions. */
  readonly #turns: readonly string[];
  #turn = 0;
  #wake: (() => void) | undefined;
  #inFlight = 0;
  /** When the oldest batch under way was read, ms since the epoch. */
  #inFlightSince: number[] = [];

  constructor(options: PartitionSourceOptions) {
    this.#options = options;
    this.#turns = options.topics.filter((topic) => topic !== options.merged?.erasures);
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
    const { fetched, partition, batchEvents, now } = this.#options;
    for (let i = 0; i < this.#turns.length; i++) {
      const next = this.#nextOf(this.#turns[(this.#turn + i) % this.#turns.length]!);
      if (next === undefined) continue;
      const { topic, beforeOffset } = next;
      const { records, nextOffset } = fetched.take({ topic, partition }, batchEvents, beforeOffset);
      if (records.length === 0) continue;
      this.#turn = (this.#turn + i + 1) % this.#turns.length;
      return { topic, partition, records, nextOffset, readAtMs: now(), ack: () => this.#ack() };
    }
    return undefined;
  }

  /** Of a turn the topic to take from, and how far. */
  #nextOf(topic: string): { readonly topic: string; readonly beforeOffset: number } | undefined {
    const { fetched, partition, merged } = this.#options;
    if (topic !== merged?.actions) return { topic, beforeOffset: Number.POSITIVE_INFINITY };
    const actions = fetched.waiting({ topic, partition });
    const erasures = fetched.waiting({ topic: merged.erasures, partition });
    if (actions === undefined || erasures === undefined) return undefined;
    const next = nextOfMerged(actions, erasures, merged.placeOf);
    return next && { topic: merged[next.from], beforeOffset: next.beforeOffset };
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
