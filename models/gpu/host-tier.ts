/** Rows of users that the GPU has no room for, in host memory and, below it, on disk: a copy to the device instead of a prefill. */
import type { CachedRows } from '../kv-cache/cached-rows.ts';
import type { DiskTier } from '../kv-cache/disk-tier.ts';

export interface HostCopy extends CachedRows {
  /** Per layer `(length, W)`. */
  readonly layers: readonly Float32Array[];
}

export class HostTier {
  readonly #budgetBytes: number;
  readonly #layers: number;
  readonly #disk: DiskTier | undefined;
  /** Least recently written first. */
  readonly #copies = new Map<string, HostCopy>();
  #bytes = 0;

  /** @param disk where those go that host memory has no room for */
  constructor(budgetBytes: number, layers: number, disk?: DiskTier) {
    this.#budgetBytes = budgetBytes;
    this.#layers = layers;
    this.#disk = disk;
  }

  get users(): number {
    return this.#copies.size;
  }

  get bytesUsed(): number {
    return this.#bytes;
  }

  /** Whether there is a copy of just these rows. */
  has(userId: string, held: CachedRows): boolean {
    const copy = this.#copies.get(userId);
    if (copy !== undefined) return copy.length === held.length && copy.entities === held.entities;
    return this.#disk?.has(userId, held) ?? false;
  }

  /** A user's copy; good until the next is asked for. */
  get(userId: string): HostCopy | undefined {
    const copy = this.#copies.get(userId) ?? this.#disk?.get(userId);
    if (copy === undefined || 'layers' in copy) return copy;
    const { buffer, byteOffset, byteLength } = copy.rows;
    const floats = byteLength / 4 / this.#layers;
    const layers = Array.from({ length: this.#layers }, (_, l) => new Float32Array(buffer, byteOffset + 4 * l * floats, floats));
    return { ...copy, layers };
  }

  /** Whether a copy of so many bytes may be kept at all. */
  takes(bytes: number): boolean {
    return bytes <= this.#budgetBytes || this.#disk !== undefined;
  }

  /** Keeps a copy in place of the user's earlier one; the oldest copies make room. */
  put(userId: string, copy: HostCopy): void {
    this.#remove(userId);
    this.#copies.set(userId, copy);
    this.#bytes += bytesOf(copy);
    for (const [oldest, held] of this.#copies) {
      if (this.#bytes <= this.#budgetBytes) return;
      this.#disk?.put(oldest, held, held.layers);
      this.#remove(oldest);
    }
  }

  /** Drops a user's copies, also that on disk. Returns whether there were any. */
  drop(userId: string): boolean {
    const wasOnDisk = this.#disk?.drop(userId) ?? false;
    return this.#remove(userId) || wasOnDisk;
  }

  #remove(userId: string): boolean {
    const copy = this.#copies.get(userId);
    if (copy === undefined) return false;
    this.#copies.delete(userId);
    this.#bytes -= bytesOf(copy);
    return true;
  }
}

const bytesOf = ({ layers }: HostCopy): number => layers.reduce((sum, layer) => sum + layer.byteLength, 0);
