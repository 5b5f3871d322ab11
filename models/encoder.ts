/** The encoder as the rest of the system sees it: users sharded over worker threads, each of which owns its users' KV cache. */
import type {
  CacheOutcome,
  CallTerms,
  CandidateRequest,
  CandidateResult,
  DiskTierStats,
  EncodeRequest,
  EncodeResult,
  EncoderLoad,
  EncoderRun,
  EncoderStats,
  ListIndexStats,
  ScoreRequest,
  ScoreResult,
} from '../schemas/encoding.ts';
import { messageOf, PipelineError } from '../schemas/errors.ts';
import type { CatalogueOverlay } from './catalogue/overlay.ts';
import { chooseProvider, type ProviderChoice, type ProviderReport } from './gpu/choose-provider.ts';
import { GpuClaim } from './gpu/gpu-claim.ts';
import type { Bundle } from './hstu/bundle.ts';
import type { CachePolicyName } from './kv-cache/cache-policy.ts';
import type { DiskTierOptions } from './kv-cache/disk-tier.ts';
import type { KvPrecision } from './kv-cache/extent.ts';
import { CallScheduler, type ScheduleOptions } from './schedule/call-scheduler.ts';
import { joinLoads } from './schedule/join-loads.ts';
import type { ScheduledName } from './schedule/waiting-call.ts';
import { requireKvPrecision } from './wasm/require-kv-precision.ts';
import { type IndexReport, ListIndex, type ListIndexOptions } from './worker/index/list-index.ts';
import type { Calls } from './worker/protocol.ts';
import { spawnEncoderWorker } from './worker/spawn.ts';
import { WorkerHandle } from './worker/worker-handle.ts';

export interface EncoderOptions {
  /** Threads. @default 1 */
  readonly workers?: number;
  /** Bytes of KV cache, all workers together. @default 256 MiB */
  readonly kvBudgetBytes?: number;
  /** Rows a page of the KV pool. @default 8 */
  readonly pageLength?: number;
  /** Rows encoded at once in a prefill. @default 512 */
  readonly prefillRows?: number;
  /** Candidates judged at once. @default 128 */
  readonly candidateRows?: number;
  /** What it runs on; `auto` takes a GPU that works and is faster. One worker owns a GPU, whatever `workers` says. @default 'cpu' */
  readonly provider?: ProviderChoice;
  /** Host memory for the rows of users that a GPU has no room for, bytes. @default as `kvBudgetBytes` */
  readonly hostBudgetBytes?: number;
  /** Who leaves the KV cache when room is wanted, and who is not let in. @default 'lru' */
  readonly cachePolicy?: CachePolicyName;
  /** `bfloat16`: half the bytes a user, and answers that are off by rounding. For `cpu`. @default 'float32': as computed */
  readonly kvPrecision?: KvPrecision;
  /** Where the rows of users that memory has no room for are kept, all workers together. @default nowhere: they are encoded anew */
  readonly disk?: Pick<DiskTierOptions, 'folder' | 'budgetBytes'> | undefined;
  /** Told when a thread's disk fails: it is used no more. */
  readonly onDiskFailure?: (message: string) => void;
  /** Who is next where calls wait for a thread, and how many go together. */
  readonly schedule?: ScheduleOptions;
  /** Told of everything that a thread is given. */
  readonly onRun?: (run: EncoderRun) => void;
  /** Told what it runs on and why, at the start and when that changes. */
  readonly onProvider?: (report: ProviderReport) => void;
  /** By which lists of a large vocabulary are made, once it is there. @default lists are exact */
  readonly index?: ListIndexOptions;
  /** Told when the index is in use, or why it is not. */
  readonly onIndex?: (report: IndexReport) => void;
}

/**
 * Exact incremental HSTU encoding. Answers always equal a full encode of the request's window; the cache only decides how
 * many rows that takes. Calls of one user are carried out in the order they are made; those of different users by their terms, and
 * together where several wait (`CallScheduler`).
 */
