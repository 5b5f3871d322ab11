/** A bounded, time-ordered run of a user's events that forgets its oldest in whole blocks. Plain data, no RxJS. */
import { DIGEST_PAGE } from '../schemas/sequence-digest.ts';
import { PageMarks } from './page-marks.ts';
import { requireInteger } from './require-option.ts';

export interface WindowOptions {
  /** Events a window may hold before its oldest block is dropped. */
  readonly maxLength: number;
  /** Events dropped at once; at most `maxLength`. */
  readonly blockLength: number;
}

/** How many events lie before the window once `accepted` have been accepted: a pure function, so any batching gives the same window. */
export const windowStartOf = (accepted: number, { maxLength, blockLength }: WindowOptions): number =>
  blockLength * Math.ceil(Math.max(0, accepted - maxLength) / blockLength);

/** @throws PipelineError `CONFIG_INVALID` unless `1 ≤ blockLength ≤ maxLength`, both integers */
export function requireWindow({ maxLength, blockLength }: WindowOptions): WindowOptions {
  requireInteger('window.maxLength', maxLength, 1);
  requireInteger('window.blockLength', blockLength, 1);
  // A block longer than the window would leave it empty after a slide.
  requireInteger('window.maxLength (blockLength and up)', maxLength, blockLength);
  return { maxLength, blockLength };
}

/** All that a window is made of, to be written down and read back. */
export interface WindowContents {
  readonly accepted: number;
  readonly start: number;
  /** Time of the newest event dropped; `-Infinity` if none was. */
  readonly droppedTimeMs: number;
  /** Oldest first. */
  readonly droppedIds: Iterable<string>;
  /** `(accepted - start,)`, as are the next two. */
  readonly entities: Int32Array;
  readonly timesMs: Float64Array;
  readonly eventIds: readonly string[];
}

/** Rough cost of one event id beside its characters: string header, array slot, set entry, bytes. */
const ID_BYTES = 72;
const INITIAL_CAPACITY = 8;

/**
 * Events ordered by time, ties by arrival: the last `accepted - start` of them. Where an event has two tokens, each counts.
 *
 * - **time** append O(1) amortised, late insert O(n), dedup O(1)
 * - **memory** at most `maxLength + 2` events, and the ids of at most `2 * maxLength` dropped ones
 */
export class BlockWindow implements WindowContents {
  /** Of the pages of `DIGEST_PAGE` events, by how many were accepted before. */
  readonly marks = new PageMarks(DIGEST_PAGE);
  readonly #options: WindowOptions;
  #entities = new Int32Array(INITIAL_CAPACITY);
  #timesMs = new Float64Array(INITIAL_CAPACITY);
  #eventIds: string[] = [];
  readonly #ids = new Set<string>();
  #idChars = 0;
  #accepted = 0;
  #start = 0;
  #droppedTimeMs = Number.NEGATIVE_INFINITY;
  /** Ids of dropped events of the time `#droppedTimeMs`, oldest first: an event of that time may still be accepted. */
  readonly #droppedIds = new Set<string>();

  constructor(options: WindowOptions) {
    this.#options = requireWindow(options);
  }

  /** A window with the contents of another, all of it as it was last written. */
  static restored(options: WindowOptions, contents: WindowContents): BlockWindow {
    const window = new BlockWindow(options);
    const { accepted, start, droppedTimeMs, droppedIds, entities, timesMs, eventIds } = contents;
    window.#reserve(accepted - start);
    window.#entities.set(entities);
    window.#timesMs.set(timesMs);
    window.#eventIds = [...eventIds];
    for (const id of eventIds) window.#remember(id);
    for (const id of droppedIds) {
      window.#droppedIds.add(id);
      window.#idChars += id.length;
    }
    window.#accepted = accepted;
    window.#start = start;
    window.#droppedTimeMs = droppedTimeMs;
    window.marks.settle(start, accepted);
    return window;
  }

  get length(): number {
    return this.#accepted - this.#start;
  }

  /** Events ever accepted. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Accepted events that lie before the window. */
  get start(): number {
    return this.#start;
  }

