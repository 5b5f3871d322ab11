/**
 * Cache policies on traces: the KV cache itself, pages, growth and windows included, with rows of 8 bytes instead of a model's, and
 * the same policies that the encoder uses. What a miss costs is counted, not run.
 */
import { synthetic } from '../examples/synthetic/generate.ts';
import { prefillCost } from '../models/hstu/prefill-cost.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { type CachePolicy, cachePolicy } from '../models/kv-cache/cache-policy.ts';
import { KvCache } from '../models/kv-cache/kv-cache.ts';
import { windowStartOf } from '../operators/index.ts';
import { movielens } from '../test/support/promises/movielens.ts';

export interface CacheFigure {
  readonly trace: string;
  /** Events of a full window. */
  readonly n: number;
  /** Budget, of the rows that all users of the trace hold at most. */
  readonly budget: number;
  /** `clairvoyant` knows the future: whose next event is farthest goes, or is not let in. No policy can be built that way. */
  readonly policy: 'lru' | 'cost-aware' | 'clairvoyant';
  /** Events that find their user's rows, of those whose user had any to find in this window. */
  readonly hitRatio: number;
  /** Rows encoded an event. */
  readonly rowsPerEvent: number;
  /** Of the cost of encoding every window anew for every event, by multiplications: what is left. */
  readonly costLeft: number;
  /** Cost over that of LRU. */
  readonly overLru: number;
}

const SHAPE = { layers: 1, heads: 1, dqk: 1, dv: 1 };
const ROW_BYTES = 8;
const BUDGETS = [0.01, 0.03, 0.1, 0.3] as const;
const LENGTHS = [200, 1000] as const;
const POLICIES = ['lru', 'cost-aware', 'clairvoyant'] as const;
const SYNTHETIC_EVENTS = 60_000;
const ZIPF_EVENTS = 60_000;
const ZIPF_USERS = 5_000;

export const CACHE_FIGURES = 3 * LENGTHS.length * BUDGETS.length * POLICIES.length;

/** Users in order of their events; a user of which an erasure drops the history is written `!user`. */
type Trace = readonly string[];

export async function benchCache(onProgress: (done: number, label: string) => void): Promise<CacheFigure[]> {
  const traces: [string, Trace][] = [
    ['MovieLens', (await movielens(Number.POSITIVE_INFINITY)).map(({ userId }) => userId)],
    ['synthetic heavy tail', Array.from(syntheticUsers())],
    ['Zipf 0.8', zipfUsers(ZIPF_USERS, ZIPF_EVENTS, 0.8)],
  ];
  const figures: CacheFigure[] = [];
  for (const [name, trace] of traces)
    for (const n of LENGTHS)
      for (const budget of BUDGETS) {
        let lruCost = Number.NaN;
        for (const policy of POLICIES) {
          onProgress(figures.length, `${name}, n ${n}, ${100 * budget} %, ${policy}`);
          const { cost, ...figure } = simulate(trace, n, budget, policy);
          if (policy === 'lru') lruCost = cost;
          figures.push({ trace: name, n, budget, policy, ...figure, overLru: cost / lruCost });
        }
      }
  return figures;
}

function simulate(trace: Trace, n: number, budget: number, name: CacheFigure['policy']) {
  const { config } = randomBundle({ dimension: 64, layers: n > 200 ? 4 : 2, heads: 2, maxSequenceLength: n });
  const costOf = prefillCost(config);
  const policy = name === 'clairvoyant' ? new Clairvoyant(trace) : cachePolicy(name, costOf);
  const budgetBytes = Math.ceil(budget * rowsOfAll(trace, n)) * ROW_BYTES;
  const cache = new KvCache({ shape: SHAPE, modelDigest: '', budgetBytes, pageLength: 8, maxRows: n - 1, policy });
  const seen = new Map<string, number>();
  let events = 0;
  let rows = 0;
  let cost = 0;
  let whole = 0;
  let asked = 0;
  let hits = 0;
  for (const [at, user] of trace.entries()) {
    if (policy instanceof Clairvoyant) policy.now = at;
    if (user.startsWith('!')) {
      cache.free(user.slice(1));
      seen.delete(user.slice(1));
      continue;
    }
    events += 1;
    const count = (seen.get(user) ?? 0) + 1;
    seen.set(user, count);
    const windowStart = windowStartOf(count, config.window);
    const length = count - windowStart;
    whole += costOf(length);
    // The first event of a window finds nothing, whatever the policy.
    const fresh = count === 1 || windowStartOf(count - 1, config.window) !== windowStart;
    const held = cache.touch(user);
    const cached = held?.windowStart === windowStart ? held.length : 0;
    if (!fresh) {
      asked += 1;
      if (held?.windowStart === windowStart) hits += 1;
    }
    rows += length - cached;
    cost += costOf(length) - costOf(cached);
    const entry = cache.allocate(user, Math.max(1, length - 1));
    if (entry === null) cache.free(user);
    else Object.assign(entry, { windowStart, length: length - 1 });
  }
  return { hitRatio: hits / asked, rowsPerEvent: rows / events, costLeft: cost / whole, cost };
}

/** Rows of every user's fullest window. */
function rowsOfAll(trace: Trace, n: number): number {
  const counts = new Map<string, number>();
  for (const user of trace) counts.set(user, (counts.get(user) ?? 0) + 1);
  return [...counts.values()].reduce((sum, count) => sum + Math.min(count, n), 0);
}

/** Whose next event is farthest goes first. */
class Clairvoyant implements CachePolicy {
  /** Place in the trace. */
  now = 0;
  readonly #next: Float64Array;
  /** When each held user comes next. */
  readonly #held = new Map<string, number>();

  constructor(trace: Trace) {
    this.#next = new Float64Array(trace.length).fill(Number.POSITIVE_INFINITY);
    const later = new Map<string, number>();
    for (let at = trace.length - 1; at >= 0; at--) {
      const user = trace[at]!;
      this.#next[at] = later.get(user) ?? Number.POSITIVE_INFINITY;
      if (user.startsWith('!')) later.delete(user.slice(1));
      else later.set(user, at);
    }
  }

  asked(): void {}

  held(userId: string): void {
    this.#held.set(userId, this.#next[this.now]!);
  }

  *order(): Generator<string> {
    const left = new Map(this.#held);
    while (left.size > 0) {
      let farthest = '';
      let at = -1;
      for (const [userId, next] of left) if (next > at) [farthest, at] = [userId, next];
      left.delete(farthest);
      yield farthest;
    }
  }

  prefers(_userId: string, _rows: number, other: string): boolean {
    return this.#next[this.now]! < this.#held.get(other)!;
  }

  refused(): void {}

  evicted(userId: string): void {
    this.#held.delete(userId);
  }

  dropped(userId: string): void {
    this.#held.delete(userId);
  }
}

function* syntheticUsers(): Generator<string> {
  for (const { userId, action } of synthetic({ events: SYNTHETIC_EVENTS })) yield action === 'erase' ? `!${userId}` : userId;
}

/** Independent draws, the k-th user with a share of `k^-skew`: what `plan` reckons with. */
function zipfUsers(users: number, events: number, skew: number): string[] {
  const cumulative = new Float64Array(users);
  let sum = 0;
  for (let k = 0; k < users; k++) cumulative[k] = sum += (k + 1) ** -skew;
  let state = 42;
  return Array.from({ length: events }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const drawn = (sum * state) / 2 ** 32;
    let low = 0;
    let high = users - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! < drawn) low = middle + 1;
      else high = middle;
    }
    return `${low}`;
  });
}