export class HstuEncoder {
  readonly #workers: readonly WorkerHandle[];
  /** In front of each worker. */
  readonly #schedulers: readonly CallScheduler[];
  readonly #claim = new GpuClaim();
  #provider: ProviderReport;
  #bundle: Bundle;
  #nextScorer = 0;
  readonly #index: ListIndex | undefined;
  /** Of the index that is in use. */
  #indexFile: string | undefined;

  /** @throws PipelineError `CONFIG_INVALID` for a `kvPrecision` that the bundle or the provider has no kernel for */
  constructor(
    bundle: Bundle,
    { workers = 1, kvBudgetBytes = 256 * 1024 * 1024, schedule, onRun, onProvider, ...given }: EncoderOptions = {},
  ) {
    const { provider: choice = 'cpu', index, onIndex, disk, onDiskFailure, ...more } = given;
    this.#bundle = bundle;
    requireKvPrecision(bundle, given.kvPrecision ?? 'float32', choice);
    this.#provider = chooseProvider(choice);
    if (this.#provider.provider === 'webgpu' && !this.#claim.take())
      this.#provider = { provider: 'cpu', reason: 'the GPU belongs to another encoder of this process' };
    const threads = this.#provider.provider === 'webgpu' ? 1 : workers;
    const options = {
      ...more,
      kvBudgetBytes: Math.floor(kvBudgetBytes / threads),
      disk: disk && { ...disk, budgetBytes: Math.floor(disk.budgetBytes / threads) },
    };
    const report = (provider: ProviderReport) => {
      this.#provider = provider;
      onProvider?.(provider);
    };
    const spawn = () => {
      const { provider } = this.#provider;
      // A second thread on the GPU would end the process, and the first one's death may have left it there.
      if (provider === 'webgpu' && !this.#claim.use())
        report({ provider: 'cpu', reason: 'the thread that owned the GPU died; its caches are gone' });
      return spawnEncoderWorker({
        bundle: withoutFields(this.#bundle),
        options,
        provider: this.#provider.provider,
        index: this.#indexFile,
      });
    };
    this.#workers = Array.from(
      { length: threads },
      (_, i) => new WorkerHandle(`encoder worker ${i}`, spawn, { onProvider: report, onDiskFailure }),
    );
    this.#schedulers = this.#workers.map((worker) => {
      const send = (name: ScheduledName, requests: readonly unknown[]) => worker.call(name, requests as never);
      return new CallScheduler({ send, onRun }, schedule);
    });
    onProvider?.(this.#provider);
    this.#index = index && ListIndex.of(bundle, index);
    void this.#index?.make().then(async (report) => {
      if (report !== undefined) onIndex?.(await this.#useIndex(report));
    });
  }

  /** What it runs on now, and why. */
  get provider(): ProviderReport {
    return this.#provider;
  }

  /**
   * One result a request, in request order.
   *
   * @throws PipelineError `WORKER_CRASHED` (retriable: the request holds all that is needed to try again), `ENCODER_FAILED`; by
   *   the terms `ENCODER_BUSY` (retriable), `DEADLINE_PASSED`
   */
  encode(requests: readonly EncodeRequest[], terms?: CallTerms): Promise<readonly EncodeResult[]> {
    return this.#byUser('encode', requests, terms);
  }

  /**
   * The same answers for a backfill, whose users come once: no cache, one pass a window, many users together.
   *
   * @throws PipelineError as `encode`; `ENCODER_FAILED` for a bundle that only a full encode serves
   */
  encodeInBulk(requests: readonly EncodeRequest[], terms?: CallTerms): Promise<readonly EncodeResult[]> {
    return this.#byUser('encodeInBulk', requests, terms);
  }

