/** Memory of the KV cache: one array or a few, cut into equal pages, lent as contiguous runs. Knows nothing of users or models. */

/** `count` pages from `first`. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
}

/** Where the pool's arrays come from. */
export interface PoolMemory {
  /** Numbers that one array can hold; a larger pool has several, and no run lies in two. */
  readonly maxFloats: number;
  allocate(floats: number): Float32Array;
}

const HEAP: PoolMemory = { maxFloats: Number.POSITIVE_INFINITY, allocate: (floats) => new Float32Array(floats) };

export class PagePool {
  readonly pages: number;
  readonly floatsPerPage: number;
  /** Pages of the longest run that there can be. */
  readonly longestRun: number;
  readonly #arrays: readonly Float32Array[];
  /** Free runs by first page, no two adjacent. Between the pages of two arrays one number is left out, so that they never join. */
  readonly #free: { first: number; count: number }[];
  #freePages: number;

  constructor(pages: number, floatsPerPage: number, memory: PoolMemory = HEAP) {
    this.pages = pages;
    this.floatsPerPage = floatsPerPage;
    this.longestRun = Math.min(pages, Math.max(1, Math.floor(memory.maxFloats / floatsPerPage)));
    const sizes: number[] = [];
    for (let left = pages; left > 0; left -= this.longestRun) sizes.push(Math.min(left, this.longestRun));
    this.#arrays = sizes.map((size) => memory.allocate(size * floatsPerPage));
    this.#free = sizes.map((count, i) => ({ first: this.#firstOf(i), count }));
    this.#freePages = pages;
  }

  get freePages(): number {
    return this.#freePages;
  }

  /** First fit. `null` is an ordinary answer: no run of that length is free (`freePages` tells whether compaction would help). */
  allocate(count: number): PageRun | null {
    const at = this.#free.findIndex((run) => run.count >= count);
    if (at < 0) return null;
    const run = this.#free[at]!;
    const first = run.first;
    if (run.count === count) this.#free.splice(at, 1);
    else {
      run.first += count;
      run.count -= count;
    }
    this.#freePages -= count;
    return { first, count };
  }

  free({ first, count }: PageRun): void {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#free[middle]!.first < first) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before !== undefined && before.first + before.count === first;
    const joinsAfter = after !== undefined && first + count === after.first;
    if (joinsBefore && joinsAfter) {
      before.count += count + after.count;
      this.#free.splice(low, 1);
    } else if (joinsBefore) before.count += count;
    else if (joinsAfter) {
      after.first = first;
      after.count += count;
    } else this.#free.splice(low, 0, { first, count });
    this.#freePages += count;
  }

  /** The run's memory itself, not a copy: `(count * floatsPerPage,)`. */
  view({ first, count }: PageRun): Float32Array {
    const array = this.#arrayOf(first);
    const from = first - this.#firstOf(array);
    return this.#arrays[array]!.subarray(from * this.floatsPerPage, (from + count) * this.floatsPerPage);
  }

  /** Moves the lent runs of each array together at its start, in order, so that its free pages form one run. Returns where each went. */
  compact(runs: readonly PageRun[]): PageRun[] {
    const order = runs.map((run, i) => ({ run, i })).sort((a, b) => a.run.first - b.run.first);
    const moved: PageRun[] = new Array(runs.length);
    const ends = this.#arrays.map((_, i) => this.#firstOf(i));
    for (const { run, i } of order) {
      const array = this.#arrayOf(run.first);
      const target = { first: ends[array]!, count: run.count };
      // Runs move towards the start only, so none is overwritten before it has moved; `set` minds an overlap.
      if (run.first !== target.first) this.view(target).set(this.view(run));
      moved[i] = target;
      ends[array]! += run.count;
    }
    this.#free.length = 0;
    for (const [i, end] of ends.entries()) {
      const count = this.#firstOf(i) + this.#arrays[i]!.length / this.floatsPerPage - end;
      if (count > 0) this.#free.push({ first: end, count });
    }
    return moved;
  }

  /** The first page of an array, and the array of a page. */
  #firstOf(array: number): number {
    return array * (this.longestRun + 1);
  }

  #arrayOf(page: number): number {
    return Math.floor(page / (this.longestRun + 1));
  }
}
