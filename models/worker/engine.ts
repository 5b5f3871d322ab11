/**
 * The encoder on one thread: takes users' windows, computes only the rows that the KV cache does not hold, and keeps what is
 * final. The law it obeys: whatever the cache holds, the rows returned equal those of a full encode.
 */
import type {
  CacheOutcome,
  EncodedSegment,
  EncodeRequest,
  EncodeResult,
  EncodeSegment,
  ScoreRequest,
  ScoreResult,
} from '../../schemas/encoding.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { DIGEST_PAGE } from '../../schemas/sequence-digest.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { judgeCacheability } from '../hstu/cacheability.ts';
import { MAX_ROWWISE } from '../hstu/graphs.ts';
import { KvCache, type KvCacheOptions, type KvEntry, type Reuse } from '../kv-cache/kv-cache.ts';
import { EncodeRun, type RowRange, type RunOutput } from './encode-run.ts';
import { Scorer } from './scorer.ts';
import { Sessions, STEP_USERS } from './sessions.ts';

export interface EngineOptions {
  /** Bytes for K and V. */
  readonly kvBudgetBytes: number;
  /** Rows a page of the pool. @default 8 */
  readonly pageLength?: number;
  /** Rows encoded at once in a prefill; a longer history is prefilled in chunks against its own cached rows. @default 512 */
  readonly prefillRows?: number;
}

export interface EngineStats {
  readonly segments: number;
  readonly rowsComputed: number;
  readonly outcomes: Readonly<Record<CacheOutcome, number>>;
  readonly evictions: number;
  readonly users: number;
  readonly kvBytesUsed: number;
  readonly kvBytesBudget: number;
}

/** A segment being encoded. */
interface Job {
  readonly segment: EncodeSegment;
  readonly userId: string;
  /** Where new K/V rows go; undefined when nothing of this segment is kept. */
  entry: KvEntry | undefined;
  /** Rows held before. */
  readonly cached: number;
  /** Rows done, cached or computed. */
  done: number;
  readonly outcome: CacheOutcome;
  /** Output rows from `segment.from` on: `(n - from, D)`. */
  readonly rows: Float32Array;
}

/** Floats that the score matrices of one prefill may take: bounds users × rows². */
const PREFILL_FLOATS = 1024 * 1024;
const OUTCOME_OF: Record<Reuse['because'], CacheOutcome> = {
  cold: 'cold',
  model: 'cold',
  window: 'window',
  diverged: 'diverged',
  intact: 'hit',
};

export class EncoderEngine {
  readonly #bundle: Bundle;
  readonly #cache: KvCache;
  readonly #sessions: Sessions;
  readonly #run: EncodeRun;
  readonly #scorer: Scorer;
  readonly #prefillRows: number;
  /** False for a bundle that fails the cacheability lint: every segment is then encoded whole. */
  readonly #cacheable: boolean;
  readonly #outcomes: Record<CacheOutcome, number> = { hit: 0, cold: 0, window: 0, diverged: 0, uncached: 0 };
  #segments = 0;
  #rowsComputed = 0;

