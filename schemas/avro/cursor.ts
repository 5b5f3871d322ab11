/** A place in the bytes of one Avro record: reads Avro's variable-length numbers, and never past the end. */

/** Items and records that take no bytes: so many are free, and one more for every byte of the record. */
const FREE_EMPTY_ITEMS = 1_024;
/** Entries of all maps of a record: objects of more keys take the longest of all to build, byte for byte. */
const MAX_MAP_ENTRIES = 10_000;

export class Cursor {
  bytes: Buffer = Buffer.alloc(0);
  pos = 0;
  end = 0;
  /** Records that we are inside of. */
  depth = 0;
  /** Arrays and maps that the walk is inside of. */
  nesting = 0;
  /** A long was met that arithmetic on doubles may misread: beyond ±2^52. */
  wide = false;
  /** Why the bytes are no such record. */
  problem = '';
  #emptyItemsLeft = 0;
  #mapEntriesLeft = 0;

  reset(bytes: Buffer, pos: number): void {
    this.bytes = bytes;
    this.pos = pos;
    this.end = bytes.length;
    this.depth = 0;
    this.nesting = 0;
    this.wide = false;
    this.problem = '';
    this.#emptyItemsLeft = FREE_EMPTY_ITEMS + bytes.length;
    this.#mapEntriesLeft = MAX_MAP_ENTRIES;
  }

  /** Notes the first problem. */
  fail(problem: string): false {
    if (this.problem === '') this.problem = problem;
    return false;
  }

  /** Steps over so many bytes, if they are there; a NaN or negative count is none that can be. */
  skip(count: number): boolean {
    if (!(count >= 0 && count <= this.end - this.pos)) return this.fail('cut short, or a length that the record does not have');
    this.pos += count;
    return true;
  }

  /** Takes bytes that the walk has found to be there, and tells where they begin. */
  take(count: number): number {
    const start = this.pos;
    this.pos += count;
    return start;
  }

  /** Takes so many items that have no bytes. */
  spend(items: number): boolean {
    this.#emptyItemsLeft -= items;
    return this.#emptyItemsLeft >= 0 || this.fail('more empty items than any record has');
  }

  /** Takes so many entries of maps. */
  spendEntries(entries: number): boolean {
    this.#mapEntriesLeft -= entries;
    return this.#mapEntriesLeft >= 0 || this.fail(`more than ${MAX_MAP_ENTRIES} entries in maps`);
  }

  /** A length, a count or an index: exact within 2^52. NaN, which no check accepts, for bytes that are no number. */
  readLong(): number {
    const { bytes, end } = this;
    let byte = this.pos < end ? bytes[this.pos]! : 0x80;
    if (byte < 0x80) {
      this.pos++;
      return (byte >> 1) ^ -(byte & 1);
    }
    let number = 0;
    let unit = 1;
    for (let at = this.pos; at < end && at < this.pos + 10; at++) {
      byte = bytes[at]!;
      number += (byte & 0x7f) * unit;
      if (byte < 0x80) {
        this.pos = at + 1;
        return number % 2 === 0 ? number / 2 : -(number + 1) / 2;
      }
      unit *= 128;
    }
    this.fail('cut short, or a number of too many bytes');
    return Number.NaN;
  }

  /** Steps over a long: at most ten bytes, 64 bits. */
  skipLong(): boolean {
    const { bytes, end, pos } = this;
    let at = pos;
    while (at < end && bytes[at]! >= 0x80) at++;
    const count = at - pos + 1;
    if (at >= end || count > 10 || (count === 10 && bytes[at]! > 1)) return this.fail('cut short, or a number of too many bytes');
    if (count > 8 || (count === 8 && bytes[at]! >= 16)) this.wide = true;
    this.pos = at + 1;
    return true;
  }

  /** Steps over an int: at most five bytes, 32 bits. */
  skipInt(): boolean {
    const { bytes, end, pos } = this;
    let at = pos;
    while (at < end && bytes[at]! >= 0x80) at++;
    const count = at - pos + 1;
    if (at >= end || count > 5 || (count === 5 && bytes[at]! > 15)) return this.fail('cut short, or an int of more than 32 bits');
    this.pos = at + 1;
    return true;
  }
}
