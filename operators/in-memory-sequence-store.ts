import type { SequenceStore } from './sequence-store.ts';
import type { UserSequence } from './user-sequence.ts';

/** Every user in this process's memory, nothing on disk. */
export class InMemorySequenceStore implements SequenceStore {
  readonly #users = new Map<string, UserSequence>();

  get size(): number {
    return this.#users.size;
  }

  /** Estimate over all users. Walks them: for a metrics scrape, not for every record. */
  get bytes(): number {
    let bytes = 0;
    for (const sequence of this.#users.values()) bytes += sequence.bytes;
    return bytes;
  }

  get(userId: string): UserSequence | undefined {
    return this.#users.get(userId);
  }

  getOrCreate(userId: string, create: () => UserSequence): UserSequence {
    const held = this.#users.get(userId);
    if (held !== undefined) return held;
    const created = create();
    this.#users.set(userId, created);
    return created;
  }

  delete(userId: string): boolean {
    return this.#users.delete(userId);
  }
}
