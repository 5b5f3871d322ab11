/**
 * Time buckets of the relative time bias. The reference computes `trunc(f32(log(f32(max(1, |d|))) / 0.301))` at run time;
 * float64, float32 and GPUs disagree at bucket edges, so the edges are computed once, in float32, and stored in the bundle.
 */

/** Rows of a layer's time-bias table: buckets 0 … 128. */
export const TIME_BUCKETS = 129;

const f32 = Math.fround;

/** Bucket by the reference's formula, in float32. `d` in seconds, ≥ 1. */
export function bucketByLogarithm(d: number): number {
  return Math.min(TIME_BUCKETS - 1, Math.trunc(f32(f32(Math.log(f32(d))) / f32(0.301))));
}

/** Entry `k-1` is the smallest |d| of bucket ≥ `k`, in seconds; stops where integers are no longer exact (2^53). */
export function timeBucketThresholds(): number[] {
  const thresholds: number[] = [];
  for (let bucket = 1; bucket < TIME_BUCKETS; bucket++) {
    let low = 1;
    let high = Number.MAX_SAFE_INTEGER;
    if (bucketByLogarithm(high) < bucket) break;
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2);
      if (bucketByLogarithm(middle) >= bucket) high = middle;
      else low = middle + 1;
    }
    thresholds.push(low);
  }
  return thresholds;
}
