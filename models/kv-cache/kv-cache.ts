/**
 * The KV cache of one encoder worker: which rows of which user are held, where, and whether they may still be used.
 *
 * Holds FINAL rows only (rows whose next event is known). A plain data structure: no sessions, no threads, no clock.
 */

import type { EncodeSegment } from '../../schemas/encoding.ts';
import { kvBytesPerRow } from '../hstu/bundle.ts';
import { type CachePolicy, LruPolicy, victimsFor } from './cache-policy.ts';
import { type CachedRows, commitRows, noRows, type Reuse, reusableRows, truncateRows } from './cached-rows.ts';
import type { DiskCopy, DiskTier } from './disk-tier.ts';
import { Extent, type KvShape } from './extent.ts';
import { PagePool, type PageRun, type PoolMemory } from './page-pool.ts';

export type { Reuse };

export interface KvCacheOptions {
  readonly shape: KvShape;
  /** Identity of the model whose rows these are. */
  readonly modelDigest: string;
  /** Bytes for K and V in all. */
  readonly budgetBytes: number;
  /** Rows a page. */
  readonly pageLength: number;
  /** Rows that a user can need at most. */
  readonly maxRows: number;
  /** Where the rows lie. @default arrays of their own */
  readonly memory?: PoolMemory | undefined;
  /** Who goes when room is wanted. @default the least recently used */
  readonly policy?: CachePolicy | undefined;
  /** Where those who go are kept. @default nowhere */
  readonly disk?: DiskTier | undefined;
}

/**
 * Share of the pool that is free, in pieces, before it is compacted. Compaction moves the whole pool, so it must pay for many users:
 * with every user it would copy gigabytes a miss.
 */
const FREE_WHEN_COMPACTED = 1 / 16;

/** One user's cached rows and what they were computed from. */
export interface KvEntry extends CachedRows {
  readonly userId: string;
  extent: Extent;
  /** Pages lent by the pool; undefined for rows held outside it for one encode. */
  run: PageRun | undefined;
  /** Not evicted while a batch works on it. */
  pinned: boolean;
}

export class KvCache {
  readonly #options: KvCacheOptions;
  readonly #pool: PagePool;
  readonly #policy: CachePolicy;
  readonly #entries = new Map<string, KvEntry>();
  readonly #capacities: readonly number[];
  #evictions = 0;

  constructor(options: KvCacheOptions) {
    this.#options = options;
    const floatsPerPage = options.pageLength * rowFloats(options.shape);
    this.#pool = new PagePool(Math.floor(options.budgetBytes / (4 * floatsPerPage)), floatsPerPage, options.memory);
    this.#policy = options.policy ?? new LruPolicy();
    this.#capacities = capacityClasses(options.pageLength, options.maxRows);
  }

  get users(): number {
    return this.#entries.size;
  }

  get evictions(): number {
    return this.#evictions;
  }

