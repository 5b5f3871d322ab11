/**
 * One user's cached rows: for each layer the keys `(H, C, dqk)` and then the values `(H, C, dv)`, contiguous per head,
 * so that the runtime reads them where they lie. `C` rows fit; rows at and beyond the user's length have V = 0.
 */
import { Tensor } from 'onnxruntime-node';
import type { BundleConfig } from '../../schemas/bundle-config.ts';

export type KvShape = Pick<BundleConfig, 'layers' | 'heads' | 'dqk' | 'dv'>;

export class Extent {
  readonly capacity: number;
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  readonly #shape: KvShape;
  readonly #keyData: readonly Float32Array[];
  readonly #valueData: readonly Float32Array[];

  /** @param memory exactly the floats of `capacity` rows of all layers */
  constructor(shape: KvShape, capacity: number, memory: Float32Array) {
    const { layers, heads: H, dqk, dv } = shape;
    this.#shape = shape;
    this.capacity = capacity;
    const layerFloats = capacity * H * (dqk + dv);
    const part = (l: number, skip: number, width: number) =>
      memory.subarray(l * layerFloats + skip, l * layerFloats + skip + capacity * H * width);
    this.#keyData = Array.from({ length: layers }, (_, l) => part(l, 0, dqk));
    this.#valueData = Array.from({ length: layers }, (_, l) => part(l, capacity * H * dqk, dv));
    this.keys = this.#keyData.map((data) => new Tensor('float32', data, [H, capacity, dqk]));
    this.values = this.#valueData.map((data) => new Tensor('float32', data, [H, capacity, dv]));
  }

  /** The memory that the rows lie in, and where in it, bytes. */
  get buffer(): ArrayBufferLike {
    return this.#keyData[0]!.buffer;
  }

  keyAddress(l: number): number {
    return this.#keyData[l]!.byteOffset;
  }

  valueAddress(l: number): number {
    return this.#valueData[l]!.byteOffset;
  }

  /** Stores `count` rows of layer `l` from row `at`; `k (count, H*dqk)` and `v (count, H*dv)` begin at row `source` of their arrays. */
  write(l: number, at: number, count: number, k: Float32Array, v: Float32Array, source: number): void {
    const { heads, dqk, dv } = this.#shape;
    scatterRows(this.#keyData[l]!, this.capacity, heads, dqk, at, count, k, source);
    scatterRows(this.#valueData[l]!, this.capacity, heads, dv, at, count, v, source);
  }

  /** Takes over the first `rows` rows of another extent of the same model; whatever else this memory held is cleared. */
  copyFrom(other: Extent | undefined, rows: number): void {
    const { layers, heads, dqk, dv } = this.#shape;
    for (let l = 0; l < layers; l++) {
      this.#keyData[l]!.fill(0);
      this.#valueData[l]!.fill(0);
      for (let h = 0; other !== undefined && rows > 0 && h < heads; h++) {
        const copy = (to: Float32Array, from: Float32Array, width: number) =>
          to.set(from.subarray(h * other.capacity * width, (h * other.capacity + rows) * width), h * this.capacity * width);
        copy(this.#keyData[l]!, other.#keyData[l]!, dqk);
        copy(this.#valueData[l]!, other.#valueData[l]!, dv);
      }
    }
  }

  /** Makes the rows `from … to-1` add nothing: V = 0. */
  clear(from: number, to: number): void {
    const { heads, dv } = this.#shape;
    for (const values of this.#valueData)
      for (let h = 0; h < heads; h++) values.fill(0, (h * this.capacity + from) * dv, (h * this.capacity + to) * dv);
  }
}

function scatterRows(
  target: Float32Array,
  capacity: number,
  heads: number,
  width: number,
  at: number,
  count: number,
  rows: Float32Array,
  source: number,
): void {
  for (let t = 0; t < count; t++) {
    for (let h = 0; h < heads; h++) {
      const from = ((source + t) * heads + h) * width;
      const to = (h * capacity + at + t) * width;
      for (let d = 0; d < width; d++) target[to + d] = rows[from + d]!;
    }
  }
}
