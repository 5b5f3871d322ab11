/**
 * The attention of a step's rows by the kernel: what the kernel reads and writes beside the pool, in the pool's own memory, and
 * one user's share of one layer.
 */
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { AttentionBias } from '../hstu/attention-bias.ts';
import type { Bundle } from '../hstu/bundle.ts';
import type { Extent } from '../kv-cache/extent.ts';
import type { RowRange } from '../worker/compute/encode-run.ts';
import { type AttentionExports, KERNEL_BYTES } from './attention-kernel.ts';

/** Rows of all users that one step takes. */
export const MAX_STEP_ROWS = 128;
/** New rows a user up to which the kernel is faster than the runtime's matrix products. */
export const MAX_NEW_ROWS = 8;
/** What the kernel may write or read behind the end of a row of biases or keys, numbers and rows. */
const SLACK = 8;

/** A user's new rows `from … to-1` of its window, which are rows `at …` of the step, and the time buckets of what each sees. */
interface StepRows {
  readonly extent: Extent;
  readonly at: number;
  readonly from: number;
  readonly to: number;
  /** First key that any of the rows sees. */
  readonly start: number;
  /** Where each row's runs begin, and where the last row's end, in `#runs`. */
  readonly runs: readonly number[];
}

/** Where each region begins, bytes, and where the last ends. */
function regions({ layers, heads: H, dqk, dv, paddedLength, maxSequenceLength, timeBucketThresholds }: BundleConfig) {
  let end = KERNEL_BYTES;
  const take = (floats: number): number => {
    const at = end;
    end += 16 * Math.ceil(floats / 4);
    return at;
  };
  const positionFloats = 2 * paddedLength + SLACK;
  const timeFloats = timeBucketThresholds.length + 1;
  const biasFloats = maxSequenceLength + SLACK;
  return {
    positionFloats,
    timeFloats,
    biasFloats,
    q: take(MAX_STEP_ROWS * H * dqk),
    k: take((MAX_STEP_ROWS + SLACK) * H * dqk),
    v: take(MAX_STEP_ROWS * H * dv),
    sum: take(MAX_STEP_ROWS * H * dv),
    position: take(layers * positionFloats),
    time: take(layers * timeFloats),
    bias: take(MAX_NEW_ROWS * biasFloats),
    runs: take(2 * MAX_STEP_ROWS * maxSequenceLength),
    end,
  };
}

export const workspaceBytes = (config: BundleConfig): number => regions(config).end + 4 * SLACK * config.dqk;

export class AttentionWorkspace {
  readonly #config: BundleConfig;
  readonly #kernel: AttentionExports;
  readonly #regions: ReturnType<typeof regions>;
  readonly #bias: AttentionBias;
  readonly #q: Float32Array;
  readonly #k: Float32Array;
  readonly #v: Float32Array;
  readonly #sum: Float32Array;
  readonly #runs: Int32Array;
  /** How far back a row sees. */
  readonly #reach: number;

  constructor(bundle: Bundle, kernel: AttentionExports, memory: ArrayBuffer) {
    const { config, tensors } = bundle;
    const { heads: H, dqk, dv, layers, maxSequenceLength } = config;
    this.#config = config;
    this.#kernel = kernel;
    this.#bias = new AttentionBias(bundle);
    this.#reach = config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
    const at = regions(config);
    this.#regions = at;
    const floats = (from: number, length: number) => new Float32Array(memory, from, length);
    this.#q = floats(at.q, MAX_STEP_ROWS * H * dqk);
    this.#k = floats(at.k, MAX_STEP_ROWS * H * dqk);
    this.#v = floats(at.v, MAX_STEP_ROWS * H * dv);
    this.#sum = floats(at.sum, MAX_STEP_ROWS * H * dv);
    this.#runs = new Int32Array(memory, at.runs, 2 * MAX_STEP_ROWS * maxSequenceLength);
    for (let l = 0; l < layers; l++) {
      // A model without one of the biases has zeros there.
      const table = (part: string) => tensors.get(`layers.${l}.${part}`)?.data ?? [];
      floats(at.position, layers * at.positionFloats).set(table('position_bias'), l * at.positionFloats);
      floats(at.time, layers * at.timeFloats).set(table('time_bias').slice(0, at.timeFloats), l * at.timeFloats);
    }
  }

