/** What a deployment needs: memory, processors and disk for so many users and events, from a model's measured step. */

export interface PlanInput {
  readonly users: number;
  /** Events a second, all users together. */
  readonly eventsPerSecond: number;
  /** KV cache, all instances together, bytes. */
  readonly kvBudgetBytes: number;
  /** KV cache on disk, all instances together, bytes; 0: none. */
  readonly diskBudgetBytes: number;
  /** K and V of a user with a full window, bytes. */
  readonly kvBytesPerUser: number;
  /** Exact step of one user (the old tail and one new event), µs. */
  readonly stepUs: number;
  /** Encode of a full window from nothing, µs. */
  readonly prefillUs: number;
  /** Event of a user whose rows are read back from disk, µs; not asked for where nothing is kept there. */
  readonly returnUs: number;
  /** Exponent of the users' activity: the k-th most active has a share of `k^-skew`. 0: all alike. */
  readonly skew: number;
  /** Events in a user's window. */
  readonly windowLength: number;
  /** Events dropped when the window is full: every row that is left moves, and is encoded anew. */
  readonly blockLength: number;
  /** Width of the embedding. */
  readonly dimension: number;
  /** Memory of one GPU, bytes. */
  readonly gpuBytes: number;
}

export interface Plan {
  /** Users whose K and V are in the cache. */
  readonly cachedUsers: number;
  /** Share of events that find their user's K and V in the cache. */
  readonly hitRatio: number;
  /** Users whose K and V are on disk and not in memory. */
  readonly diskUsers: number;
  /** Share of events that find them there. */
  readonly restoreRatio: number;
  /** Mean encoder time of an event, µs. */
  readonly encodeUsPerEvent: number;
  /** Of it, the mean for slides of the window, µs. */
  readonly slideUsPerEvent: number;
  /** Encoder threads, at `UTILISATION`. */
  readonly cores: number;
  /** GPUs that hold K and V of all users, so that every event finds its rows; by memory alone. */
  readonly gpus: number;
  /** Local store of all users, and about as much in the changelog, bytes. */
  readonly stateBytes: number;
  /** Embeddings published, bytes a second before compression. */
  readonly embeddingBytesPerSecond: number;
}

/** Above this share of a thread's time, waiting grows faster than the work: latency at 70 % is about 3 times that of none (M/M/1). */
export const UTILISATION = 0.7;
/** Of a GPU's memory, what K and V may take: the rest is the runtime's and the step's. */
export const GPU_SHARE = 0.9;
/** Bytes of state an event: measured on sequences of 200 (`npm run bench -- restore`: 4.56 MB of 10 pages for 2,000 events). */
const STATE_BYTES_PER_EVENT = 23;
/** Of an embedding's record beside the floats: ids, lineage, times. */
const EMBEDDING_OVERHEAD_BYTES = 180;

/**
 * - hit ratio of an LRU of `cachedUsers` under independent requests with Zipf popularity: Che's approximation (Che, Tung,
 *   Wang 2002): `h = Σ p_i (1 - e^(-p_i t))` with `t` such that `Σ (1 - e^(-p_i t)) = cachedUsers`
 * - `slideUsPerEvent = prefillUs · (1 - blockLength / windowLength) / blockLength`: once in `blockLength` events of a full window the
 *   rows that are left are encoded from nothing, in the time of a prefill by their share (a little more than it takes, since a
 *   prefill grows faster than its rows)
 * - on disk are who was evicted last: memory and disk together hold what one LRU of both would, so `r = h(both) - h`
 * - `encodeUsPerEvent = h · (stepUs + slideUsPerEvent) + r · (returnUs + slideUsPerEvent) + (1 - h - r) · prefillUs`
 * - `gpus = users · kvBytesPerUser / (gpuBytes · GPU_SHARE)`
 * - `cores = eventsPerSecond · encodeUsPerEvent / 1e6 / UTILISATION`
 */
export function plan(input: PlanInput): Plan {
  const { users, eventsPerSecond, kvBudgetBytes, kvBytesPerUser, stepUs, prefillUs, skew, windowLength } = input;
  const cachedUsers = Math.min(users, Math.floor(kvBudgetBytes / kvBytesPerUser));
  const hitRatio = lruHitRatio(users, cachedUsers, skew);
  const slideUsPerEvent = (prefillUs * (1 - input.blockLength / windowLength)) / input.blockLength;
  const heldUsers = Math.min(users, cachedUsers + Math.floor(input.diskBudgetBytes / kvBytesPerUser));
  const restoreRatio = lruHitRatio(users, heldUsers, skew) - hitRatio;
  const restoreUs = restoreRatio > 0 ? restoreRatio * (input.returnUs + slideUsPerEvent) : 0;
  const encodeUsPerEvent = hitRatio * (stepUs + slideUsPerEvent) + restoreUs + (1 - hitRatio - restoreRatio) * prefillUs;
  return {
    cachedUsers,
    hitRatio,
    diskUsers: heldUsers - cachedUsers,
    restoreRatio,
    encodeUsPerEvent,
    slideUsPerEvent,
    cores: (eventsPerSecond * encodeUsPerEvent) / 1e6 / UTILISATION,
    gpus: Math.ceil((users * kvBytesPerUser) / (input.gpuBytes * GPU_SHARE)),
    stateBytes: users * windowLength * STATE_BYTES_PER_EVENT,
    embeddingBytesPerSecond: eventsPerSecond * (4 * input.dimension + EMBEDDING_OVERHEAD_BYTES),
  };
}

/** Share of requests that an LRU of `size` of `users` items answers; item k is asked for with probability ∝ `k^-skew`. */
export function lruHitRatio(users: number, size: number, skew: number): number {
  if (size >= users) return 1;
  if (size <= 0) return 0;
  const groups = popularityGroups(users, skew);
  const held = (t: number) => groups.reduce((sum, { count, share }) => sum + count * -Math.expm1(-share * t), 0);
  // The time for which an item stays without being asked for, in requests: more items held the longer it is.
  let low = 0;
  let high = size;
  while (held(high) < size) high *= 2;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (held(middle) < size) low = middle;
    else high = middle;
  }
  return groups.reduce((sum, { count, share }) => sum + count * share * -Math.expm1(-share * high), 0);
}

/** Users of about one activity, so that a hundred million cost as little as a thousand: ranks in ranges growing by a hundredth. */
function popularityGroups(users: number, skew: number): { readonly count: number; readonly share: number }[] {
  const groups: { count: number; share: number }[] = [];
  let total = 0;
  for (let first = 1; first <= users; ) {
    const last = Math.min(users, Math.max(first, Math.floor(first * 1.01)));
    const share = ((first + last) / 2) ** -skew;
    const count = last - first + 1;
    groups.push({ count, share });
    total += count * share;
    first = last + 1;
  }
  return groups.map(({ count, share }) => ({ count, share: share / total }));
}
