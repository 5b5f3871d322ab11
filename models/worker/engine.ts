/**
 * The encoder on one thread: users' windows through the KV cache, and candidates judged against them. The law it obeys: whatever
 * the cache holds, the numbers returned equal those of a full encode.
 */
import type {
  CacheOutcome,
  CandidateRequest,
  CandidateResult,
  DiskTierStats,
  EncodedSegment,
  EncodeRequest,
  EncodeResult,
  EncodeSegment,
  ListIndexStats,
  ScoreRequest,
  ScoreResult,
} from '../../schemas/encoding.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { CandidateIndex } from '../catalogue/candidate-index.ts';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { prefillCost } from '../hstu/prefill-cost.ts';
import { type CachePolicyName, cachePolicy } from '../kv-cache/cache-policy.ts';
import { DiskTier, type DiskTierOptions } from '../kv-cache/disk-tier.ts';
import type { KvPrecision } from '../kv-cache/extent.ts';
import { KvCache, type KvCacheOptions } from '../kv-cache/kv-cache.ts';
import { AttentionMemory } from '../wasm/attention-memory.ts';
import { requireKvPrecision } from '../wasm/require-kv-precision.ts';
import { BulkEncoder } from './compute/bulk-encoder.ts';
import { CandidateScorer } from './compute/candidate-scorer.ts';
import { checkBulk, checkCandidateRequest, checkEncodeRequest, checkServesRetrieval } from './compute/check-request.ts';
import type { Job } from './compute/encode-job.ts';
import { HistoryEncoder } from './compute/history-encoder.ts';
import { Scorer } from './compute/scorer.ts';
import { Sessions } from './compute/sessions.ts';

export interface EngineOptions {
  /** Bytes for K and V. */
  readonly kvBudgetBytes: number;
  /** Rows a page of the pool. @default 8 */
  readonly pageLength?: number;
  /** Rows encoded at once in a prefill; a longer history is prefilled in chunks against its own cached rows. @default 512 */
  readonly prefillRows?: number;
  /** Candidates judged at once: the fixed size of a micro-batch. @default 128 */
  readonly candidateRows?: number;
  /** Who leaves the cache when room is wanted, and who is not let in. @default 'lru' */
  readonly cachePolicy?: CachePolicyName;
  /** `bfloat16`: half the bytes a user, and answers that are off by rounding. For `cpu`. @default 'float32': as computed */
  readonly kvPrecision?: KvPrecision;
  /** Where the rows of users that memory has no room for are kept. @default nowhere: they are encoded anew */
  readonly disk?: DiskTierOptions | undefined;
  /** `cuda`: graphs run there, and K and V of every step are copied to it from host memory. @default 'cpu' */
  readonly provider?: 'cpu' | 'cuda';
}

export interface EngineStats {
  readonly segments: number;
  readonly rowsComputed: number;
  readonly outcomes: Readonly<Record<CacheOutcome, number>>;
  readonly evictions: number;
  readonly users: number;
  readonly kvBytesUsed: number;
  readonly kvBytesBudget: number;
  /** Undefined where nothing is kept on disk. */
  readonly disk?: DiskTierStats | undefined;
  /** Undefined while lists are exact. */
  readonly index?: ListIndexStats | undefined;
}

export class EncoderEngine {
  #bundle: Bundle;
  readonly #cache: KvCache;
  readonly #disk: DiskTier | undefined;
  readonly #sessions: Sessions;
  readonly #histories: HistoryEncoder;
  readonly #bulk: BulkEncoder;
  readonly #scorer: Scorer;
  readonly #candidates: CandidateScorer;

