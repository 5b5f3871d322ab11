/**
 * The relative attention bias of HSTU research, `time_w[bucket(|next_i - t_j|)] + position_w[N-1 + j-i]`, computed on the
 * host: one pass finds the time buckets, every layer then adds its own two tables. Keeping it out of the graph spares one
 * Gather per element and layer.
 */
import type { Bundle } from './bundle.ts';

export class AttentionBias {
  readonly #thresholds: Float64Array;
  readonly #time: readonly (Float32Array | undefined)[];
  readonly #position: readonly (Float32Array | undefined)[];
  readonly #N: number;
  #buckets = new Uint8Array(1024);

  constructor({ config, tensors }: Bundle) {
    this.#thresholds = Float64Array.from(config.timeBucketThresholds);
    this.#N = config.paddedLength;
    const tables = (part: string) => Array.from({ length: config.layers }, (_, l) => tensors.get(`layers.${l}.${part}`)?.data);
    this.#time = tables('time_bias');
    this.#position = tables('position_bias');
  }

  /**
   * Writes the biases of query row `i` against the keys `from … to-1`, for every layer.
   *
   * @param nextTimeS time of the event after row `i`, or the query time for the newest row, seconds
   * @param timesS event times of the window, seconds: `(n,)`
   * @param out one array per layer; the bias of key `j` lands at `at + j - from`
   */
  fillRow(
    i: number,
    nextTimeS: number,
    timesS: Float64Array,
    from: number,
    to: number,
    out: readonly Float32Array[],
    at: number,
  ): void {
    const count = to - from;
    if (count <= 0) return;
    const buckets = this.#bucketsOf(nextTimeS, timesS, from, to);
    const base = this.#N - 1 - i + from;
    for (let l = 0; l < out.length; l++) {
      const layer = out[l]!;
      const time = this.#time[l];
      const position = this.#position[l];
      if (time !== undefined && position !== undefined) {
        for (let j = 0; j < count; j++) layer[at + j] = time[buckets[j]!]! + position[base + j]!;
      } else if (time !== undefined) {
        for (let j = 0; j < count; j++) layer[at + j] = time[buckets[j]!]!;
      } else if (position !== undefined) {
        for (let j = 0; j < count; j++) layer[at + j] = position[base + j]!;
      } else layer.fill(0, at, at + count);
    }
  }

  /**
   * The time buckets of the keys `from … to-1` as runs: pairs of the key behind the run's last one, counted from `from`, and of
   * where the bucket lies in a table, in bytes.
   *
   * @returns where the pairs written to `out` from `at` on end
   */
  writeRuns(nextTimeS: number, timesS: Float64Array, from: number, to: number, out: Int32Array, at: number): number {
    let next = at;
    for (let j = from; j < to; ) {
      const bucket = this.#bucketOf(nextTimeS - timesS[j]!);
      j = this.#runEnd(bucket, nextTimeS, timesS, j, to);
      out[next++] = j - from;
      out[next++] = 4 * bucket;
    }
    return next;
  }

  #bucketsOf(nextTimeS: number, timesS: Float64Array, from: number, to: number): Uint8Array {
    if (this.#buckets.length < to - from) this.#buckets = new Uint8Array(2 * (to - from));
    for (let j = from; j < to; ) {
      const bucket = this.#bucketOf(nextTimeS - timesS[j]!);
      const end = this.#runEnd(bucket, nextTimeS, timesS, j, to);
      this.#buckets.fill(bucket, j - from, end - from);
      j = end;
    }
    return this.#buckets;
  }

  /** Times are sorted, so keys of one bucket lie together, and the next bucket is rarely far: two comparisons a key. */
  #runEnd(bucket: number, nextTimeS: number, timesS: Float64Array, from: number, to: number): number {
    const thresholds = this.#thresholds;
    const least = bucket === 0 ? Number.NEGATIVE_INFINITY : thresholds[bucket - 1]!;
    const most = bucket === thresholds.length ? Number.POSITIVE_INFINITY : thresholds[bucket]!;
    let j = from + 1;
    for (; j < to; j++) {
      const distance = Math.abs(nextTimeS - timesS[j]!);
      if (distance < least || distance >= most) break;
    }
    return j;
  }

  /** How many thresholds are at most the distance. */
  #bucketOf(distance: number): number {
    const thresholds = this.#thresholds;
    const d = Math.max(1, Math.abs(distance));
    let low = 0;
    let high = thresholds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (thresholds[middle]! <= d) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