  /** @param cacheOf tests give a cache that is wrong on purpose, to show that the law would notice */
  constructor(
    bundle: Bundle,
    { kvBudgetBytes, pageLength = 8, prefillRows = 512 }: EngineOptions,
    cacheOf: (options: KvCacheOptions) => KvCache = (options) => new KvCache(options),
  ) {
    const { config, digest } = bundle;
    this.#bundle = bundle;
    this.#cache = cacheOf({
      shape: config,
      modelDigest: digest,
      budgetBytes: kvBudgetBytes,
      pageLength,
      maxRows: Math.max(1, config.window.maxLength - 1),
    });
    this.#sessions = new Sessions(bundle);
    this.#run = new EncodeRun(bundle);
    this.#scorer = new Scorer(bundle, this.#sessions);
    this.#prefillRows = prefillRows;
    this.#cacheable = judgeCacheability(config).verdict !== 're-encode';
  }

  get stats(): EngineStats {
    return {
      segments: this.#segments,
      rowsComputed: this.#rowsComputed,
      outcomes: { ...this.#outcomes },
      evictions: this.#cache.evictions,
      users: this.#cache.users,
      kvBytesUsed: this.#cache.bytesUsed,
      kvBytesBudget: this.#cache.bytesBudget,
    };
  }

  /** Encodes every request; a user's segments in their order, different users together. */
  async encode(requests: readonly EncodeRequest[]): Promise<EncodeResult[]> {
    for (const request of requests) this.#check(request);
    const results = requests.map(({ userId, segments }) => ({ userId, segments: new Array<EncodedSegment>(segments.length) }));
    const rounds: { request: number; segment: number }[][] = [];
    const depth = new Map<string, number>();
    for (const [r, { userId, segments }] of requests.entries()) {
      for (let s = 0; s < segments.length; s++) {
        const round = depth.get(userId) ?? 0;
        rounds[round] ??= [];
        rounds[round].push({ request: r, segment: s });
        depth.set(userId, round + 1);
      }
    }
    for (const round of rounds) {
      const jobs = round.map(({ request, segment }) =>
        this.#prepare(requests[request]!.userId, requests[request]!.segments[segment]!),
      );
      try {
        await this.#compute(jobs);
      } catch (cause) {
        for (const job of jobs) this.#cache.free(job.userId);
        throw new PipelineError('ENCODER_FAILED', `encoding of ${jobs.length} segment(s) failed: ${messageOf(cause)}`, { cause });
      } finally {
        for (const job of jobs) if (job.entry !== undefined) job.entry.pinned = false;
      }
      for (const [i, { request, segment }] of round.entries()) results[request]!.segments[segment] = this.#finish(jobs[i]!);
    }
    return results;
  }

  score(requests: readonly ScoreRequest[]): Promise<ScoreResult[]> {
    return this.#scorer.score(requests);
  }

  /** Drops a user's rows. Returns whether there were any. */
  forget(userId: string): boolean {
    return this.#cache.free(userId);
  }

  release(): Promise<void> {
    return this.#sessions.release();
  }

  #check({ userId, segments }: EncodeRequest): void {
    const { vocabularySize, maxSequenceLength } = this.#bundle.config;
    for (const { entities, timesS, from, pageDigests } of segments) {
      const n = entities.length;
      const problem =
        n === 0 || n > maxSequenceLength
          ? `a window of ${n} tokens; allowed: 1 to ${maxSequenceLength}`
          : timesS.length !== n
            ? `${timesS.length} times for ${n} tokens`
            : pageDigests.length !== 2 * Math.floor(n / DIGEST_PAGE)
              ? `${pageDigests.length / 2} page digests for ${n} tokens`
              : from < 0 || from >= n
                ? `rows wanted from ${from} of ${n}`
                : entities.some((entity) => entity < 1 || entity > vocabularySize)
                  ? `entity rows outside 1 to ${vocabularySize}`
                  : undefined;
      if (problem !== undefined) throw new PipelineError('ENCODER_FAILED', `request of user ${userId}: ${problem}`);
    }
  }

  /** Finds out what the cache holds of this segment, and makes room for what will be kept. */
  #prepare(userId: string, segment: EncodeSegment): Job {
    const n = segment.entities.length;
    const rows = new Float32Array((n - segment.from) * this.#bundle.config.dimension);
    if (!this.#cacheable) return { segment, userId, entry: undefined, cached: 0, done: 0, outcome: 'uncached', rows };
    const held = this.#cache.touch(userId);
    const reuse = this.#cache.reuse(held, segment);
    const cached = Math.min(reuse.rows, segment.from, n - 1);
    if (held !== undefined) this.#cache.truncate(held, cached);
    const entry = this.#cache.allocate(userId, Math.max(1, n - 1));
    if (entry === null) {
      this.#cache.free(userId);
      const scratch = n > this.#prefillRows ? this.#cache.scratch(userId, n - 1) : undefined;
      return { segment, userId, entry: scratch, cached: 0, done: 0, outcome: 'uncached', rows };
    }
    entry.pinned = true;
    return { segment, userId, entry, cached, done: cached, outcome: OUTCOME_OF[reuse.because], rows };
  }

  async #compute(jobs: readonly Job[]): Promise<void> {
    const limit = this.#cacheable ? this.#prefillRows : Number.POSITIVE_INFINITY;
    const fresh = jobs.filter((job) => job.done === 0).sort((a, b) => a.segment.entities.length - b.segment.entities.length);
    for (const batch of prefillBatches(fresh, limit, this.#bundle.config)) {
      const ranges = batch.map((job) => ({ segment: job.segment, from: 0, to: Math.min(job.segment.entities.length, limit) }));
      this.#accept(batch, ranges, await this.#run.run(await this.#sessions.prefill(), ranges));
    }
    for (;;) {
      const open = jobs.filter((job) => job.done < job.segment.entities.length);
      if (open.length === 0) return;
      for (const batch of stepBatches(open)) {
        const ranges = batch.map((job) => ({
          segment: job.segment,
          from: job.done,
          to: Math.min(job.segment.entities.length, job.done + this.#prefillRows),
          past: job.entry!.extent,
        }));
        const rowwise = ranges[0]!.to - ranges[0]!.from <= MAX_ROWWISE;
        this.#accept(batch, ranges, await this.#run.run(await this.#sessions.step(batch.length, rowwise), ranges));
      }
    }
  }

  /** Takes the wanted output rows, and stores K/V of the rows that are final: all but a window's newest. */
  #accept(jobs: readonly Job[], ranges: readonly RowRange[], { y, k, v, T }: RunOutput): void {
    const { dimension: D, layers: L } = this.#bundle.config;
    for (const [b, job] of jobs.entries()) {
      const { segment, from, to } = ranges[b]!;
      const wanted = Math.max(from, segment.from);
      if (to > wanted)
        job.rows.set(y.subarray((b * T + wanted - from) * D, (b * T + to - from) * D), (wanted - segment.from) * D);
      const final = Math.min(to, segment.entities.length - 1);
      if (job.entry !== undefined) {
        for (let l = 0; l < L; l++) job.entry.extent.write(l, from, final - from, k[l]!, v[l]!, b * T);
        this.#cache.commit(job.entry, segment, final);
      }
      job.done = to;
      this.#rowsComputed += to - from;
    }
  }

  #finish({ rows, cached, outcome, segment }: Job): EncodedSegment {
    this.#segments += 1;
    this.#outcomes[outcome] += 1;
    return { rows, rowsComputed: segment.entities.length - cached, outcome };
  }
}