  /**
   * Judges candidates against their users' windows with the bundle's task heads, one result a request, in request order. The
   * windows go through the users' KV caches as in `encode`; nothing of a candidate is stored.
   *
   * @throws PipelineError as `encode`; `ENCODER_FAILED` where the bundle has no heads or a candidate is no row of its table
   */
  scoreCandidates(requests: readonly CandidateRequest[], terms?: CallTerms): Promise<readonly CandidateResult[]> {
    return this.#byUser('scoreCandidates', requests, terms);
  }

  /** Ranks and top-K, one result a request, in request order. Stateless: any worker answers. */
  async score(requests: readonly ScoreRequest[], terms?: CallTerms): Promise<readonly ScoreResult[]> {
    if (requests.length === 0) return [];
    return this.#schedulers[this.#nextScorer++ % this.#schedulers.length]!.submit('score', requests, terms);
  }

  /**
   * What is asked from now on, of any thread and of those that take the place of a dead one, is answered by this catalogue; what
   * was asked before, by the one before. Cached rows have nothing of it and stay.
   */
  async useCatalogue(catalogue: CatalogueOverlay): Promise<void> {
    const { fields: _, ...listed } = catalogue;
    this.#bundle = { ...this.#bundle, catalogue: listed };
    for (const scheduler of this.#schedulers) scheduler.flush();
    const told = await Promise.allSettled(this.#workers.map((worker) => worker.call('useCatalogue', listed)));
    // A thread that died is followed by one that is started with it.
    for (const one of told) if (one.status === 'rejected' && !isCrash(one.reason)) throw one.reason;
  }

  async #useIndex(report: IndexReport): Promise<IndexReport> {
    if ('failed' in report) return report;
    this.#indexFile = this.#index!.file;
    const told = await Promise.allSettled(this.#workers.map((worker) => worker.call('useIndex', this.#indexFile!)));
    // A thread that died is followed by one that is started with it.
    const failed = told.find((one) => one.status === 'rejected' && !isCrash(one.reason));
    return failed === undefined ? report : { failed: messageOf((failed as PromiseRejectedResult).reason) };
  }

  /** Drops a user's cached rows. Returns whether there were any. */
  forget(userId: string): Promise<boolean> {
    const shard = shardOf(userId, this.#workers.length);
    this.#schedulers[shard]!.flush(userId);
    return this.#workers[shard]!.call('forget', userId);
  }

  /** Who has rows in the cache, most recently used first; of several workers in turn, which is nearly so. */
  async cachedUsers(): Promise<string[]> {
    const lists = await Promise.all(this.#workers.map((worker) => worker.call('cachedUsers', null)));
    const longest = Math.max(...lists.map(({ length }) => length));
    return Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list[i] ?? [])).flat();
  }

  /** Makes these the most recently used, the last of them most of all: the first to be evicted are the others. */
  async touch(userIds: readonly string[]): Promise<void> {
    const parts = this.#workers.map((_, shard) => userIds.filter((userId) => shardOf(userId, this.#workers.length) === shard));
    await Promise.all(this.#workers.map((worker, shard) => worker.call('touch', parts[shard]!)));
  }

  async stats(): Promise<EncoderStats> {
    const all = await Promise.all(this.#workers.map((worker) => worker.call('stats', null)));
    const sum = (pick: (stats: (typeof all)[number]) => number) => sumOf(all, pick);
    const outcomes = (['hit', 'cold', 'window', 'diverged', 'uncached'] as const).map(
      (outcome) => [outcome, sum((stats) => stats.outcomes[outcome])] as const,
    );
    return {
      workers: all.length,
      segments: sum((stats) => stats.segments),
      rowsComputed: sum((stats) => stats.rowsComputed),
      outcomes: Object.fromEntries(outcomes) as Record<CacheOutcome, number>,
      evictions: sum((stats) => stats.evictions),
      restarts: sumOf(this.#workers, (worker) => worker.restarts),
      users: sum((stats) => stats.users),
      kvBytesUsed: sum((stats) => stats.kvBytesUsed),
      kvBytesBudget: sum((stats) => stats.kvBytesBudget),
      ...diskStatsOf(all.flatMap(({ disk }) => disk ?? [])),
      ...indexStatsOf(all.flatMap(({ index }) => index ?? [])),
    };
  }

  /** Sends each user's requests to the worker that holds the user's cache; answers in request order. */
  async #byUser<Name extends ByUser>(
    name: Name,
    requests: Calls[Name]['request'],
    terms: CallTerms | undefined,
  ): Promise<readonly Calls[Name]['response'][number][]> {
    if (requests.length === 0) return [];
    if (this.#workers.length === 1) return this.#schedulers[0]!.submit(name, requests, terms);
    const shards = new Map<number, number[]>();
    for (const [i, { userId }] of requests.entries()) {
      const shard = shardOf(userId, this.#workers.length);
      const members = shards.get(shard);
      if (members === undefined) shards.set(shard, [i]);
      else members.push(i);
    }
    const results = new Array<Calls[Name]['response'][number]>(requests.length);
    const calls = [...shards].map(async ([shard, members]) => {
      const part = members.map((i) => requests[i]!) as unknown as Calls[Name]['request'];
      const answers = await this.#schedulers[shard]!.submit(name, part, terms);
      for (const [at, i] of members.entries()) results[i] = answers[at]!;
    });
    const outcomes = await Promise.allSettled(calls);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    return results;
  }

  /** What waits for its turn, and what was turned away. */
  get load(): EncoderLoad {
    return joinLoads(this.#schedulers.map(({ load }) => load));
  }

  async close(): Promise<void> {
    for (const scheduler of this.#schedulers) scheduler.flush();
    await Promise.all([...this.#workers.map((worker) => worker.close()), this.#index?.close()]);
    this.#claim.release();
  }

  /** Ends one worker thread as a crash would. For fault tests. */
  crash(worker = 0): Promise<void> {
    return this.#workers[worker]!.kill();
  }
}

/** Threads are told which rows are allowed, not why. */
function withoutFields({ catalogue, ...bundle }: Bundle): Bundle {
  if (catalogue === undefined) return bundle;
  const { fields: _, ...listed } = catalogue;
  return { ...bundle, catalogue: listed };
}

const isCrash = (reason: unknown): boolean => reason instanceof PipelineError && reason.code === 'WORKER_CRASHED';

const sumOf = <One>(all: readonly One[], pick: (one: One) => number): number => all.reduce((total, one) => total + pick(one), 0);

function diskStatsOf(all: readonly DiskTierStats[]): Pick<EncoderStats, 'disk'> {
  if (all.length === 0) return {};
  const sum = (key: keyof DiskTierStats) => sumOf(all, (stats) => stats[key]);
  return {
    disk: {
      users: sum('users'),
      bytesUsed: sum('bytesUsed'),
      bytesBudget: sum('bytesBudget'),
      spills: sum('spills'),
      restores: sum('restores'),
      skipped: sum('skipped'),
      corrupt: sum('corrupt'),
    },
  };
}

/** Of all threads together, which have one index between them. */
function indexStatsOf(all: readonly ListIndexStats[]): Pick<EncoderStats, 'index'> {
  if (all.length === 0) return {};
  const sum = (pick: (stats: ListIndexStats) => number) => sumOf(all, pick);
  const [lists, fellBack] = [sum((stats) => stats.lists), sum((stats) => stats.fellBack)];
  return {
    index: { rows: all[0]!.rows, lists, fellBack, wanted: sum(({ wanted }) => wanted), found: sum(({ found }) => found) },
  };
}

type ByUser = 'encode' | 'encodeInBulk' | 'scoreCandidates';

/** FNV-1a over the UTF-16 code units (Fowler, Noll and Vo; public domain). */
function shardOf(userId: string, shards: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < userId.length; i++) hash = Math.imul(hash ^ userId.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % shards;
}
