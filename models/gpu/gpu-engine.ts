/**
 * The encoder whose KV cache lies on the GPU. It keeps the contract of `EncoderEngine`, and hands to one without a cache what the
 * GPU does not do: bulk encoding, dot products over the catalogue, windows that the pool has no room for.
 */
import type {
  CacheOutcome,
  CandidateRequest,
  CandidateResult,
  EncodedSegment,
  EncodeRequest,
  EncodeResult,
  ScoreRequest,
  ScoreResult,
} from '../../schemas/encoding.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { CandidateIndex } from '../catalogue/candidate-index.ts';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import { type Bundle, kvBytesPerRow } from '../hstu/bundle.ts';
import { judgeCacheability } from '../hstu/cacheability.ts';
import { prefillCost } from '../hstu/prefill-cost.ts';
import { cachePolicy } from '../kv-cache/cache-policy.ts';
import { DiskTier } from '../kv-cache/disk-tier.ts';
import { requireKvPrecision } from '../wasm/require-kv-precision.ts';
import { inMicroBatches } from '../worker/compute/candidate-scorer.ts';
import { checkCandidateRequest, checkEncodeRequest } from '../worker/compute/check-request.ts';
import { EncoderEngine, type EngineOptions, type EngineStats, oneOfEachUser } from '../worker/engine.ts';
import { GpuDevice, GpuFailure } from './device.ts';
import { GpuCache, type GpuCacheOptions } from './gpu-cache.ts';
import { GpuHistories, type GpuJob } from './gpu-histories.ts';
import { GpuPool } from './gpu-pool.ts';
import { GpuRun } from './gpu-run.ts';
import { poolWidth } from './graphs.ts';
import { HostTier } from './host-tier.ts';

export interface GpuEngineOptions extends EngineOptions {
  /** Host memory for the rows of users that the GPU has no room for, bytes. @default as `kvBudgetBytes` */
  readonly hostBudgetBytes?: number;
  /** The largest buffer asked of the device, bytes: a pool takes one a layer, and several pools beyond. @default 1 GiB */
  readonly maxBufferBytes?: number;
}

export interface GpuStats extends EngineStats {
  /** All that went from host to device, bytes. */
  readonly bytesUploaded: number;
  /** Of it K and V: those of restored users, nothing else. */
  readonly kvBytesUploaded: number;
  /** K and V that went back: those of spilled users. */
  readonly kvBytesDownloaded: number;
  /** K and V that runs wrote to the pool, on the device. */
  readonly kvBytesWritten: number;
  readonly spills: number;
  readonly restores: number;
  readonly hostUsers: number;
  readonly hostBytesUsed: number;
}

/** Rows a page: a user wastes half a page on average, and a page costs the host four bytes. */
const PAGE_LENGTH = 16;
/** Below this share of free pages users are copied to host memory, so that they need not be read when they must go. */
const SPILL_BELOW = 0.25;

export class GpuEngine {
  /** For fault tests. */
  readonly device = new GpuDevice();
  #bundle: Bundle;
  readonly #options: Required<Omit<GpuEngineOptions, 'provider' | 'disk'>>;
  readonly #cache: GpuCache;
  readonly #pool: GpuPool;
  readonly #host: HostTier;
  readonly #disk: DiskTier | undefined;
  readonly #run: GpuRun;
  readonly #histories: GpuHistories;
  /** Without a cache. */
  readonly #cpu: EncoderEngine;
  readonly #outcomes: Record<CacheOutcome, number> = { hit: 0, cold: 0, window: 0, diverged: 0, uncached: 0 };
  #segments = 0;
  #rowsComputed = 0;
  #spills = 0;

