/** Writes what batches put out, and how far the run has come: rows first, progress last. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { OutputBatch } from '../../schemas/batch.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { ClickHouse } from './clickhouse.ts';
import { appendRows, emptyRows, OUTPUT_TABLES, TABLE_COLUMNS, timeText, USER_TABLES } from './output-rows.ts';
import { isTransient } from './transient-errors.ts';

export interface ClickHouseSinkOptions {
  readonly runId: string;
  /** Records of the source, where that is known. */
  readonly total?: number;
  /** What the run is made of: sources, model, settings. */
  readonly facts?: Readonly<Record<string, unknown>>;
  /** Rows that one commit may take before the next begins. @default 50,000 */
  readonly maxRows?: number;
  /** How long a commit waits for more batches, ms. @default 5 */
  readonly maxDelayMs?: number;
  /** Attempts at an insert before the sink fails. @default 6 */
  readonly maxAttempts?: number;
  /** Pause before the second attempt, ms; doubles with each. @default 100 */
  readonly retryDelayMs?: number;
}

interface Waiting {
  readonly batch: OutputBatch;
  readonly position: number;
  readonly settle: (error?: PipelineError) => void;
}

/**
 * Group commit: batches that arrive while a commit runs, or within `maxDelayMs`, share the next one, since ClickHouse
 * takes few inserts a second but large ones.
 *
 * Idempotent: rows are keyed by run and lineage, so a batch written twice is there once. After a failure every later
 * write fails with the same error, since progress must not pass over a gap.
 */
export class ClickHouseSink {
  readonly #clickhouse: ClickHouse;
  readonly #options: Required<ClickHouseSinkOptions>;
  readonly #waiting: Waiting[] = [];
  #lastPosition = -1;
  #committing: Promise<void> | undefined;
  #failure: PipelineError | undefined;

  constructor(clickhouse: ClickHouse, options: ClickHouseSinkOptions) {
    this.#clickhouse = clickhouse;
    this.#options = { total: -1, facts: {}, maxRows: 50_000, maxDelayMs: 5, maxAttempts: 6, retryDelayMs: 100, ...options };
  }

  /**
   * Stores a batch and then the position that follows it; resolves when both are durable.
   *
   * Call in the order of positions; there is no need to wait for the previous write.
   *
   * @throws PipelineError `STORE_FAILED` when ClickHouse refuses the rows or stays away for all attempts
   */
  write(batch: OutputBatch, position: number): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (position < this.#lastPosition)
      return Promise.reject(
        new PipelineError('STORE_FAILED', `position ${position} after ${this.#lastPosition}: batches must be written in order`),
      );
    this.#lastPosition = position;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ batch, position, settle: (error) => (error === undefined ? resolve() : reject(error)) });
      this.#committing ??= this.#commitAll();
    });
  }

  /** Waits for all writes, then marks the run as finished at its last position (or `position`, where none was written). */
  async finish(position = Math.max(0, this.#lastPosition)): Promise<void> {
    await this.#committing;
    if (this.#failure !== undefined) throw this.#failure;
    await this.#insertProgress(position, true).catch((error: unknown) => {
      throw this.#fail(error);
    });
  }

  /** Waits until nothing is being written; failed writes have rejected their own promises. */
  async drained(): Promise<void> {
    await this.#committing;
  }

  async #commitAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      if (this.#options.maxDelayMs > 0) await sleep(this.#options.maxDelayMs);
      const group = this.#nextGroup();
      try {
        await this.#commit(group.batches, group.rows);
        for (const { settle } of group.batches) settle();
      } catch (error) {
        const failure = this.#fail(error);
        for (const { settle } of [...group.batches, ...this.#waiting.splice(0)]) settle(failure);
      }
    }
    this.#committing = undefined;
  }

  #nextGroup() {
    const rows = emptyRows();
    const batches: Waiting[] = [];
    let count = 0;
    while (this.#waiting.length > 0 && count < this.#options.maxRows) {
      // An erasure takes what was stored before it and nothing after: its batch begins a commit of its own.
      if (batches.length > 0 && this.#waiting[0]!.batch.erased !== undefined) break;
      const next = this.#waiting.shift()!;
      batches.push(next);
      count += appendRows(rows, this.#options.runId, next.batch);
    }
    return { rows, batches };
  }

  async #commit(batches: readonly Waiting[], rows: ReturnType<typeof emptyRows>): Promise<void> {
    await this.#erase(batches[0]!.batch.erased ?? []);
    // All settle before any error is thrown: nothing of this commit may still be on its way when the next begins.
    const results = await Promise.allSettled(
      OUTPUT_TABLES.map((table) => this.#insert(table, TABLE_COLUMNS[table], rows[table])),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    await this.#insertProgress(batches.at(-1)!.position, false);
  }

  /** Removes users from all that this run has stored; done again after a crash, it changes nothing. */
  async #erase(userIds: readonly string[]): Promise<void> {
    if (userIds.length === 0) return;
    const { runId } = this.#options;
    for (const table of USER_TABLES) {
      const sql = `DELETE FROM ${table} WHERE run_id = {runId:String} AND user_id IN {userIds:Array(String)}`;
      await this.#retried(`erasure from ${table}`, () => this.#clickhouse.command(sql, { runId, userIds }));
    }
  }

  #insertProgress(position: number, finished: boolean): Promise<void> {
    const { runId, total, facts } = this.#options;
    const row = JSON.stringify([
      runId,
      position,
      total < 0 ? null : total,
      finished,
      timeText(Date.now()),
      JSON.stringify(facts),
    ]);
    return this.#insert('progress', ['run_id', 'position', 'total', 'finished', 'updated_at', 'facts'], [row]);
  }

  /** An insert whose answer was lost may have happened: repeating it adds nothing. */
  #insert(table: string, columns: readonly string[], rows: readonly string[]): Promise<void> {
    return this.#retried(`insert into ${table}`, () => this.#clickhouse.insert(table, columns, rows));
  }

  async #retried(what: string, attemptOnce: () => Promise<void>): Promise<void> {
    const { maxAttempts, retryDelayMs } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        return await attemptOnce();
      } catch (cause) {
        if (isTransient(cause) && attempt < maxAttempts) {
          await sleep(Math.min(10_000, retryDelayMs * 2 ** (attempt - 1)));
          continue;
        }
        const tries = attempt === 1 ? '' : ` after ${attempt} attempts`;
        throw new PipelineError(
          'STORE_FAILED',
          `ClickHouse at ${this.#clickhouse.where}: ${what} failed${tries}: ${messageOf(cause)}`,
          { cause },
        );
      }
    }
  }

  #fail(error: unknown): PipelineError {
    this.#failure ??=
      error instanceof PipelineError ? error : new PipelineError('STORE_FAILED', messageOf(error), { cause: error });
    return this.#failure;
  }
}