  get bytesUsed(): number {
    return 4 * (this.#pool.pages - this.#pool.freePages) * this.#pool.floatsPerPage;
  }

  get bytesBudget(): number {
    return 4 * this.#pool.pages * this.#pool.floatsPerPage;
  }

  /** The last to go first: by the default policy, the most recently used. */
  userIds(): string[] {
    return [...this.#policy.order()].reverse();
  }

  /** The entry of a user that is asked for. */
  touch(userId: string): KvEntry | undefined {
    this.#policy.asked(userId);
    return this.#entries.get(userId);
  }

  /** What the disk has of a user who is not held; good until the next one is asked for. */
  onDisk(userId: string): DiskCopy | undefined {
    return this.#options.disk?.get(userId);
  }

  /** How many leading rows of an entry, or of a copy, hold for this window. */
  reuse(entry: CachedRows | undefined, segment: EncodeSegment): Reuse {
    return reusableRows(entry, segment, this.#options.modelDigest);
  }

  /**
   * An entry with room for `rows` rows: the user's own, moved to a longer run of pages when it has outgrown its run, or a new
   * one. Evicts whom the policy names, of the users that no batch has pinned.
   *
   * @param copy of a user who is not held: its first `length` rows are taken over
   * @returns `null` when there is no room, or the policy has none for this user: an ordinary answer, the caller computes without
   *   a cache
   */
  allocate(userId: string, rows: number, copy?: Pick<DiskCopy, 'rows' | 'length'>): KvEntry | null {
    const existing = this.#entries.get(userId);
    const capacity = this.capacityFor(rows);
    if (existing !== undefined && existing.extent.capacity >= rows) {
      this.#policy.held(userId, existing.extent.capacity);
      return existing;
    }
    const run = this.#lend(userId, capacity);
    if (run === null) return null;
    this.#policy.held(userId, capacity);
    const extent = new Extent(this.#options.shape, capacity, this.#pool.view(run));
    if (copy === undefined) extent.copyFrom(existing?.extent, existing?.length ?? 0);
    else extent.copyFrom(this.#extentOf(copy.rows), copy.length);
    if (existing !== undefined) {
      if (existing.run !== undefined) this.#pool.free(existing.run);
      existing.run = run;
      existing.extent = extent;
      return existing;
    }
    const entry = emptyEntry(userId, this.#options.modelDigest, extent, run);
    this.#entries.set(userId, entry);
    return entry;
  }

  /** Rows outside the pool, for one encode that the pool has no room for. Not remembered. */
  scratch(userId: string, rows: number): KvEntry {
    const capacity = this.capacityFor(rows);
    const shape = { ...this.#options.shape, precision: 'float32' } as const;
    const extent = new Extent(shape, capacity, new Float32Array(capacity * rowFloats(shape)));
    return emptyEntry(userId, this.#options.modelDigest, extent, undefined);
  }

  /** Forgets the rows from `length` on. */
  truncate(entry: KvEntry, length: number): void {
    if (length >= entry.length) return;
    entry.extent.clear(length, entry.length);
    truncateRows(entry, length);
  }

  /** Declares the rows up to `length` final, computed from this window's tokens. */
  commit(entry: KvEntry, segment: EncodeSegment, length: number): void {
    commitRows(entry, segment, length, this.#options.modelDigest);
  }

  /** Drops a user's rows, also those on the disk. Returns whether there were any. */
  free(userId: string): boolean {
    const wasOnDisk = this.#options.disk?.drop(userId) ?? false;
    return this.#release(userId) || wasOnDisk;
  }

  /** Rows a run for `rows` rows has room for: few distinct sizes, so that users of one size share a batch. */
  capacityFor(rows: number): number {
    const fitting = this.#capacities.find((capacity) => capacity >= rows);
    if (fitting !== undefined) return fitting;
    return Math.ceil(rows / this.#options.pageLength) * this.#options.pageLength;
  }

  /** Room for `capacity` rows of a user, beside what it has. */
  #lend(userId: string, capacity: number): PageRun | null {
    const pages = capacity / this.#options.pageLength;
    if (pages > this.#pool.longestRun) return null;
    const worthMoving = Math.max(pages, Math.floor(FREE_WHEN_COMPACTED * this.#pool.pages));
    for (let wanted = pages; ; wanted = this.#pool.freePages + 1) {
      const made = this.#makeRoom(userId, capacity, wanted);
      const { freePages } = this.#pool;
      // Enough is free, but not together: one more user goes, until so much is free that moving all the others is worth it.
      const run =
        this.#pool.allocate(pages) ?? (freePages >= (made ? worthMoving : pages) ? this.#allocateCompacted(pages) : null);
      if (run !== null || !made) return run;
    }
  }

  /** Evicts until so many pages are free; nobody, where that cannot be had or one of them is worth more than the user. */
  #makeRoom(userId: string, rows: number, pages: number): boolean {
    const wanted = { userId, rows, missing: pages - this.#pool.freePages };
    const victims = victimsFor(this.#policy, wanted, this.#mayGo(userId), ({ run }) => run!.count);
    for (const victim of victims ?? []) this.#evict(victim);
    return victims !== undefined;
  }

  /** The first to go first, but for those whom a batch has pinned and the user itself. */
  *#mayGo(userId: string): Generator<KvEntry> {
    for (const other of this.#policy.order()) {
      const entry = this.#entries.get(other)!;
      if (!entry.pinned && other !== userId) yield entry;
    }
  }

  /** Rows as they were evicted. */
  #extentOf({ buffer, byteOffset, byteLength }: Uint8Array): Extent {
    const { shape } = this.#options;
    const floats = new Float32Array(buffer, byteOffset, byteLength / 4);
    return new Extent(shape, floats.length / rowFloats(shape), floats);
  }

  #evict(entry: KvEntry): void {
    this.#policy.evicted(entry.userId);
    this.#options.disk?.put(entry.userId, entry, [this.#pool.view(entry.run!)]);
    this.#release(entry.userId);
    this.#evictions += 1;
  }

  #release(userId: string): boolean {
    const entry = this.#entries.get(userId);
    if (entry === undefined) return false;
    this.#entries.delete(userId);
    this.#policy.dropped(userId);
    if (entry.run !== undefined) this.#pool.free(entry.run);
    return true;
  }

  #allocateCompacted(pages: number): PageRun | null {
    this.#compact();
    return this.#pool.allocate(pages);
  }

  #compact(): void {
    const held = [...this.#entries.values()].filter((entry) => entry.run !== undefined);
    const moved = this.#pool.compact(held.map((entry) => entry.run!));
    for (const [i, entry] of held.entries()) {
      entry.run = moved[i]!;
      entry.extent = new Extent(this.#options.shape, entry.extent.capacity, this.#pool.view(entry.run));
    }
  }
}

/** Of a row, in the pool's unit of four bytes. */
const rowFloats = (shape: KvShape): number => kvBytesPerRow(shape) / 4;

const emptyEntry = (userId: string, modelDigest: string, extent: Extent, run: PageRun | undefined): KvEntry => ({
  ...noRows(modelDigest),
  userId,
  extent,
  run,
  pinned: false,
});

/** Run sizes grow by an eighth, in whole pages: copying on growth and the unused tail both stay near a tenth. */
function capacityClasses(pageLength: number, maxRows: number): number[] {
  const ceil = (rows: number) => Math.ceil(rows / pageLength) * pageLength;
  const classes = [pageLength];
  for (let capacity = pageLength; capacity < maxRows; ) {
    capacity = Math.min(ceil(maxRows), Math.max(capacity + pageLength, ceil(capacity * 1.125)));
    classes.push(capacity);
  }
  return classes;
}
