/**
 * Windows through the KV cache: computes only the rows that the cache does not hold, and keeps what is final. The law it obeys:
 * whatever the cache holds, the rows returned equal those of a full encode.
 */
import type { CacheOutcome, EncodedSegment, EncodeSegment } from '../../../schemas/encoding.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { judgeCacheability } from '../../hstu/cacheability.ts';
import type { KvCache, Reuse } from '../../kv-cache/kv-cache.ts';
import type { AttentionMemory } from '../../wasm/attention-memory.ts';
import { type Job, prefillBatches, stepBatches } from './encode-job.ts';
import { EncodeRun, type RowRange, type RunOutput } from './encode-run.ts';
import type { Sessions } from './sessions.ts';
import { StepRun } from './step-run.ts';

const OUTCOME_OF: Record<Reuse['because'], CacheOutcome> = {
  cold: 'cold',
  model: 'cold',
  window: 'window',
  diverged: 'diverged',
  intact: 'hit',
};

export class HistoryEncoder {
  readonly #bundle: Bundle;
  readonly #cache: KvCache;
  readonly #sessions: Sessions;
  readonly #run: EncodeRun;
  readonly #stepRun: StepRun;
  readonly #memory: AttentionMemory | undefined;
  readonly #prefillRows: number;
  /** False for a bundle that fails the cacheability lint: every segment is then encoded whole. */
  readonly #cacheable: boolean;
  readonly #outcomes: Record<CacheOutcome, number> = { hit: 0, cold: 0, window: 0, diverged: 0, uncached: 0 };
  #segments = 0;
  #rowsComputed = 0;

  /**
   * @param memory the kernel's, where the cache's rows lie in it; otherwise every step goes through the runtime
   * @param prefillRows rows encoded at once; a longer history is prefilled in chunks against its own cached rows
   */
  constructor(bundle: Bundle, cache: KvCache, memory: AttentionMemory | undefined, sessions: Sessions, prefillRows: number) {
    this.#bundle = bundle;
    this.#cache = cache;
    this.#sessions = sessions;
    this.#run = new EncodeRun(bundle);
    this.#stepRun = new StepRun(bundle, sessions);
    this.#memory = memory;
    this.#prefillRows = prefillRows;
    this.#cacheable = judgeCacheability(bundle.config).verdict !== 're-encode';
  }

  get stats() {
    return { segments: this.#segments, rowsComputed: this.#rowsComputed, outcomes: { ...this.#outcomes } };
  }

  /**
   * Finds out what the cache holds of this segment, and makes room for what will be kept. The entry stays pinned until the
   * caller lets go of it.
   *
   * @param forCandidates the rows must then be somewhere, in the cache or beside it
   */
  prepare(userId: string, segment: EncodeSegment, forCandidates = false): Job {
    const n = segment.entities.length;
    const rows = new Float32Array((n - segment.from) * this.#bundle.config.dimension);
    const job = { segment, userId, rows, forCandidates, newest: undefined };
    if (!this.#cacheable) return { ...job, entry: undefined, cached: 0, done: 0, outcome: 'uncached' };
    const held = this.#cache.touch(userId);
    const copy = held === undefined ? this.#cache.onDisk(userId) : undefined;
    const reuse = this.#cache.reuse(held ?? copy, segment);
    const cached = Math.min(reuse.rows, segment.from, n - 1);
    if (held !== undefined) this.#cache.truncate(held, cached);
    const entry = this.#cache.allocate(userId, Math.max(1, n - 1), copy && { ...copy, length: cached });
    if (entry === null) {
      if (held !== undefined) this.#cache.free(userId);
      const scratch = forCandidates || n > this.#prefillRows ? this.#cache.scratch(userId, Math.max(1, n - 1)) : undefined;
      return { ...job, entry: scratch, cached: 0, done: 0, outcome: 'uncached' };
    }
    entry.pinned = true;
    if (copy !== undefined) this.#cache.commit(entry, segment, cached);
    return { ...job, entry, cached, done: cached, outcome: OUTCOME_OF[reuse.because] };
  }

  /** Computes what is missing of every job, users together. */
  async compute(jobs: readonly Job[]): Promise<void> {
    const limit = this.#cacheable ? this.#prefillRows : Number.POSITIVE_INFINITY;
    const fresh = jobs.filter((job) => job.done === 0).sort((a, b) => a.segment.entities.length - b.segment.entities.length);
    for (const batch of prefillBatches(fresh, limit, this.#bundle.config)) {
      const ranges = batch.map((job) => ({ segment: job.segment, from: 0, to: Math.min(job.segment.entities.length, limit) }));
      this.#accept(batch, ranges, await this.#run.run(await this.#sessions.prefill(), ranges));
    }
    for (;;) {
      const open = jobs.filter((job) => job.done < job.segment.entities.length);
      if (open.length === 0) return;
      for (const { jobs: batch, workspace } of stepBatches(open, ({ entry }) => this.#memory?.reaching(entry!.extent))) {
        const ranges = batch.map((job) => ({
          segment: job.segment,
          from: job.done,
          to: Math.min(job.segment.entities.length, job.done + this.#prefillRows),
          past: job.entry!.extent,
        }));
        const output =
          workspace === undefined
            ? await this.#run.run(await this.#sessions.step(), ranges)
            : await this.#stepRun.run(workspace, ranges);
        this.#accept(batch, ranges, output);
      }
    }
  }

  /** What came of a computed job; counts it. */
  finish({ rows, cached, outcome, segment }: Job): EncodedSegment {
    this.#segments += 1;
    this.#outcomes[outcome] += 1;
    return { rows, rowsComputed: segment.entities.length - cached, outcome };
  }

  /** Takes the wanted output rows, and stores K/V of the rows that are final: all but a window's newest. */
  #accept(jobs: readonly Job[], ranges: readonly RowRange[], { y, k, v, at }: RunOutput): void {
    const { dimension: D, layers: L, heads: H, dqk, dv } = this.#bundle.config;
    for (const [b, job] of jobs.entries()) {
      const { segment } = job;
      const { from, to } = ranges[b]!;
      const first = at[b]!;
      const wanted = Math.max(from, segment.from);
      if (to > wanted)
        job.rows.set(y.subarray((first + wanted - from) * D, (first + to - from) * D), (wanted - segment.from) * D);
      const final = Math.min(to, segment.entities.length - 1);
      if (job.entry !== undefined) {
        for (let l = 0; l < L; l++) job.entry.extent.write(l, from, final - from, k[l]!, v[l]!, first);
        this.#cache.commit(job.entry, segment, final);
      }
      if (job.forCandidates && to > final) {
        const newest = first + final - from;
        const rowOf = (layers: readonly Float32Array[], width: number) =>
          layers.map((layer) => layer.slice(newest * width, (newest + 1) * width));
        job.newest = { k: rowOf(k, H * dqk), v: rowOf(v, H * dv) };
      }
      job.done = to;
      this.#rowsComputed += to - from;
    }
  }
}
