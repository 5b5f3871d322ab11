/** Stores what was taken from the topics: erasures, rows, and then how far that is; for as long as it takes. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SourceRecord } from '../../../schemas/action.ts';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';
import type { ClickHouse } from '../clickhouse.ts';
import { isTransient } from '../transient-errors.ts';
import { isDiskFull } from './disk-full.ts';
import { Erasures } from './erasures.ts';
import { type FeedOffset, readOffsets, writeOffsets } from './feed-offsets.ts';
import { FEED_COLUMNS, FEED_TABLES, type FeedReader } from './feed-rows.ts';

/** Records of one topic partition, in order. */
export interface TakenRecords extends FeedOffset {
  readonly records: readonly SourceRecord[];
}

export interface FeedWriterOptions {
  readonly runId: string;
  readonly reader: FeedReader;
  /** Pause before the second attempt, ms; doubles up to 5 s. @default 200 */
  readonly retryDelayMs?: number;
  /** ClickHouse does not answer, or cannot take more now: the same is tried again. */
  readonly onAway?: (error: unknown, attempt: number) => void;
  /** It answers again. */
  readonly onBack?: (afterMs: number) => void;
}

export interface FeedCommit {
  /** Rows that were stored, all tables together. */
  readonly rows: number;
  readonly unreadable: number;
  readonly erasures: number;
  readonly seconds: number;
}

const MAX_DELAY_MS = 5_000;

export class FeedWriter {
  readonly #clickhouse: ClickHouse;
  readonly #options: FeedWriterOptions;
  readonly #erasures: Erasures;

  constructor(clickhouse: ClickHouse, options: FeedWriterOptions) {
    this.#clickhouse = clickhouse;
    this.#options = options;
    this.#erasures = new Erasures(clickhouse, options.runId);
  }

  /** Where each topic partition goes on, by `partition/topic`. @throws as `commit` */
  start(signal: AbortSignal): Promise<ReadonlyMap<string, FeedOffset>> {
    return this.#persist('reading where the sink stands', signal, async () => {
      await this.#erasures.load();
      return readOffsets(this.#clickhouse, this.#options.runId);
    });
  }

  /**
   * Stores the records and their offsets; waits for ClickHouse as long as it is away, holding no more than these records.
   *
   * Idempotent: rows are keyed by what they are of, so that records stored twice are there once, and the offsets come last.
   *
   * @throws PipelineError `STORE_FAILED` for what waiting does not mend, a full disk above all; `DOMException` `AbortError`
   *   when aborted before it is done: then some of it may be stored, and is stored again by whoever reads these records next
   */
  async commit(taken: readonly TakenRecords[], signal: AbortSignal): Promise<FeedCommit> {
    const began = performance.now();
    const read = this.#options.reader.read(taken.flatMap(({ records }) => records));
    const what = `storing ${taken.map(({ topic, partition, nextOffset }) => `${topic}/${partition} up to ${nextOffset}`).join(', ')}`;
    let rows = 0;
    await this.#persist(what, signal, async () => {
      await this.#erasures.apply(read.cuts);
      const kept = await this.#erasures.keep(read.tables);
      rows = FEED_TABLES.reduce((sum, table) => sum + kept[table].length, 0);
      const inserts = await Promise.allSettled(
        FEED_TABLES.map((table) =>
          this.#clickhouse.insert(
            table,
            FEED_COLUMNS[table],
            kept[table].map(({ json }) => json),
          ),
        ),
      );
      for (const result of inserts) if (result.status === 'rejected') throw result.reason;
      await writeOffsets(this.#clickhouse, this.#options.runId, taken);
    });
    const { unreadable, cuts } = read;
    return { rows, unreadable, erasures: cuts.length, seconds: (performance.now() - began) / 1000 };
  }

  async #persist<T>(what: string, signal: AbortSignal, attemptOnce: () => Promise<T>): Promise<T> {
    const { retryDelayMs = 200, onAway, onBack } = this.#options;
    const began = performance.now();
    for (let attempt = 1; ; attempt++) {
      try {
        const result = await attemptOnce();
        if (attempt > 1) onBack?.(performance.now() - began);
        return result;
      } catch (cause) {
        if (isDiskFull(cause) || !isTransient(cause)) throw this.#final(what, cause);
        onAway?.(cause, attempt);
      }
      signal.throwIfAborted();
      await sleep(Math.min(MAX_DELAY_MS, retryDelayMs * 2 ** (attempt - 1)), undefined, { signal });
    }
  }

  #final(what: string, cause: unknown): PipelineError {
    const hint = isDiskFull(cause)
      ? 'its disk is full: make room, and start again; nothing is lost, the sink goes on where it stands'
      : 'this is not mended by waiting';
    return new PipelineError('STORE_FAILED', `ClickHouse at ${this.#clickhouse.where}: ${hint} (${what}: ${messageOf(cause)})`, {
      cause,
    });
  }
}
