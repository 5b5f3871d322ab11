/**
 * One user's cached rows: for each layer the keys `(H, C, dqk)` and then the values `(H, C, dv)`, contiguous per head,
 * so that the runtime reads them where they lie, unless they are held in 16 bits. `C` rows fit; rows at and beyond the user's length have
 * V = 0.
 */
import { Tensor } from 'onnxruntime-node';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { packRow, unpack } from './bfloat16.ts';

/** `float32`: as computed. `bfloat16`: half the bytes, rounded to 8 bits of fraction. */
export type KvPrecision = 'float32' | 'bfloat16';

export interface KvShape extends Pick<BundleConfig, 'layers' | 'heads' | 'dqk' | 'dv'> {
  /** @default 'float32' */
  readonly precision?: KvPrecision;
}

type Numbers = Float32Array | Uint16Array;

export class Extent {
  readonly capacity: number;
  readonly #shape: KvShape;
  readonly #keyData: readonly Numbers[];
  readonly #valueData: readonly Numbers[];
  /** Views of float32 rows. */
  readonly #tensors: { readonly keys: readonly Tensor[]; readonly values: readonly Tensor[] } | undefined;

  /** @param memory exactly `capacity` rows of all layers */
  constructor(shape: KvShape, capacity: number, memory: Float32Array) {
    const { layers, heads: H, dqk, dv } = shape;
    this.#shape = shape;
    this.capacity = capacity;
    const layerFloats = capacity * H * (dqk + dv);
    const numbers = shape.precision === 'bfloat16' ? halves(memory) : memory;
    const part = (l: number, skip: number, width: number) =>
      numbers.subarray(l * layerFloats + skip, l * layerFloats + skip + capacity * H * width);
    this.#keyData = Array.from({ length: layers }, (_, l) => part(l, 0, dqk));
    this.#valueData = Array.from({ length: layers }, (_, l) => part(l, capacity * H * dqk, dv));
    if (shape.precision !== 'bfloat16') this.#tensors = { keys: this.#asTensors('keys'), values: this.#asTensors('values') };
  }

  /** Keys of each layer: the memory itself, or, of rows in 16 bits, copies made now. */
  get keys(): readonly Tensor[] {
    return this.#tensors?.keys ?? this.#asTensors('keys');
  }

  /** Values of each layer, as `keys`. */
  get values(): readonly Tensor[] {
    return this.#tensors?.values ?? this.#asTensors('values');
  }

  /** Of one stored number. */
  get numberBytes(): number {
    return this.#keyData[0]!.BYTES_PER_ELEMENT;
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
    const [from, taken] = other === undefined ? [this, 0] : [other, rows];
    const take = (to: Numbers, source: Numbers, width: number) => {
      for (let h = 0; h < heads; h++) {
        const [at, first] = [h * this.capacity * width, h * from.capacity * width];
        if (taken > 0) to.set(source.subarray(first, first + taken * width), at);
        to.fill(0, at + taken * width, at + this.capacity * width);
      }
    };
    for (let l = 0; l < layers; l++) {
      take(this.#keyData[l]!, from.#keyData[l]!, dqk);
      take(this.#valueData[l]!, from.#valueData[l]!, dv);
    }
  }

  #asTensors(kind: 'keys' | 'values'): Tensor[] {
    const { heads, dqk, dv } = this.#shape;
    const [data, width] = kind === 'keys' ? [this.#keyData, dqk] : [this.#valueData, dv];
    return data.map((part) => {
      const floats = part instanceof Uint16Array ? unpack(part) : part;
      return new Tensor('float32', floats, [heads, this.capacity, width]);
    });
  }

  /** Makes the rows `from … to-1` add nothing: V = 0. */
  clear(from: number, to: number): void {
    const { heads, dv } = this.#shape;
    for (const values of this.#valueData)
      for (let h = 0; h < heads; h++) values.fill(0, (h * this.capacity + from) * dv, (h * this.capacity + to) * dv);
  }
}

const halves = ({ buffer, byteOffset, length }: Float32Array): Uint16Array => new Uint16Array(buffer, byteOffset, 2 * length);

function scatterRows(
  target: Numbers,
  capacity: number,
  heads: number,
  width: number,
  at: number,
  count: number,
  rows: Float32Array,
  source: number,
): void {
  if (target instanceof Uint16Array) {
    const bits = new Uint32Array(rows.buffer, rows.byteOffset, rows.length);
    for (let t = 0; t < count; t++)
      for (let h = 0; h < heads; h++)
        packRow(target, (h * capacity + at + t) * width, bits, ((source + t) * heads + h) * width, width);
    return;
  }
  for (let t = 0; t < count; t++) {
    for (let h = 0; h < heads; h++) {
      const from = ((source + t) * heads + h) * width;
      const to = (h * capacity + at + t) * width;
      for (let d = 0; d < width; d++) target[to + d] = rows[from + d]!;
    }
  }
}
