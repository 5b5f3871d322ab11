/**
 * The relative biases of whole windows, chunk by chunk, as the bulk graph takes them. They are as many as the scores, times the
 * layers: filled number by number they take as long as the runtime takes for all the rest.
 */
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { type BiasExports, biasKernel } from '../../wasm/bias-kernel.ts';

/** What is used of the global that the compiler's library for Node does not declare. */
interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
declare const WebAssembly: {
  readonly Memory: new (pages: { readonly initial: number }) => Memory;
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly env: { readonly memory: object } },
  ) => { readonly exports: unknown };
};

/** Bytes of a page of WebAssembly memory. */
const PAGE = 65_536;
/** Floats behind every array that the kernel reads or writes: it goes by whole vectors. */
const SPARE = 4;

/** How windows are laid out: `B` users of at most `T = S * chunks` rows. */
export interface BulkLayout {
  /** Rows of a chunk. */
  readonly S: number;
  readonly chunks: number;
  /** Leading chunks of which the last layer wants nothing. */
  readonly blank: number;
}

export class BulkBiases {
  readonly #layers: number;
  readonly #N: number;
  readonly #reach: number;
  readonly #bias: AttentionBias;
  readonly #memory: Memory;
  readonly #kernel: BiasExports;
  /** Addresses in bytes: by layer the two tables, the runs of a row, and what is free behind them. */
  readonly #time: readonly number[];
  readonly #position: readonly number[];
  readonly #runsAt: number;
  readonly #free: number;

  constructor(bundle: Bundle) {
    const { config, tensors } = bundle;
    this.#layers = config.layers;
    this.#N = config.paddedLength;
    this.#reach = config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
    this.#bias = new AttentionBias(bundle);

    const tables: Float32Array[] = [];
    let next = 0;
    const place = (part: string, length: number) =>
      Array.from({ length: config.layers }, (_, l) => {
        const { data } = tensors.get(`layers.${l}.${part}`) ?? { data: new Float32Array(length) };
        const table = new Float32Array(data.length + SPARE);
        table.set(data);
        tables.push(table);
        const at = next;
        next += table.byteLength;
        return at;
      });
    this.#time = place('time_bias', config.timeBucketThresholds.length + 1);
    this.#position = place('position_bias', 2 * this.#N - 1);
    this.#runsAt = next;
    // A row has at most as many runs as keys.
    this.#free = next + 8 * config.paddedLength;
    this.#memory = new WebAssembly.Memory({ initial: Math.ceil(this.#free / PAGE) });
    const floats = new Float32Array(this.#memory.buffer);
    let at = 0;
    for (const table of tables) {
      floats.set(table, at);
      at += table.length;
    }
    const module = new WebAssembly.Module(biasKernel());
    this.#kernel = new WebAssembly.Instance(module, { env: { memory: this.#memory } }).exports as BiasExports;
  }

  /**
   * By chunk `c` and layer `(B, 1, S, (c+1)*S)`; blank chunks without the last layer. What the mask hides is left as it lies:
   * numbers of an earlier run. Valid until the next call.
   */
  fill(segments: readonly EncodeSegment[], { S, chunks, blank }: BulkLayout): Float32Array[][] {
    const sizes = Array.from({ length: chunks }, (_, c) => segments.length * S * (c + 1) * S);
    const starts: number[][] = [];
    let next = this.#free;
    for (const [c, size] of sizes.entries())
      starts.push(
        Array.from({ length: c < blank ? this.#layers - 1 : this.#layers }, () => {
          const at = next;
          next += 4 * (size + SPARE);
          return at;
        }),
      );
    const missing = next - this.#memory.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE));
    const views = starts.map((layers, c) => layers.map((at) => new Float32Array(this.#memory.buffer, at, sizes[c])));
    const runs = new Int32Array(this.#memory.buffer, this.#runsAt, (this.#free - this.#runsAt) / 4);
    for (const [b, segment] of segments.entries()) this.#fillWindow(segment, b, S, starts, runs);
    return views;
  }

  #fillWindow({ timesS, queryTimeS }: EncodeSegment, b: number, S: number, starts: readonly number[][], runs: Int32Array): void {
    for (let i = 0; i < timesS.length; i++) {
      const next = i + 1 < timesS.length ? timesS[i + 1]! : queryTimeS;
      const from = Math.max(0, i - this.#reach);
      const c = Math.floor(i / S);
      const at = (b * S + i - c * S) * (c + 1) * S + from;
      const end = this.#bias.writeRuns(next, timesS, from, i + 1, runs, 0);
      this.#fillRow(starts[c]!, 4 * at, this.#runsAt + 4 * end, 4 * (this.#N - 1 - i + from));
    }
  }

  #fillRow(layers: readonly number[], at: number, runsEnd: number, positionAt: number): void {
    for (let l = 0; l < layers.length; l++)
      this.#kernel.fillBias(layers[l]! + at, this.#runsAt, runsEnd, this.#position[l]! + positionAt, this.#time[l]!);
  }
}
