/**
 * Windows through the cache on the GPU: computes only the rows that it does not hold and keeps, there, what is final. The law is
 * the CPU's: whatever the cache holds, the rows returned equal those of a full encode.
 */
import type { CacheOutcome, EncodeSegment } from '../../schemas/encoding.ts';
import type { Bundle } from '../hstu/bundle.ts';
import type { Reuse } from '../kv-cache/cached-rows.ts';
import type { GpuCache, GpuEntry } from './gpu-cache.ts';
import type { GpuPool } from './gpu-pool.ts';
import type { GpuRange, GpuRun } from './gpu-run.ts';
import { poolWidth } from './graphs.ts';
import type { HostTier } from './host-tier.ts';
import { roundUp } from './round-up.ts';

export interface GpuJob {
  readonly segment: EncodeSegment;
  readonly entry: GpuEntry;
  /** Rows held before. */
  readonly cached: number;
  /** Rows done, cached or computed. */
  done: number;
  readonly outcome: CacheOutcome;
  /** Output rows from `segment.from` on: `(n - from, D)`. */
  readonly rows: Float32Array;
  /** Whether the newest row is written to the pool too, behind those that are held: candidates attend to it. */
  readonly forCandidates: boolean;
}

const OUTCOME_OF: Record<Reuse['because'], CacheOutcome> = {
  cold: 'cold',
  model: 'cold',
  window: 'window',
  diverged: 'diverged',
  intact: 'hit',
};
/** Floats that the rows read by one run, or its score matrices, may take: 64 MiB. */
const RUN_FLOATS = 16 * 1024 * 1024;
const MAX_USERS = 64;

export class GpuHistories {
  readonly #bundle: Bundle;
  readonly #cache: GpuCache;
  readonly #pool: GpuPool;
  readonly #host: HostTier;
  readonly #run: GpuRun;
  readonly #prefillRows: number;
  #restores = 0;

  constructor(
    bundle: Bundle,
    parts: { readonly cache: GpuCache; readonly pool: GpuPool; readonly host: HostTier; readonly run: GpuRun },
    prefillRows: number,
  ) {
    this.#bundle = bundle;
    this.#cache = parts.cache;
    this.#pool = parts.pool;
    this.#host = parts.host;
    this.#run = parts.run;
    this.#prefillRows = prefillRows;
  }

  /** Users that came back from host memory or disk. */
  get restores(): number {
    return this.#restores;
  }

  /**
   * Finds out what is held of this segment, on the device or beside it, and makes room. The entry stays pinned until the caller
   * lets go of it.
   *
   * @returns `null` where there is no room: nothing is held of this user then
   */
  async prepare(userId: string, segment: EncodeSegment, forCandidates = false): Promise<GpuJob | null> {
    const n = segment.entities.length;
    const held = this.#cache.touch(userId);
    const copy = held === undefined ? this.#host.get(userId) : undefined;
    const reuse = this.#cache.reuse(held ?? copy, segment);
    const cached = Math.min(reuse.rows, segment.from, n - 1);
    if (held !== undefined) this.#cache.truncate(held, cached);
    const entry = this.#cache.allocate(userId, Math.max(1, forCandidates ? n : n - 1));
    if (entry === null) {
      this.#cache.free(userId);
      return null;
    }
    entry.pinned = true;
    if (copy !== undefined && cached > 0) {
      await this.#pool.restore(entry, cached, copy.layers);
      this.#cache.commit(entry, segment, cached);
      this.#restores += 1;
    }
    const rows = new Float32Array((n - segment.from) * this.#bundle.config.dimension);
    return { segment, entry, cached, done: cached, outcome: OUTCOME_OF[reuse.because], rows, forCandidates };
  }

  /** Computes what is missing of every job, users together. */
  async compute(jobs: readonly GpuJob[]): Promise<void> {
    for (;;) {
      const open = jobs.filter((job) => job.done < job.segment.entities.length);
      if (open.length === 0) return;
      for (const batch of this.#batches(open)) {
        const ranges = batch.map((job) => this.#next(job));
        const { y, T } = await this.#run.encode(ranges);
        for (const [b, job] of batch.entries()) this.#accept(job, ranges[b]!, y, b * T);
      }
    }
  }

  #next({ segment, done, entry, forCandidates }: GpuJob): GpuRange {
    const n = segment.entities.length;
    return { segment, from: done, to: Math.min(n, done + this.#prefillRows), held: entry, keepTo: forCandidates ? n : n - 1 };
  }

  /** @param at row of `y` that the range begins at */
  #accept(job: GpuJob, { from, to }: GpuRange, y: Float32Array, at: number): void {
    const { dimension: D } = this.#bundle.config;
    const { segment } = job;
    const wanted = Math.max(from, segment.from);
    if (to > wanted) job.rows.set(y.subarray((at + wanted - from) * D, (at + to - from) * D), (wanted - segment.from) * D);
    this.#cache.commit(job.entry, segment, Math.min(to, segment.entities.length - 1));
    job.done = to;
  }

  /** Users of one bank with about as many new rows and about as many cached ones, as many as a run may hold. */
  *#batches(jobs: readonly GpuJob[]): Generator<GpuJob[]> {
    const groups = new Map<string, GpuJob[]>();
    for (const job of jobs) {
      const key = [job.entry.bank, this.#newRows(job), job.done > 0].join();
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [job]);
      else group.push(job);
    }
    for (const group of groups.values()) {
      group.sort((a, b) => a.done - b.done);
      let batch: GpuJob[] = [];
      for (const job of group) {
        if (batch.length > 0 && (!this.#fits(batch.length + 1, job) || roundUp(job.done) > 2 * roundUp(batch[0]!.done))) {
          yield batch;
          batch = [];
        }
        batch.push(job);
      }
      yield batch;
    }
  }

  /** @param longest of the batch: it decides what the others are padded to */
  #fits(users: number, longest: GpuJob): boolean {
    const { heads, layers } = this.#bundle.config;
    const [T, S] = [this.#newRows(longest), roundUp(longest.done)];
    const scores = T * (T + S) * (heads + layers);
    return users <= MAX_USERS && users * Math.max(scores, S * poolWidth(this.#bundle.config)) <= RUN_FLOATS;
  }

  #newRows({ segment, done }: GpuJob): number {
    return roundUp(Math.min(segment.entities.length - done, this.#prefillRows));
  }
}
