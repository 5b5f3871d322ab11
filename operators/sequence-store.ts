/** Where the sequences of all users are held: an interface, so that others may look in, and erase. */
import type { TakenChanges } from '../schemas/batch.ts';
import type { UserSequence } from './user-sequence.ts';

export interface SequenceStore {
  /** Users held. */
  readonly size: number;
  /** The user's sequence, to look at: only what `getOrCreate` gives may be changed. */
  get(userId: string): UserSequence | undefined;
  /** The user's sequence; `create` makes it for a user never seen (or erased). */
  getOrCreate(userId: string, create: () => UserSequence): UserSequence;
  /** Whether there was one. */
  delete(userId: string): boolean;
  /** All that changed since the last take, as records; only of a store that is kept elsewhere as well. */
  takeChanges?(): TakenChanges;
}
