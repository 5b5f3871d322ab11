/** Which pages of a list differ from those that were last written: so that a change costs one page, not the whole list. */

/** Page numbers, each ascending. */
export interface PageChanges {
  readonly written: readonly number[];
  readonly removed: readonly number[];
}

/**
 * Follows a list that grows at its end and forgets at its start, by absolute index: how many entries came before, ever.
 *
 * Only full pages are records of their own. What follows the last full page is held in the head record, and written with it.
 */
export class PageMarks {
  readonly #pageLength: number;
  #storedStart = 0;
  #storedEnd = 0;
  #changedFrom = Number.POSITIVE_INFINITY;

  constructor(pageLength: number) {
    this.#pageLength = pageLength;
  }

  get changed(): boolean {
    return this.#changedFrom < Number.POSITIVE_INFINITY;
  }

  /** End of the list as last written; 0 if nothing was. */
  get storedEnd(): number {
    return this.#storedEnd;
  }

  /** Entries from this one on differ. */
  touch(index: number): void {
    if (index < this.#changedFrom) this.#changedFrom = index;
  }

  /** The list is written as far as it goes. */
  settle(start: number, end: number): void {
    this.#storedStart = start;
    this.#storedEnd = end;
    this.#changedFrom = Number.POSITIVE_INFINITY;
  }

  /** This list takes the place of another, whose pages are in the store. */
  inherit({ storedStart, storedEnd }: { readonly storedStart: number; readonly storedEnd: number }): void {
    this.#storedStart = storedStart;
    this.#storedEnd = storedEnd;
    this.#changedFrom = 0;
  }

  get stored(): { readonly storedStart: number; readonly storedEnd: number } {
    return { storedStart: this.#storedStart, storedEnd: this.#storedEnd };
  }

  /** What is to be written and removed for the list that now holds `[start, end)`; settles. */
  take(start: number, end: number): PageChanges {
    const pageOf = (index: number) => Math.floor(index / this.#pageLength);
    const [first, last] = [pageOf(start), pageOf(end)];
    const written: number[] = [];
    const removed: number[] = [];
    if (this.changed) {
      for (let page = Math.max(first, pageOf(this.#changedFrom)); page < last; page++) written.push(page);
      for (let page = pageOf(this.#storedStart); page < pageOf(this.#storedEnd); page++)
        if (page < first || page >= last) removed.push(page);
    }
    this.settle(start, end);
    return { written, removed };
  }
}
