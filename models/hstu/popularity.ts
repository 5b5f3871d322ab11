/** How popular each entity is: what a user is given of whom nothing is known. */
import type { Bundle } from './bundle.ts';

export class Popularity {
  /** Of row `r` at `r - 1`. */
  readonly #values: Float32Array;
  readonly #order: Int32Array;

  /** @param values of rows 1 to `values.length`: any numbers, the more popular the higher */
  constructor(values: Float32Array) {
    this.#values = values;
    this.#order = Int32Array.from(values, (_, i) => i + 1).sort((a, b) => values[b - 1]! - values[a - 1]! || a - b);
  }

  /** As the bundle says; undefined where it says nothing. */
  static of({ tensors }: Pick<Bundle, 'tensors'>): Popularity | undefined {
    const values = tensors.get('popularity')?.data;
    return values === undefined ? undefined : new Popularity(values);
  }

  /** Of an embedding row; 0 for one out of the vocabulary. */
  valueOf(row: number): number {
    return this.#values[row - 1] ?? 0;
  }

  /** All rows, the most popular first, ties by row: `(V,)`. Not to be written to. */
  order(): Int32Array {
    return this.#order;
  }
}