  /** Finds each row's time buckets, which all layers share; every range has its cached rows in this memory. At most `MAX_STEP_ROWS` rows, `MAX_NEW_ROWS` a user. */
  prepare(ranges: readonly RowRange[]): StepRows[] {
    let end = 0;
    let at = 0;
    return ranges.map(({ segment: { timesS, queryTimeS }, from, to, past }) => {
      const start = Math.max(0, from - this.#reach);
      const runs = [end];
      for (let i = from; i < to; i++) {
        const next = i + 1 < timesS.length ? timesS[i + 1]! : queryTimeS;
        end = this.#bias.writeRuns(next, timesS, start, i + 1, this.#runs, end);
        runs.push(end);
      }
      const rows = { extent: past!, at, from, to, start, runs };
      at += to - from;
      return rows;
    });
  }

  /**
   * The undivided sums `(R, H*dv)` of layer `l` over cached and new rows, in the kernel's memory: valid until the next call.
   *
   * @param q, k, v of the `R` rows, `(R, H*dqk)` and `(R, H*dv)`
   */
  attend(l: number, users: readonly StepRows[], q: Float32Array, k: Float32Array, v: Float32Array): Float32Array {
    this.#q.set(q);
    this.#k.set(k);
    this.#v.set(v);
    const sum = this.#sum.subarray(0, v.length).fill(0);
    for (const user of users) {
      this.#fillBiases(l, user);
      this.#attendPast(l, user);
      this.#attendNew(user);
    }
    return sum;
  }

  #fillBiases(l: number, { from, to, start, runs }: StepRows): void {
    const { position, positionFloats, time, timeFloats, bias, biasFloats, runs: runsAt } = this.#regions;
    for (let i = from; i < to; i++) {
      const [first, end] = [runs[i - from]!, runs[i - from + 1]!];
      // Key j of row i stands at N - 1 + j - i of the table.
      const positionOf = position + 4 * (l * positionFloats + this.#config.paddedLength - 1 - i + start);
      this.#kernel.fillBias(
        bias + 4 * (i - from) * biasFloats,
        runsAt + 4 * first,
        runsAt + 4 * end,
        positionOf,
        time + 4 * l * timeFloats,
      );
    }
  }

  #attendPast(l: number, { extent, at, from, to, start }: StepRows): void {
    const { heads: H, dqk, dv } = this.#config;
    const { q, sum, bias, biasFloats } = this.#regions;
    const { capacity: C, numberBytes: bytes } = extent;
    const attend = bytes === 2 ? this.#kernel.attendHalves! : this.#kernel.attend;
    const [keys, values] = [extent.keyAddress(l), extent.valueAddress(l)];
    // Rows that see equally far back share the keys.
    const rows = this.#reach === Number.POSITIVE_INFINITY ? to - from : 1;
    for (let i = from; i < to; i += rows) {
      const first = Math.max(start, i - this.#reach);
      for (let h = 0; h < H; h++)
        attend(
          rows,
          q + 4 * ((at + i - from) * H + h) * dqk,
          4 * H * dqk,
          keys + bytes * (h * C + first) * dqk,
          bytes * dqk,
          values + bytes * (h * C + first) * dv,
          bytes * dv,
          Math.max(0, from - first),
          bias + 4 * ((i - from) * biasFloats + first - start),
          4 * biasFloats,
          sum + 4 * ((at + i - from) * H + h) * dv,
          4 * H * dv,
        );
    }
  }

  /** Each new row and those before it. */
  #attendNew({ at, from, to, start }: StepRows): void {
    const { heads: H, dqk, dv } = this.#config;
    const { q, k, v, sum, bias, biasFloats } = this.#regions;
    for (let i = from; i < to; i++) {
      const first = Math.max(from, i - this.#reach);
      for (let h = 0; h < H; h++)
        this.#kernel.attend(
          1,
          q + 4 * ((at + i - from) * H + h) * dqk,
          4 * H * dqk,
          k + 4 * ((at + first - from) * H + h) * dqk,
          4 * H * dqk,
          v + 4 * ((at + first - from) * H + h) * dv,
          4 * H * dv,
          i + 1 - first,
          bias + 4 * ((i - from) * biasFloats + first - start),
          4 * biasFloats,
          sum + 4 * ((at + i - from) * H + h) * dv,
          4 * H * dv,
        );
    }
  }
}
