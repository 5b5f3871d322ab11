/** The users of one partition, of whom only the recently active are in memory; the others are read from committed records. */
import type { TakenChanges } from '../schemas/batch.ts';
import type { StateChange, StateReader } from '../schemas/state.ts';
import { requireWindow } from './block-window.ts';
import { requireInteger } from './require-option.ts';
import type { SequenceStore } from './sequence-store.ts';
import { changesOf, hasRecords, loadSequence } from './state-pages.ts';
import { UserSequence, type UserSequenceOptions } from './user-sequence.ts';

export interface PersistentSequenceStoreOptions extends UserSequenceOptions {
  /** The committed records: all changes up to the last mark committed, and no others. */
  readonly reader: StateReader;
  /** Sequences held in memory; more only while they have changes that are not committed. */
  readonly hotUsers: number;
  /** Users there are records of, if that is known: what `size` counts from. @default 0 */
  readonly users?: number;
}

interface HotUser {
  /** Without events while the user is erased. */
  sequence: UserSequence;
  erased: boolean;
  /** The last take that had changes of this user; the records that the reader has are older until it is committed. */
  mark: number;
}

/** A take that is not committed. */
interface OpenTake {
  readonly mark: number;
  readonly userIds: readonly string[];
  /** Users that it added, less those it removed. */
  readonly added: number;
}

/**
 * Sequences over a store of records: read when a user comes, changed in memory, given away as records after every batch.
 *
 * `getOrCreate` … `takeChanges` → the changes are written → `committed`; several takes may be open, they are committed in
 * order. A user with changes that the reader does not have yet stays in memory. When writing fails, `rollback` goes back
 * to what the reader has.
 *
 * - **memory** `hotUsers` sequences, and those changed by open takes · **eviction** the one not asked for the longest
 *
 * @throws PipelineError `CONFIG_INVALID`, when made, for a window, `seenLimit` or `hotUsers` out of range
 */
export class PersistentSequenceStore implements SequenceStore {
  readonly #options: PersistentSequenceStoreOptions;
  /** Least recently asked for first. */
  readonly #hot = new Map<string, HotUser>();
  /** Users that may have been changed since the last take. */
  readonly #touched = new Set<string>();
  #open: OpenTake[] = [];
  #mark = 0;
  #committedMark = 0;
  #size: number;

  constructor(options: PersistentSequenceStoreOptions) {
    requireWindow(options.window);
    requireInteger('seenLimit', options.seenLimit, 1);
    requireInteger('hotUsers', options.hotUsers, 1);
    this.#options = options;
    this.#size = options.users ?? 0;
  }

  /** Users there are, as of the last take; counted from `users`, so as right as that was. */
  get size(): number {
    return this.#size;
  }

  /** Users in memory. */
  get hotSize(): number {
    return this.#hot.size;
  }

  /** Estimate over the users in memory. Walks them: for a metrics scrape, not for every record. */
  get bytes(): number {
    let bytes = 0;
    for (const { sequence } of this.#hot.values()) bytes += sequence.bytes;
    return bytes;
  }

  /** @throws PipelineError as `loadSequence` does */
  get(userId: string): UserSequence | undefined {
    const user = this.#find(userId);
    return user === undefined || user.erased ? undefined : user.sequence;
  }

  /** The sequence of a user in memory, to look at; who is in memory, and who goes next, stays as it was. */
  peek(userId: string): UserSequence | undefined {
    const user = this.#hot.get(userId);
    return user === undefined || user.erased ? undefined : user.sequence;
  }

  /** @throws PipelineError as `loadSequence` does */
  getOrCreate(userId: string, create: () => UserSequence): UserSequence {
    // First of all: what is touched is not evicted, and the caller may hold it until the next take.
    this.#touched.add(userId);
    const user = this.#find(userId);
    if (user !== undefined && !user.erased) return user.sequence;
    const sequence = create();
    if (user === undefined) this.#admit(userId, { sequence, erased: false, mark: 0 });
    else {
      sequence.replace(user.sequence);
      user.sequence = sequence;
      user.erased = false;
    }
    return sequence;
  }

  /** @throws PipelineError as `loadSequence` does: to remove a user's records is to know which there are */
  delete(userId: string): boolean {
    this.#touched.add(userId);
    const user = this.#find(userId);
    if (user === undefined || user.erased) return false;
    const nothing = new UserSequence(this.#options);
    nothing.replace(user.sequence);
    user.sequence = nothing;
    user.erased = true;
    return true;
  }

  /** Everything that changed since the last take, a user's records together. Call it after every batch. */
  takeChanges(): TakenChanges {
    const mark = ++this.#mark;
    const changes: StateChange[] = [];
    const userIds: string[] = [];
    let added = 0;
    for (const userId of this.#touched) {
      const user = this.#hot.get(userId);
      if (user === undefined) continue;
      const existed = hasRecords(user.sequence);
      const own = changesOf(userId, user.sequence);
      if (own.length === 0) {
        // Came and went, or was asked for and never filled: the reader knows as much.
        if (user.sequence.isEmpty && user.mark <= this.#committedMark) this.#hot.delete(userId);
        continue;
      }
      for (const change of own) changes.push(change);
      user.mark = mark;
      userIds.push(userId);
      added += Number(hasRecords(user.sequence)) - Number(existed);
    }
    this.#touched.clear();
    this.#size += added;
    if (userIds.length > 0) this.#open.push({ mark, userIds, added });
    this.#evict();
    return { changes, mark };
  }

  /** The reader has the changes up to this mark. */
  committed(mark: number): void {
    this.#committedMark = Math.max(this.#committedMark, mark);
    while (this.#open.length > 0 && this.#open[0]!.mark <= mark)
      for (const userId of this.#open.shift()!.userIds) {
        const user = this.#hot.get(userId);
        if (user?.erased && !this.#isPinned(userId, user)) this.#hot.delete(userId);
      }
    this.#evict();
  }

  /**
   * Forgets all that is not committed: users are as the reader has them. Call it when the reader has everything that was
   * committed; marks of before are void.
   */
  rollback(): void {
    for (const { userIds, added } of this.#open) {
      for (const userId of userIds) this.#hot.delete(userId);
      this.#size -= added;
    }
    for (const userId of this.#touched) this.#hot.delete(userId);
    this.#open = [];
    this.#touched.clear();
    this.#committedMark = this.#mark;
  }

  #find(userId: string): HotUser | undefined {
    const user = this.#hot.get(userId);
    if (user !== undefined) {
      this.#hot.delete(userId);
      this.#hot.set(userId, user);
      return user;
    }
    const sequence = loadSequence(userId, this.#options.reader, this.#options);
    return sequence === undefined ? undefined : this.#admit(userId, { sequence, erased: false, mark: 0 });
  }

  #admit(userId: string, user: HotUser): HotUser {
    this.#hot.set(userId, user);
    this.#evict();
    return user;
  }

  #isPinned(userId: string, { mark }: HotUser): boolean {
    return mark > this.#committedMark || this.#touched.has(userId);
  }

  #evict(): void {
    if (this.#hot.size <= this.#options.hotUsers) return;
    for (const [userId, user] of this.#hot) {
      if (this.#isPinned(userId, user)) continue;
      this.#hot.delete(userId);
      if (this.#hot.size <= this.#options.hotUsers) return;
    }
  }
}
