/** The entities a user has acted on, for the seen filter: distinct, in order of arrival, bounded. Plain data, no RxJS. */
import { windowStartOf } from './block-window.ts';
import { PageMarks } from './page-marks.ts';

/** Entries of a page, as the list is written down. */
export const SEEN_PAGE = 64;

const INITIAL_CAPACITY = 8;

/** How many of `end` numbers ever added are forgotten. */
export const seenStartOf = (end: number, limit: number): number =>
  windowStartOf(end, { maxLength: limit, blockLength: Math.max(1, Math.floor(limit / 4)) });

/**
 * A list of distinct numbers with O(1) membership, in typed arrays (a `Set` costs five times the memory).
 *
 * Over `limit` it forgets its oldest quarter at once, so that what it holds is a pure function of what was added, and
 * forgetting costs O(1) amortised. A forgotten number that comes again is new again.
 */
export class SeenList {
  readonly marks = new PageMarks(SEEN_PAGE);
  readonly #limit: number;
  #values = new Int32Array(INITIAL_CAPACITY);
  /** Open addressing, at most half full: 1 + index into `#values`, or 0. */
  #slots = new Int32Array(2 * INITIAL_CAPACITY);
  #start = 0;
  #end = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** A list that holds `values` after `start` others, all of it as it was last written. */
  static restored(limit: number, start: number, values: Int32Array): SeenList {
    const list = new SeenList(limit);
    list.#start = start;
    list.#end = start + values.length;
    let capacity = INITIAL_CAPACITY;
    while (capacity < values.length) capacity *= 2;
    list.#rebuild(values, capacity);
    list.marks.settle(list.#start, list.#end);
    return list;
  }

  /** Numbers ever forgotten. */
  get start(): number {
    return this.#start;
  }

  /** Numbers ever added; the list holds the last `end - start` of them. */
  get end(): number {
    return this.#end;
  }

  get bytes(): number {
    return this.#values.byteLength + this.#slots.byteLength;
  }

  has(value: number): boolean {
    return this.#slots[this.#slotOf(value)] !== 0;
  }

  /** Adds `value` unless it is there. */
  add(value: number): void {
    const slot = this.#slotOf(value);
    if (this.#slots[slot] !== 0) return;
    const length = this.#end - this.#start;
    if (length === this.#values.length) {
      this.#rebuild(this.#values, 2 * length);
      this.add(value);
      return;
    }
    this.#values[length] = value;
    this.#slots[slot] = length + 1;
    this.marks.touch(this.#end);
    this.#end++;
    const surplus = seenStartOf(this.#end, this.#limit) - this.#start;
    if (surplus === 0) return;
    this.#start += surplus;
    this.#rebuild(this.#values.subarray(surplus, length + 1), this.#values.length);
  }

  /** Oldest first: `(end - start,)`, a view: valid until the next change. */
  get values(): Int32Array {
    return this.#values.subarray(0, this.#end - this.#start);
  }

  #rebuild(held: Int32Array, capacity: number): void {
    const values = new Int32Array(capacity);
    values.set(held);
    this.#values = values;
    this.#slots = new Int32Array(2 * capacity);
    for (let i = 0; i < this.#end - this.#start; i++) this.#slots[this.#slotOf(values[i]!)] = i + 1;
  }

  /** The slot that holds `value`, or the empty one where it would go. */
  #slotOf(value: number): number {
    const mask = this.#slots.length - 1;
    let slot = (Math.imul(value, 0x9e3779b1) >>> 7) & mask;
    for (;;) {
      const index = this.#slots[slot]!;
      if (index === 0 || this.#values[index - 1] === value) return slot;
      slot = (slot + 1) & mask;
    }
  }
}
