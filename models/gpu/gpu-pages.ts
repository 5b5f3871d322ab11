/**
 * Which pool rows belong to whom. Pages need not be adjacent: a run reads rows by number. Where the rows wanted exceed what one
 * buffer of the device may hold there are several banks; a user's rows lie in one of them, for a run reads one. Plain bookkeeping.
 */

/** Reads as zero and is never written: stands for "no row". */
export const ZERO_ROW = 0;
/** Written to and never read: takes rows that nobody keeps. */
export const TRASH_ROW = 1;
const RESERVED = 2;

/** Pages of one bank, in the order of the rows that they hold. */
export interface GpuPages {
  readonly bank: number;
  readonly pages: number[];
}

export interface GpuPagesOptions {
  /** Rows wanted in all. */
  readonly rows: number;
  /** Rows that one buffer may hold. */
  readonly maxBankRows: number;
  /** Rows a page. */
  readonly pageLength: number;
}

export class PagedBanks {
  /** Rows of each bank's buffers, the reserved ones included. */
  readonly bankRows: readonly number[];
  readonly pages: number;
  readonly #pageLength: number;
  /** Free pages of each bank. */
  readonly #free: number[][];

  constructor({ rows, maxBankRows, pageLength }: GpuPagesOptions) {
    const pagesABank = Math.max(1, Math.floor((maxBankRows - RESERVED) / pageLength));
    this.#pageLength = pageLength;
    this.pages = Math.floor(rows / pageLength);
    const banks = Math.ceil(this.pages / pagesABank);
    const pagesOf = (bank: number) => Math.min(pagesABank, this.pages - bank * pagesABank);
    this.bankRows = Array.from({ length: banks }, (_, bank) => RESERVED + pagesOf(bank) * pageLength);
    this.#free = Array.from({ length: banks }, (_, bank) =>
      Array.from({ length: pagesOf(bank) }, (_, i) => pagesOf(bank) - 1 - i),
    );
  }

  get freePages(): number {
    return this.#free.reduce((sum, free) => sum + free.length, 0);
  }

  /** The bank with the most free pages; undefined where there is no bank at all. */
  emptiest(): number | undefined {
    let best: number | undefined;
    for (const [bank, free] of this.#free.entries())
      if (best === undefined || free.length > this.#free[best]!.length) best = bank;
    return best;
  }

  /** Pages missing for `held` to have room for `rows` rows, beyond those that are free in its bank. At most 0: `grow` succeeds. */
  missing(held: GpuPages, rows: number): number {
    return this.#pagesFor(rows) - held.pages.length - this.#free[held.bank]!.length;
  }

  /** Whether a bank, emptied of everybody else, has room for `rows` rows. */
  couldHold(bank: number, rows: number): boolean {
    return this.#pagesFor(rows) * this.#pageLength <= this.bankRows[bank]! - RESERVED;
  }

  /** Adds pages until there is room for `rows` rows. */
  grow(held: GpuPages, rows: number): void {
    for (const wanted = this.#pagesFor(rows); held.pages.length < wanted; ) held.pages.push(this.#free[held.bank]!.pop()!);
  }

  free({ bank, pages }: GpuPages): void {
    this.#free[bank]!.push(...pages.splice(0));
  }

  /** The pool row of row `i`. */
  rowOf({ pages }: GpuPages, i: number): number {
    const page = Math.floor(i / this.#pageLength);
    return RESERVED + pages[page]! * this.#pageLength + (i - page * this.#pageLength);
  }

  #pagesFor(rows: number): number {
    return Math.ceil(rows / this.#pageLength);
  }
}