/** Windows of similar length together (padding below a quarter), as many as the score matrices may take. */
function* prefillBatches(
  sorted: readonly Job[],
  limit: number,
  { heads, layers }: { heads: number; layers: number },
): Generator<Job[]> {
  let batch: Job[] = [];
  const rowsOf = (job: Job) => Math.min(job.segment.entities.length, limit);
  for (const job of sorted) {
    const longest = rowsOf(job);
    const fits = (batch.length + 1) * longest ** 2 * (heads + layers) <= PREFILL_FLOATS;
    if (batch.length > 0 && (!fits || longest > 1.25 * rowsOf(batch[0]!) + 4)) {
      yield batch;
      batch = [];
    }
    batch.push(job);
  }
  if (batch.length > 0) yield batch;
}

/** Users with equally many new rows and equal capacity, cut into the sizes that the step graphs have; many rows go alone. */
function* stepBatches(jobs: readonly Job[]): Generator<Job[]> {
  const groups = new Map<string, Job[]>();
  for (const job of jobs) {
    const rows = job.segment.entities.length - job.done;
    const key = rows <= MAX_ROWWISE ? `${rows}:${job.entry!.extent.capacity}` : `alone:${job.userId}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [job]);
    else group.push(job);
  }
  for (const group of groups.values()) {
    let rest = group;
    for (const users of STEP_USERS) {
      for (; rest.length >= users; rest = rest.slice(users)) yield rest.slice(0, users);
    }
  }
}