  /**
   * Nothing of the device is touched before the first request.
   *
   * @param cacheOf tests give a cache that is wrong on purpose, to show that the law would notice
   * @throws PipelineError `CONFIG_INVALID` for a bundle that only a full encode serves
   */
  constructor(bundle: Bundle, options: GpuEngineOptions, cacheOf = (of: GpuCacheOptions) => new GpuCache(of)) {
    const { verdict, reasons } = judgeCacheability(bundle.config);
    if (verdict === 're-encode')
      throw new PipelineError('CONFIG_INVALID', `bundle ${bundle.config.name} has no cache to keep: ${reasons.join('; ')}`);
    requireKvPrecision(bundle, options.kvPrecision ?? 'float32', 'webgpu');
    this.#bundle = bundle;
    this.#options = {
      pageLength: PAGE_LENGTH,
      prefillRows: 512,
      candidateRows: 128,
      cachePolicy: 'lru',
      kvPrecision: 'float32',
      hostBudgetBytes: options.kvBudgetBytes,
      maxBufferBytes: 2 ** 30,
      ...options,
    };
    const rowBytes = kvBytesPerRow(bundle.config);
    this.#cache = cacheOf({
      rows: Math.floor(options.kvBudgetBytes / rowBytes),
      maxBankRows: Math.floor(this.#options.maxBufferBytes / (4 * poolWidth(bundle.config))),
      pageLength: this.#options.pageLength,
      modelDigest: bundle.digest,
      rowBytes,
      policy: cachePolicy(this.#options.cachePolicy, prefillCost(bundle.config)),
    });
    this.#pool = new GpuPool(this.device, bundle.config, this.#cache.banks);
    this.#disk = options.disk && new DiskTier(options.disk);
    this.#host = new HostTier(this.#options.hostBudgetBytes, bundle.config.layers, this.#disk);
    this.#run = new GpuRun(bundle, this.device, this.#pool, this.#cache.banks);
    const parts = { cache: this.#cache, pool: this.#pool, host: this.#host, run: this.#run };
    this.#histories = new GpuHistories(bundle, parts, this.#options.prefillRows);
    this.#cpu = new EncoderEngine(bundle, { ...options, kvBudgetBytes: 0, disk: undefined });
  }

