/** The KV cache whose rows lie on the GPU: who has which pages, which rows still hold, and who goes when room is wanted. */
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { type CachePolicy, victimsFor } from '../kv-cache/cache-policy.ts';
import { type CachedRows, commitRows, noRows, type Reuse, reusableRows, truncateRows } from '../kv-cache/cached-rows.ts';
import { type GpuPages, type GpuPagesOptions, PagedBanks } from './gpu-pages.ts';

export interface GpuEntry extends CachedRows, GpuPages {
  readonly userId: string;
  /** Not evicted while a batch works on it. */
  pinned: boolean;
}

export interface GpuCacheOptions extends GpuPagesOptions {
  readonly modelDigest: string;
  /** Bytes of a row, all layers. */
  readonly rowBytes: number;
  /** Who goes when room is wanted. */
  readonly policy: CachePolicy;
}

export class GpuCache {
  readonly banks: PagedBanks;
  readonly #options: GpuCacheOptions;
  readonly #entries = new Map<string, GpuEntry>();
  #evictions = 0;

  constructor(options: GpuCacheOptions) {
    this.#options = options;
    this.banks = new PagedBanks(options);
  }

  get users(): number {
    return this.#entries.size;
  }

  get evictions(): number {
    return this.#evictions;
  }

  get bytesUsed(): number {
    return (this.banks.pages - this.banks.freePages) * this.#pageBytes;
  }

  get bytesBudget(): number {
    return this.banks.pages * this.#pageBytes;
  }

  /** The first to go first. Nothing may be allocated or let go of before the iteration ends. */
  *entries(): Generator<GpuEntry> {
    for (const userId of this.#options.policy.order()) yield this.#entries.get(userId)!;
  }

  /** The last to go first: by the default policy, the most recently used. */
  userIds(): string[] {
    return [...this.#options.policy.order()].reverse();
  }

  /** The entry of a user that is asked for. */
  touch(userId: string): GpuEntry | undefined {
    this.#options.policy.asked(userId);
    return this.#entries.get(userId);
  }

  /** How many leading rows of an entry hold for this window. */
  reuse(held: CachedRows | undefined, segment: EncodeSegment): Reuse {
    return reusableRows(held, segment, this.#options.modelDigest);
  }

  /** Forgets the rows from `length` on. Nothing is cleared: rows that are not held are not read. */
  truncate(entry: GpuEntry, length: number): void {
    truncateRows(entry, length);
  }

  commit(entry: GpuEntry, segment: EncodeSegment, length: number): void {
    commitRows(entry, segment, length, this.#options.modelDigest);
  }

  /**
   * An entry with room for `rows` rows: the user's own with more pages, or a new one. Evicts whom the policy names, of the users
   * of its bank that no batch has pinned.
   *
   * @returns `null` when there is no room, or the policy has none for this user: an ordinary answer
   */
  allocate(userId: string, rows: number): GpuEntry | null {
    const held = this.#entries.get(userId);
    const bank = held?.bank ?? this.banks.emptiest();
    if (bank === undefined || !this.banks.couldHold(bank, rows)) return null;
    const entry = held ?? { ...noRows(this.#options.modelDigest), userId, bank, pages: [], pinned: false };
    if (!this.#makeRoom(entry, rows)) return null;
    this.banks.grow(entry, rows);
    this.#entries.set(userId, entry);
    this.#options.policy.held(userId, rows);
    return entry;
  }

  /** Evicts until the entry's bank has its pages; nobody, where that cannot be had or one of them is worth more than the user. */
  #makeRoom(entry: GpuEntry, rows: number): boolean {
    const { policy } = this.#options;
    const wanted = { userId: entry.userId, rows, missing: this.banks.missing(entry, rows) };
    const victims = victimsFor(policy, wanted, this.#mayGo(entry), ({ pages }) => pages.length);
    for (const { userId } of victims ?? []) {
      policy.evicted(userId);
      this.free(userId);
      this.#evictions += 1;
    }
    return victims !== undefined;
  }

  /** Of the entry's bank the first to go first, but for those whom a batch has pinned and the entry itself. */
  *#mayGo(entry: GpuEntry): Generator<GpuEntry> {
    for (const other of this.entries()) if (other.bank === entry.bank && other !== entry && !other.pinned) yield other;
  }

  /** Drops a user's rows. Returns whether there were any. */
  free(userId: string): boolean {
    const entry = this.#entries.get(userId);
    if (entry === undefined) return false;
    this.#entries.delete(userId);
    this.#options.policy.dropped(userId);
    this.banks.free(entry);
    return true;
  }

  get #pageBytes(): number {
    return this.#options.pageLength * this.#options.rowBytes;
  }
}
