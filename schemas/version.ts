/**
 * Versions of what is published of a user: how many tokens the state has accepted, above that the epoch of the partition's state. A promotion
 * and a reset begin a new epoch, so that versions grow for ever, whatever the model counts, and consumers keep the highest.
 */

/** More tokens than one user has: 2^40. 4,096 epochs above it are exact in a double. */
const SPAN = 2 ** 40;
export const MAX_EPOCH = 4_095;

/** 0 stays 0: nothing is known of the user. */
export const versionOf = (count: number, epoch: number): number => (count === 0 ? 0 : epoch * SPAN + count);

/** Tokens, of a version of any epoch. */
export const countOf = (version: number): number => version % SPAN;

export const epochOf = (version: number): number => Math.floor(version / SPAN);

/** Of these versions by number of tokens, those of the newest epoch. */
export function ofNewestEpoch<T>(versions: ReadonlyMap<number, T>): Map<number, T> {
  const newest = Math.max(0, ...[...versions.keys()].map(epochOf));
  return new Map(
    [...versions].flatMap(([version, value]) => (epochOf(version) === newest ? [[countOf(version), value] as const] : [])),
  );
}
