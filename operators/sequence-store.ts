/** Where the sequences of all users are held: an interface, so that others may look in, and erase. */
import type { UserSequence } from './user-sequence.ts';

export interface SequenceStore {
  /** Users held. */
  readonly size: number;
  get(userId: string): UserSequence | undefined;
  /** The user's sequence; `create` makes it for a user never seen (or erased). */
  getOrCreate(userId: string, create: () => UserSequence): UserSequence;
  /** Whether there was one. */
  delete(userId: string): boolean;
}