  get stats(): GpuStats {
    return {
      segments: this.#segments,
      rowsComputed: this.#rowsComputed,
      outcomes: { ...this.#outcomes },
      evictions: this.#cache.evictions,
      users: this.#cache.users,
      kvBytesUsed: this.#cache.bytesUsed,
      kvBytesBudget: this.#cache.bytesBudget,
      bytesUploaded: this.device.bytesUploaded,
      kvBytesUploaded: this.#pool.bytesUploaded,
      kvBytesDownloaded: this.#pool.bytesDownloaded,
      kvBytesWritten: this.#run.rowsWritten * kvBytesPerRow(this.#bundle.config),
      spills: this.#spills,
      restores: this.#histories.restores,
      hostUsers: this.#host.users,
      hostBytesUsed: this.#host.bytesUsed,
      disk: this.#disk?.stats,
      index: this.#cpu.stats.index,
    };
  }

  /**
   * Encodes every request; a user's segments in their order, different users together.
   *
   * @throws GpuFailure: nothing was answered, and all of it can be asked of the CPU
   */
  async encode(requests: readonly EncodeRequest[]): Promise<EncodeResult[]> {
    for (const request of requests) checkEncodeRequest(request, this.#bundle.config);
    const results = requests.map(({ userId, segments }) => ({ userId, segments: new Array<EncodedSegment>(segments.length) }));
    const asked = requests.flatMap(({ userId, segments }, request) =>
      segments.map((segment, at) => ({ userId, segment, request, at })),
    );
    for (const round of oneOfEachUser(asked))
      await this.#withJobs(`encoding of ${round.length} segment(s)`, async (prepare) => {
        const jobs: (GpuJob | null)[] = [];
        for (const { userId, segment } of round) jobs.push(await prepare(userId, segment));
        await this.#histories.compute(jobs.filter((job) => job !== null));
        for (const [i, { request, at, segment, userId }] of round.entries()) {
          const job = jobs[i]!;
          const encoded =
            job === null ? (await this.#cpu.encode([{ userId, segments: [segment] }]))[0]!.segments[0]! : finish(job);
          results[request]!.segments[at] = this.#counted(encoded);
        }
      });
    return results;
  }

  /** @throws GpuFailure as `encode` */
  async scoreCandidates(requests: readonly CandidateRequest[]): Promise<CandidateResult[]> {
    for (const request of requests) checkCandidateRequest(request, this.#bundle);
    const results = new Array<CandidateResult>(requests.length);
    for (const round of oneOfEachUser(requests.map((request, at) => ({ userId: request.userId, request, at }))))
      await this.#withJobs(`scoring of ${round.length} request(s)`, async (prepare) => {
        const jobs: (GpuJob | null)[] = [];
        for (const { request } of round) {
          const from = request.segment.entities.length - 1;
          jobs.push(from < 0 ? null : await prepare(request.userId, { ...request.segment, from }, true));
        }
        await this.#histories.compute(jobs.filter((job) => job !== null));
        for (const [i, { request, at }] of round.entries()) {
          const job = jobs[i]!;
          if (job === null) results[at] = (await this.#cpu.scoreCandidates([request]))[0]!;
          else {
            const judge = (part: Int32Array) => this.#run.judge(job.entry, request.segment, part);
            const judgement = await inMicroBatches(this.#bundle, this.#options.candidateRows, request, judge);
            const { rowsComputed, outcome } = finish(job);
            results[at] = { ...judgement, rowsComputed, outcome };
          }
          if (request.segment.entities.length > 0) this.#counted(results[at]);
        }
      });
    return results;
  }

  encodeInBulk(requests: readonly EncodeRequest[]): Promise<EncodeResult[]> {
    return this.#cpu.encodeInBulk(requests);
  }

  score(requests: readonly ScoreRequest[]): Promise<ScoreResult[]> {
    return this.#cpu.score(requests);
  }

  /** As `EncoderEngine.useCatalogue`. */
  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#bundle = { ...this.#bundle, catalogue };
    this.#run.useCatalogue(catalogue);
    this.#cpu.useCatalogue(catalogue);
  }

  /** As `EncoderEngine.useIndex`. */
  useIndex(index: CandidateIndex): void {
    this.#cpu.useIndex(index);
  }

  /** Who has rows in the cache, the last to go first: by `lru`, the most recently used. */
  cachedUsers(): string[] {
    return this.#cache.userIds();
  }

  /** Counts these as asked for, in this order: by `lru`, the last of them goes last. */
  touch(userIds: readonly string[]): void {
    for (const userId of userIds) this.#cache.touch(userId);
  }

  /** Drops a user's rows, on the device and beside it. Returns whether there were any. */
  forget(userId: string): boolean {
    const copied = this.#host.drop(userId);
    return this.#cache.free(userId) || copied;
  }

  /**
   * Copies one user, the next to be evicted, to host memory, where pages are getting scarce. For moments when nothing is asked:
   * an eviction itself copies nothing, so that no request waits for one; who was not copied in time is encoded again.
   *
   * @returns whether there may be more to do
   */
  async spillOne(): Promise<boolean> {
    if (this.#cache.banks.freePages >= SPILL_BELOW * this.#cache.banks.pages) return false;
    const rowBytes = kvBytesPerRow(this.#bundle.config);
    let behind = this.#cache.banks.freePages;
    for (const entry of this.#cache.entries()) {
      // As many as would bring the free pages back above the share.
      if (behind >= SPILL_BELOW * this.#cache.banks.pages) return false;
      behind += entry.pages.length;
      if (entry.length === 0 || this.#host.has(entry.userId, entry) || !this.#host.takes(entry.length * rowBytes)) continue;
      const { modelDigest, windowStart, length, entities, timesS, pageDigests, nextTimeS } = entry;
      const layers = await this.#pool.read(entry, 0, length);
      this.#host.put(entry.userId, { modelDigest, windowStart, length, entities, timesS, pageDigests, nextTimeS, layers });
      this.#spills += 1;
      return true;
    }
    return false;
  }

  /** A user's rows as they lie on the device, per layer `(length, W)`; undefined where none are held. */
  async snapshot(userId: string): Promise<readonly Float32Array[] | undefined> {
    const entry = this.#cache.touch(userId);
    return entry === undefined ? undefined : this.#pool.read(entry, 0, entry.length);
  }

  async release(): Promise<void> {
    await this.#disk?.close();
    await this.device.release();
    await this.#cpu.release();
  }

  #counted<Answer extends { readonly rowsComputed: number; readonly outcome: CacheOutcome }>(answer: Answer): Answer {
    this.#segments += 1;
    this.#rowsComputed += answer.rowsComputed;
    this.#outcomes[answer.outcome] += 1;
    return answer;
  }

  /** Lets go of the jobs' entries at the end; where the work fails, what it left half done is dropped. */
  async #withJobs(what: string, work: (prepare: GpuHistories['prepare']) => Promise<void>): Promise<void> {
    const jobs: GpuJob[] = [];
    try {
      await work(async (...segment) => {
        const job = await this.#histories.prepare(...segment);
        if (job !== null) jobs.push(job);
        return job;
      });
    } catch (cause) {
      for (const { entry } of jobs) this.forget(entry.userId);
      if (cause instanceof GpuFailure) throw cause;
      throw new PipelineError('ENCODER_FAILED', `${what} failed: ${messageOf(cause)}`, { cause });
    } finally {
      for (const { entry } of jobs) entry.pinned = false;
    }
  }
}

const finish = ({ rows, cached, outcome, segment }: GpuJob): EncodedSegment => ({
  rows,
  rowsComputed: segment.entities.length - cached,
  outcome,
});