  /**
   * @param cacheOf tests give a cache that is wrong on purpose, to show that the law would notice
   * @throws PipelineError `CONFIG_INVALID` for a precision that the bundle or the provider has no kernel for
   */
  constructor(
    bundle: Bundle,
    options: EngineOptions,
    cacheOf: (options: KvCacheOptions) => KvCache = (options) => new KvCache(options),
  ) {
    const { kvBudgetBytes, pageLength = 8, prefillRows = 512, candidateRows = 128, provider = 'cpu' } = options;
    const { config, digest } = bundle;
    const precision = options.kvPrecision ?? 'float32';
    requireKvPrecision(bundle, precision, provider);
    this.#bundle = bundle;
    // With CUDA the cached rows go to the device with every step: the kernel is for rows that stay.
    const memory = provider === 'cpu' && AttentionMemory.serves(bundle) ? new AttentionMemory(bundle, precision) : undefined;
    this.#disk = options.disk && new DiskTier(options.disk);
    this.#cache = cacheOf({
      disk: this.#disk,
      shape: { layers: config.layers, heads: config.heads, dqk: config.dqk, dv: config.dv, precision },
      modelDigest: digest,
      budgetBytes: kvBudgetBytes,
      pageLength,
      maxRows: Math.max(1, config.window.maxLength - 1),
      memory,
      policy: cachePolicy(options.cachePolicy ?? 'lru', prefillCost(config)),
    });
    this.#sessions = new Sessions(bundle, provider);
    this.#histories = new HistoryEncoder(bundle, this.#cache, memory, this.#sessions, prefillRows);
    this.#bulk = new BulkEncoder(bundle, this.#sessions);
    this.#scorer = new Scorer(bundle, this.#sessions);
    this.#candidates = new CandidateScorer(bundle, this.#sessions, candidateRows);
  }

  get stats(): EngineStats {
    return {
      ...this.#histories.stats,
      evictions: this.#cache.evictions,
      users: this.#cache.users,
      kvBytesUsed: this.#cache.bytesUsed,
      kvBytesBudget: this.#cache.bytesBudget,
      disk: this.#disk?.stats,
      index: this.#scorer.indexStats,
    };
  }

  /** Encodes every request; a user's segments in their order, different users together. */
  async encode(requests: readonly EncodeRequest[]): Promise<EncodeResult[]> {
    for (const request of requests) checkEncodeRequest(request, this.#bundle.config);
    const results = requests.map(({ userId, segments }) => ({ userId, segments: new Array<EncodedSegment>(segments.length) }));
    const asked = requests.flatMap(({ userId, segments }, request) =>
      segments.map((segment, at) => ({ userId, segment, request, at })),
    );
    for (const round of oneOfEachUser(asked)) {
      const jobs = round.map(({ userId, segment }) => this.#histories.prepare(userId, segment));
      await this.#withJobs(jobs, `encoding of ${jobs.length} segment(s)`, () => this.#histories.compute(jobs));
      for (const [i, { request, at }] of round.entries()) results[request]!.segments[at] = this.#histories.finish(jobs[i]!);
    }
    return results;
  }

  /**
   * The same answers for users that will not be met again: windows are encoded whole, many users together, and nothing is left
   * in the cache. Only where late events give one window many segments does the cache carry rows from one to the next.
   *
   * @throws PipelineError `ENCODER_FAILED` for a bundle whose rows change with later events: it must be stepped
   */
  async encodeInBulk(requests: readonly EncodeRequest[]): Promise<EncodeResult[]> {
    checkBulk(this.#bundle.config);
    for (const request of requests) checkEncodeRequest(request, this.#bundle.config);
    const results = requests.map(({ userId, segments }) => ({ userId, segments: new Array<EncodedSegment>(segments.length) }));
    const alone: { readonly segment: EncodeSegment; readonly request: number; readonly at: number }[] = [];
    const chains: { readonly chain: EncodeRequest; readonly request: number; readonly at: number }[] = [];
    for (const [request, { userId, segments }] of requests.entries())
      for (const { at, segments: ofWindow } of byWindow(segments)) {
        if (this.#bulk.takes(ofWindow))
          for (const [k, segment] of ofWindow.entries()) alone.push({ segment, request, at: at + k });
        else chains.push({ chain: { userId: `${at}/${userId}`, segments: ofWindow }, request, at });
      }
    const rows = await this.#bulk.encode(alone.map(({ segment }) => segment)).catch((cause: unknown) => {
      throw new PipelineError('ENCODER_FAILED', `bulk encoding of ${alone.length} windows failed: ${messageOf(cause)}`, {
        cause,
      });
    });
    for (const [i, { segment, request, at }] of alone.entries())
      results[request]!.segments[at] = { rows: rows[i]!, rowsComputed: segment.entities.length, outcome: 'uncached' };
    const encoded = await this.encode(chains.map(({ chain }) => chain));
    for (const [i, { request, at, chain }] of chains.entries()) {
      for (const [k, segment] of encoded[i]!.segments.entries()) results[request]!.segments[at + k] = segment;
      this.#cache.free(chain.userId);
    }
    return results;
  }

  /** @throws PipelineError `ENCODER_FAILED` where the bundle does not serve retrieval */
  async score(requests: readonly ScoreRequest[]): Promise<ScoreResult[]> {
    checkServesRetrieval(this.#bundle.config);
    return this.#scorer.score(requests);
  }

  /**
   * Judges candidates against their users' windows: the rows missing from the cache are computed and kept as `encode` would,
   * then the candidates go in micro-batches over the one cached history. Nothing of a candidate is stored.
   */
  async scoreCandidates(requests: readonly CandidateRequest[]): Promise<CandidateResult[]> {
    for (const request of requests) checkCandidateRequest(request, this.#bundle);
    const results = new Array<CandidateResult>(requests.length);
    for (const round of oneOfEachUser(requests.map((request, at) => ({ userId: request.userId, request, at })))) {
      const jobs = new Map<number, Job>();
      for (const { request, at } of round) {
        const from = request.segment.entities.length - 1;
        if (from >= 0) jobs.set(at, this.#histories.prepare(request.userId, { ...request.segment, from }, true));
      }
      await this.#withJobs([...jobs.values()], `scoring of ${round.length} request(s)`, async () => {
        await this.#histories.compute([...jobs.values()]);
        for (const { request, at } of round) {
          const job = jobs.get(at);
          const past = job?.entry?.extent ?? this.#cache.scratch(request.userId, 1).extent;
          const answer = await this.#candidates.score({ segment: request.segment, past, newest: job?.newest }, request);
          const { rowsComputed, outcome } = job === undefined ? NO_HISTORY : this.#histories.finish(job);
          results[at] = { ...answer, rowsComputed, outcome };
        }
      });
    }
    return results;
  }

  /** The same scores by full passes over history and candidates, the cache neither read nor written: what checks compare with. */
  async scoreCandidatesInFull(requests: readonly CandidateRequest[]): Promise<CandidateResult[]> {
    for (const request of requests) checkCandidateRequest(request, this.#bundle);
    const results: CandidateResult[] = [];
    for (const request of requests) {
      const answer = await this.#candidates.scoreInFull(request);
      results.push({ ...answer, rowsComputed: request.segment.entities.length, outcome: 'uncached' });
    }
    return results;
  }

  /** From now on candidates and lists are of this catalogue. Windows, and so the cache, have nothing of it. Between two calls only. */
  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#bundle = { ...this.#bundle, catalogue };
    this.#scorer.useCatalogue(catalogue);
    this.#candidates.useCatalogue(catalogue);
  }

  /**
   * From now on lists are made by this index of the vocabulary: which rows are listed is approximate, their scores and the ranks of
   * targets are not. Between two calls only.
   *
   * @param sampleEvery of so many lists one is compared with the exact one; @default 256
   */
  useIndex(index: Pick<CandidateIndex, 'nearest' | 'size'>, sampleEvery?: number): void {
    this.#scorer.useIndex(index, sampleEvery);
  }

  /** Who has rows in the cache, the last to go first: by `lru`, the most recently used. */
  cachedUsers(): string[] {
    return this.#cache.userIds();
  }

  /** Counts these as asked for, in this order: by `lru`, the last of them goes last. */
  touch(userIds: readonly string[]): void {
    for (const userId of userIds) this.#cache.touch(userId);
  }

  /** Drops a user's rows, also those on disk. Returns whether there were any. */
  forget(userId: string): boolean {
    return this.#cache.free(userId);
  }

  async release(): Promise<void> {
    await this.#disk?.close();
    await this.#sessions.release();
  }

  /** Lets go of the jobs' entries at the end; where the work fails, what it left half done is dropped. */
  async #withJobs(jobs: readonly Job[], what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      for (const job of jobs) this.#cache.free(job.userId);
      throw new PipelineError('ENCODER_FAILED', `${what} failed: ${messageOf(cause)}`, { cause });
    } finally {
      for (const job of jobs) if (job.entry !== undefined) job.entry.pinned = false;
    }
  }
}

const NO_HISTORY = { rowsComputed: 0, outcome: 'cold' } as const;

/** In rounds: a user's first, then its second, … so that each meets in the cache what the one before it left there. */
export function oneOfEachUser<T extends { readonly userId: string }>(asked: readonly T[]): T[][] {
  const rounds: T[][] = [];
  const depth = new Map<string, number>();
  for (const one of asked) {
    const round = depth.get(one.userId) ?? 0;
    rounds[round] ??= [];
    rounds[round].push(one);
    depth.set(one.userId, round + 1);
  }
  return rounds;
}

/** Runs of segments whose windows begin at the same token, and where each begins: only within one can a row serve twice. */
function byWindow(segments: readonly EncodeSegment[]): { readonly at: number; readonly segments: EncodeSegment[] }[] {
  const runs: { readonly at: number; readonly segments: EncodeSegment[] }[] = [];
  for (const [at, segment] of segments.entries()) {
    const run = runs.at(-1);
    if (run !== undefined && run.segments[0]!.windowStart === segment.windowStart) run.segments.push(segment);
    else runs.push({ at, segments: [segment] });
  }
  return runs;
}