  /** Whether accepting so many more drops a block. */
  slidesWith(count: number): boolean {
    return windowStartOf(this.#accepted + count, this.#options) > this.#start;
  }

  /** `(length,)`, a view: valid until the next change. */
  get entities(): Int32Array {
    return this.#entities.subarray(0, this.length);
  }

  /** `(length,)`, a view: valid until the next change. */
  get timesMs(): Float64Array {
    return this.#timesMs.subarray(0, this.length);
  }

  /** Of the newest event; `-Infinity` while there is none. */
  get newestTimeMs(): number {
    return this.length === 0 ? Number.NEGATIVE_INFINITY : this.#timesMs[this.length - 1]!;
  }

  entityAt(index: number): number {
    return this.#entities[index]!;
  }

  timeMsAt(index: number): number {
    return this.#timesMs[index]!;
  }

  get eventIds(): readonly string[] {
    return this.#eventIds;
  }

  get droppedTimeMs(): number {
    return this.#droppedTimeMs;
  }

  get droppedIds(): Iterable<string> {
    return this.#droppedIds;
  }

  /** Estimate of what this window holds in memory. */
  get bytes(): number {
    const ids = this.#ids.size + this.#droppedIds.size;
    return this.#entities.byteLength + this.#timesMs.byteLength + ids * ID_BYTES + this.#idChars;
  }

  has(eventId: string): boolean {
    return this.#ids.has(eventId) || this.#droppedIds.has(eventId);
  }

  /** Whether an event of this time lies before the window: where it would belong has been forgotten. */
  isBefore(timeMs: number): boolean {
    return timeMs < this.#droppedTimeMs;
  }

  /** Where an event of this time belongs: after all of its time or earlier. */
  indexFor(timeMs: number): number {
    let low = 0;
    let high = this.length;
    if (high === 0 || this.#timesMs[high - 1]! <= timeMs) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#timesMs[middle]! <= timeMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * Inserts an event that `has` and `isBefore` have cleared; a block may be dropped, the event itself with it. An event of two
   * tokens takes two places, side by side: they are dropped together where `blockLength` is even.
   */
  insert(eventId: string, timeMs: number, entity: number, second?: number): void {
    const { length } = this;
    const count = second === undefined ? 1 : 2;
    const index = this.indexFor(timeMs);
    this.#reserve(length + count);
    this.#entities.copyWithin(index + count, index, length);
    this.#timesMs.copyWithin(index + count, index, length);
    this.#entities[index] = entity;
    if (second !== undefined) this.#entities[index + 1] = second;
    this.#timesMs.fill(timeMs, index, index + count);
    if (index < length) this.#eventIds.splice(index, 0, ...new Array<string>(count).fill(eventId));
    else for (let i = 0; i < count; i++) this.#eventIds.push(eventId);
    this.#remember(eventId);
    this.#accepted += count;
    this.marks.touch(this.#start + index);
    const surplus = windowStartOf(this.#accepted, this.#options) - this.#start;
    if (surplus > 0) this.#drop(surplus);
  }

  #drop(count: number): void {
    const { length } = this;
    const newestMs = this.#timesMs[count - 1]!;
    if (newestMs !== this.#droppedTimeMs) this.#forgetDropped(0);
    this.#droppedTimeMs = newestMs;
    for (let i = 0; i < count; i++) {
      const eventId = this.#eventIds[i]!;
      // The second token of an event whose first went just now.
      if (!this.#ids.delete(eventId)) continue;
      if (this.#timesMs[i] === newestMs) this.#droppedIds.add(eventId);
      else this.#idChars -= eventId.length;
    }
    this.#forgetDropped(2 * this.#options.maxLength);
    this.#entities.copyWithin(0, count, length);
    this.#timesMs.copyWithin(0, count, length);
    this.#eventIds.splice(0, count);
    this.#start += count;
  }

  /** An event's two tokens have one id. */
  #remember(eventId: string): void {
    if (this.#ids.has(eventId)) return;
    this.#ids.add(eventId);
    this.#idChars += eventId.length;
  }

  /** Keeps the newest `keep` ids of dropped events. */
  #forgetDropped(keep: number): void {
    for (const eventId of this.#droppedIds) {
      if (this.#droppedIds.size <= keep) return;
      this.#droppedIds.delete(eventId);
      this.#idChars -= eventId.length;
    }
  }

  #reserve(needed: number): void {
    if (needed <= this.#entities.length) return;
    // Never more than a window and the event that makes it slide.
    const capacity = Math.max(needed, Math.min(2 * this.#entities.length, this.#options.maxLength + 1));
    const entities = new Int32Array(capacity);
    const timesMs = new Float64Array(capacity);
    entities.set(this.#entities);
    timesMs.set(this.#timesMs);
    this.#entities = entities;
    this.#timesMs = timesMs;
  }
}
