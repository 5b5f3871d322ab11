/**
 * Events sorted by user, out of core: the first half of a backfill. Memory is one buffer of a stated size, whatever the number of
 * events; what does not fit lies in sorted runs on disk, which are merged as they are read.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { PositionedAction } from '../../schemas/action.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { mergeRuns, type SortedEvent, sortEvents, toEvent, toLine } from './sorted-run.ts';
import { makeWorkFolder, removeWorkFolder } from './work-folder.ts';

export interface UserSortOptions {
  /** Where the runs lie, in a folder of their own that `close` removes. */
  readonly folder: string;
  /** Events held before they are written as a run, and read-ahead of the runs while they are merged, bytes. @default 64 MiB */
  readonly memoryBytes?: number;
  /**
   * An action of this kind erases its user: neither it nor what comes before it in the user's order comes out. Users with erasures
   * are remembered, a number each. @default none does
   */
  readonly erasureAction?: string;
}

/** Objects and strings of one event beside its characters, about, bytes. */
const EVENT_BYTES = 400;
/** Bytes of a run's lines that are written at once. */
const WRITE_BYTES = 256 * 1024;
/** Read ahead of each run that is being merged. */
const READ_BYTES = 64 * 1024;

/**
 * Users in an order of their own (by a hash of the id), each user's events by `order`, ties in the order of `add`: the same
 * events, added in the same order, come out in the same order.
 *
 * I/O is synchronous: a backfill has nothing better to do meanwhile, and its steps stay in order.
 */
export class UserSort {
  readonly #memoryBytes: number;
  readonly #folder: string;
  #held: SortedEvent[] = [];
  #heldBytes = 0;
  readonly #runs: string[] = [];
  readonly #erasures = new Map<string, number>();
  readonly #erasureAction: string | undefined;
  #runNumber = 0;
  #count = 0;
  #spilledBytes = 0;

  /** @throws PipelineError `SOURCE_UNREADABLE` where the folder cannot be made */
  constructor({ folder, memoryBytes = 64 * 1024 * 1024, erasureAction }: UserSortOptions) {
    this.#erasureAction = erasureAction;
    this.#memoryBytes = memoryBytes;
    this.#folder = this.#onDisk(() => makeWorkFolder(folder, 'sort'));
  }

  /** Events added. */
  get count(): number {
    return this.#count;
  }

  /** Written to disk so far. */
  get spilledBytes(): number {
    return this.#spilledBytes;
  }

  /** @param order what a user's events are sorted by: event time, or the place in the source */
  add(action: PositionedAction, order: number): void {
    if (action.action === this.#erasureAction) this.#erasures.set(action.userId, (this.#erasures.get(action.userId) ?? 0) + 1);
    this.#held.push(toEvent(action, order, this.#count++));
    this.#heldBytes += EVENT_BYTES + 2 * (action.eventId.length + action.userId.length + action.entity.length);
    if (this.#heldBytes >= this.#memoryBytes) this.#spill();
  }

  /** All events that no erasure took away, users whole. Read it once, after the last `add`. */
  *sorted(): Generator<PositionedAction> {
    let userId: string | undefined;
    let erasures = 0;
    for (const action of this.#all()) {
      if (action.userId !== userId) {
        userId = action.userId;
        erasures = this.#erasures.get(userId) ?? 0;
      }
      if (erasures === 0) yield action;
      else if (action.action === this.#erasureAction) erasures -= 1;
    }
  }

  *#all(): Generator<PositionedAction> {
    if (this.#runs.length === 0) {
      for (const { action } of sortEvents(this.#held)) yield action;
      return;
    }
    if (this.#held.length > 0) this.#spill();
    const fanIn = Math.max(2, Math.floor(this.#memoryBytes / READ_BYTES / 4));
    // Runs are merged in passes where there are more of them than may be read side by side.
    while (this.#runs.length > fanIn) this.#write(mergeRuns(this.#runs.splice(0, fanIn), READ_BYTES));
    for (const { action } of mergeRuns(this.#runs, READ_BYTES)) yield action;
  }

  /** Removes what lies on disk. */
  close(): void {
    this.#held = [];
    removeWorkFolder(this.#folder);
  }

  #spill(): void {
    const events = sortEvents(this.#held);
    this.#held = [];
    this.#heldBytes = 0;
    this.#write(events);
  }

  #write(events: Iterable<SortedEvent>): void {
    const path = join(this.#folder, `run-${this.#runNumber++}`);
    this.#onDisk(() => {
      const file = openSync(path, 'w');
      try {
        let text = '';
        const flush = () => {
          this.#spilledBytes += writeSync(file, text);
          text = '';
        };
        for (const event of events) {
          text += toLine(event);
          if (text.length >= WRITE_BYTES) flush();
        }
        flush();
      } finally {
        closeSync(file);
      }
    });
    this.#runs.push(path);
  }

  #onDisk<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      if (cause instanceof PipelineError) throw cause;
      throw new PipelineError('STORE_FAILED', `sorting events by user on disk failed: ${messageOf(cause)}`, { cause });
    }
  }
}
