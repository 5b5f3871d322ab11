import type { SequenceStore } from './sequence-store.ts';

/**
 * Erases a user from the store: the next action of that id is a first action.
 *
 * Call it between batches (a batch is sequenced synchronously, so any moment outside an operator is between batches).
 * What is in flight was made before the erasure and may still be published: drain first where that matters.
 *
 * @returns whether the user existed
 */
export const eraseUser = (store: SequenceStore, userId: string): boolean => store.delete(userId);
