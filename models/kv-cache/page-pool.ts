/** Memory of the KV cache: one array, cut into equal pages, lent as contiguous runs. Knows nothing of users or models. */

/** `count` pages from `first`. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
}

export class PagePool {
  readonly pages: number;
  readonly floatsPerPage: number;
  readonly #memory: Float32Array;
  /** Free runs by first page, no two adjacent. */
  readonly #free: { first: number; count: number }[];
  #freePages: number;

  constructor(pages: number, floatsPerPage: number) {
    this.pages = pages;
    this.floatsPerPage = floatsPerPage;
    this.#memory = new Float32Array(pages * floatsPerPage);
    this.#free = pages > 0 ? [{ first: 0, count: pages }] : [];
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
    return this.#memory.subarray(first * this.floatsPerPage, (first + count) * this.floatsPerPage);
  }

  /** Moves the lent runs together at the start, in order, so that all free pages form one run. Returns where each went. */
  compact(runs: readonly PageRun[]): PageRun[] {
    const order = runs.map((run, i) => ({ run, i })).sort((a, b) => a.run.first - b.run.first);
    const moved: PageRun[] = new Array(runs.length);
    let next = 0;
    for (const { run, i } of order) {
      const size = this.floatsPerPage;
      if (run.first !== next) this.#memory.copyWithin(next * size, run.first * size, (run.first + run.count) * size);
      moved[i] = { first: next, count: run.count };
      next += run.count;
    }
    this.#free.length = 0;
    if (next < this.pages) this.#free.push({ first: next, count: this.pages - next });
    this.#freePages = this.pages - next;
    return moved;
  }
}
