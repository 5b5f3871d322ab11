/**
 * How often each user was asked for of late, in a fixed number of bytes and whether held or not: a count-min sketch that is halved
 * now and then (TinyLFU: Einziger, Friedman, Manes 2017). Errs upwards only.
 */
const ROWS = 4;
const MOST = 255;

export class FrequencySketch {
  readonly #counts: Uint8Array;
  readonly #mask: number;
  #asked = 0;

  /** @param width counters a row, a power of two */
  constructor(width = 2 ** 15) {
    this.#counts = new Uint8Array(ROWS * width);
    this.#mask = width - 1;
  }

  /** @param halveAfter requests between two halvings */
  add(userId: string, halveAfter: number): void {
    const hash = hashOf(userId);
    for (let row = 0; row < ROWS; row++) {
      const at = this.#at(hash, row);
      if (this.#counts[at]! < MOST) this.#counts[at]! += 1;
    }
    if (++this.#asked < halveAfter) return;
    this.#asked = 0;
    for (let i = 0; i < this.#counts.length; i++) this.#counts[i]! >>= 1;
  }

  count(userId: string): number {
    const hash = hashOf(userId);
    let least = MOST;
    for (let row = 0; row < ROWS; row++) least = Math.min(least, this.#counts[this.#at(hash, row)]!);
    return least;
  }

  #at(hash: number, row: number): number {
    let mixed = Math.imul(hash ^ (row * 0x9e3779b9), 0x85ebca6b);
    mixed ^= mixed >>> 15;
    return row * (this.#mask + 1) + (mixed & this.#mask);
  }
}

/** FNV-1a. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash ^ (hash >>> 15);
}
