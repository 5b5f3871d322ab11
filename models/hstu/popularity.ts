/** How popular each entity is: what a user is given of whom nothing is known. */
import type { Bundle } from './bundle.ts';

export class Popularity {
  /** By embedding row; row 0, and rows of which nothing was said, have 0. */
  #values: Float32Array;
  #order: Int32Array | undefined;

  /** @param values of rows 1 to `values.length`: any numbers, the more popular the higher; copied */
  constructor(values: Float32Array) {
    this.#values = new Float32Array(values.length + 1);
    this.#values.set(values, 1);
  }

  /** As the bundle says; undefined where it says nothing. */
  static of({ tensors }: Pick<Bundle, 'tensors'>): Popularity | undefined {
    const values = tensors.get('popularity')?.data;
    return values === undefined ? undefined : new Popularity(values);
  }

  /** Of an embedding row; 0 for one out of the vocabulary. */
  valueOf(row: number): number {
    return this.#values[row] ?? 0;
  }

  /** All rows, the most popular first, ties by row: `(V,)`. Not to be written to. */
  order(): Int32Array {
    this.#order ??= Int32Array.from({ length: this.#values.length - 1 }, (_, i) => i + 1).sort(
      (a, b) => this.#values[b]! - this.#values[a]! || a - b,
    );
    return this.#order;
  }

  /** Says how popular an embedding row is from now on; a row behind the last makes room for itself. */
  set(row: number, value: number): void {
    if (row >= this.#values.length) {
      const longer = new Float32Array(row + 1);
      longer.set(this.#values);
      this.#values = longer;
    }
    this.#values[row] = value;
    this.#order = undefined;
  }
}
