/** Rows of users that the GPU has no room for, in host memory: a copy to the device instead of a prefill. */
import type { CachedRows } from '../kv-cache/cached-rows.ts';

export interface HostCopy extends CachedRows {
  /** Per layer `(length, W)`. */
  readonly layers: readonly Float32Array[];
}

export class HostTier {
  readonly #budgetBytes: number;
  /** Least recently written first. */
  readonly #copies = new Map<string, HostCopy>();
  #bytes = 0;

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  get users(): number {
    return this.#copies.size;
  }

  get bytesUsed(): number {
    return this.#bytes;
  }

  get(userId: string): HostCopy | undefined {
    return this.#copies.get(userId);
  }

  /** Whether a copy of so many bytes may be kept at all. */
  takes(bytes: number): boolean {
    return bytes <= this.#budgetBytes;
  }

  /** Keeps a copy in place of the user's earlier one; the oldest copies make room. */
  put(userId: string, copy: HostCopy): void {
    this.drop(userId);
    this.#copies.set(userId, copy);
    this.#bytes += bytesOf(copy);
    for (const [oldest] of this.#copies) {
      if (this.#bytes <= this.#budgetBytes) return;
      this.drop(oldest);
    }
  }

  drop(userId: string): boolean {
    const copy = this.#copies.get(userId);
    if (copy === undefined) return false;
    this.#copies.delete(userId);
    this.#bytes -= bytesOf(copy);
    return true;
  }
}

const bytesOf = ({ layers }: HostCopy): number => layers.reduce((sum, layer) => sum + layer.byteLength, 0);
