/** The KV cache whose rows lie on the GPU: who has which pages, which rows still hold, and who goes when room is wanted. */
import type { EncodeSegment } from '../../schemas/encoding.ts';
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
}

export class GpuCache {
  readonly banks: PagedBanks;
  readonly #options: GpuCacheOptions;
  /** Least recently used first. */
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

  /** Least recently used first. */
  entries(): IterableIterator<GpuEntry> {
    return this.#entries.values();
  }

  /** Most recently used first. */
  userIds(): string[] {
    return [...this.#entries.keys()].reverse();
  }

  /** The user's entry, now the most recently used. */
  touch(userId: string): GpuEntry | undefined {
    const entry = this.#entries.get(userId);
    if (entry !== undefined) {
      this.#entries.delete(userId);
      this.#entries.set(userId, entry);
    }
    return entry;
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
   * An entry with room for `rows` rows: the user's own with more pages, or a new one. Evicts the least recently used users of
   * its bank that no batch has pinned.
   *
   * @returns `null` when even that leaves no room: an ordinary answer
   */
  allocate(userId: string, rows: number): GpuEntry | null {
    const held = this.touch(userId);
    const bank = held?.bank ?? this.banks.emptiest();
    if (bank === undefined || !this.banks.couldHold(bank, rows)) return null;
    const entry = held ?? { ...noRows(this.#options.modelDigest), userId, bank, pages: [], pinned: false };
    const others = [...this.#entries.values()].filter((other) => other.bank === bank && other !== entry && !other.pinned);
    for (const victim of others) {
      if (this.banks.missing(entry, rows) <= 0) break;
      this.free(victim.userId);
      this.#evictions += 1;
    }
    if (this.banks.missing(entry, rows) > 0) return null;
    this.banks.grow(entry, rows);
    this.#entries.set(userId, entry);
    return entry;
  }

  /** Drops a user's rows. Returns whether there were any. */
  free(userId: string): boolean {
    const entry = this.#entries.get(userId);
    if (entry === undefined) return false;
    this.#entries.delete(userId);
    this.banks.free(entry);
    return true;
  }

  get #pageBytes(): number {
    return this.#options.pageLength * this.#options.rowBytes;
  }
}
