/**
 * A user's worth: log2(1 + requests of late) × cost of encoding its rows anew / their bytes, above an age that rises to the worth
 * of whoever went last, so that past glory fades (GreedyDual-Size-Frequency: Cherkasova 1998). A newcomer is one of those who may go.
 */
import type { CachePolicy } from './cache-policy.ts';
import { FrequencySketch } from './frequency-sketch.ts';

interface Held {
  readonly userId: string;
  rows: number;
  worth: number;
  /** Worth that its place in the heap is by: the same, or less. */
  placed: number;
  gone: boolean;
}

/** Requests between two halvings of the counts: so many times the users held, and no fewer than. */
const HALVE_AFTER = 10;
const HALVE_AFTER_LEAST = 2_000;

export class CostAwarePolicy implements CachePolicy {
  readonly #costOf: (rows: number) => number;
  readonly #sketch = new FrequencySketch();
  readonly #held = new Map<string, Held>();
  /** Binary heap, least `placed` first; those gone are taken out when they come up. */
  #heap: Held[] = [];
  #age = 0;

  /** @param costOf what encoding so many rows from nothing costs, in any unit */
  constructor(costOf: (rows: number) => number) {
    this.#costOf = costOf;
  }

  asked(userId: string): void {
    this.#sketch.add(userId, Math.max(HALVE_AFTER_LEAST, HALVE_AFTER * this.#held.size));
    const user = this.#held.get(userId);
    if (user !== undefined) user.worth = Math.max(user.worth, this.#worth(userId, user.rows));
  }

  held(userId: string, rows: number): void {
    const user = this.#held.get(userId);
    if (user !== undefined) {
      user.rows = rows;
      user.worth = Math.max(user.worth, this.#worth(userId, rows));
      return;
    }
    const worth = this.#worth(userId, rows);
    const added = { userId, rows, worth, placed: worth, gone: false };
    this.#held.set(userId, added);
    this.#push(added);
    if (this.#heap.length > 2 * this.#held.size + 64) this.#rebuild();
  }

  /** Who has gained since it was placed is placed anew when it comes up: worth only rises. */
  *order(): Generator<string> {
    const passed: Held[] = [];
    try {
      for (let first = this.#pop(); first !== undefined; first = this.#pop()) {
        passed.push(first);
        yield first.userId;
      }
    } finally {
      for (const user of passed) this.#push(user);
    }
  }

  prefers(userId: string, rows: number, other: string): boolean {
    return this.#worth(userId, rows) >= this.#held.get(other)!.worth;
  }

  refused(userId: string, rows: number): void {
    this.#age = Math.max(this.#age, this.#worth(userId, rows));
  }

  evicted(userId: string): void {
    this.#age = Math.max(this.#age, this.#held.get(userId)!.worth);
    this.dropped(userId);
  }

  dropped(userId: string): void {
    const user = this.#held.get(userId);
    if (user === undefined) return;
    user.gone = true;
    this.#held.delete(userId);
  }

  #worth(userId: string, rows: number): number {
    // Users come in bursts: ten requests of late are no promise of ten more.
    return this.#age + (Math.log2(1 + this.#sketch.count(userId)) * this.#costOf(rows)) / Math.max(1, rows);
  }

  #rebuild(): void {
    this.#heap = [];
    for (const user of this.#held.values()) this.#push(user);
  }

  #push(user: Held): void {
    user.placed = user.worth;
    const heap = this.#heap;
    let at = heap.push(user) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.placed <= user.placed) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = user;
  }

  #pop(): Held | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined) return undefined;
      this.#removeFirst();
      if (first.gone) continue;
      if (first.worth <= first.placed) return first;
      this.#push(first);
    }
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.placed < heap[child]!.placed) child += 1;
      if (heap[child]!.placed >= last.placed) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}
