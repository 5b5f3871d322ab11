/**
 * What cached rows were computed from, and how much of them still holds for a window: the rule that keeps every cache exact,
 * wherever its rows lie.
 */
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { DIGEST_PAGE } from '../../schemas/sequence-digest.ts';

/** The leading final rows of one user's window, and the tokens that they encode. */
export interface CachedRows {
  modelDigest: string;
  windowStart: number;
  /** Final rows held. */
  length: number;
  /** Tokens of which the rows encode the first `length`, and the rolling digests over the pages of those. */
  entities: Int32Array;
  timesS: Float64Array;
  pageDigests: Uint32Array;
  /** Event time that the last row took for its next event. */
  nextTimeS: number;
}

/** How much of an entry is still true. */
export interface Reuse {
  readonly rows: number;
  readonly because: 'cold' | 'model' | 'window' | 'diverged' | 'intact';
}

export const noRows = (modelDigest: string): CachedRows => ({
  modelDigest,
  windowStart: -1,
  length: 0,
  entities: new Int32Array(0),
  timesS: new Float64Array(0),
  pageDigests: new Uint32Array(0),
  nextTimeS: Number.NaN,
});

/**
 * How many leading rows hold for this window. Row `i` is valid iff tokens `0 … i` are the same and so is the time of token
 * `i+1`. Compared page by page by rolling digest, and token by token within the page where they part.
 */
export function reusableRows(held: CachedRows | undefined, segment: EncodeSegment, modelDigest: string): Reuse {
  if (held === undefined) return { rows: 0, because: 'cold' };
  if (held.modelDigest !== modelDigest) return { rows: 0, because: 'model' };
  if (held.windowStart !== segment.windowStart) return { rows: 0, because: 'window' };
  const limit = Math.min(held.length, segment.entities.length);
  let page = Math.floor(limit / DIGEST_PAGE);
  while (page > 0 && !sameDigest(held.pageDigests, segment.pageDigests, page - 1)) page--;
  let same = page * DIGEST_PAGE;
  while (same < limit && held.entities[same] === segment.entities[same] && held.timesS[same] === segment.timesS[same]) same++;
  const next = same < held.length ? held.timesS[same] : held.nextTimeS;
  if (same > 0 && same < segment.entities.length && next !== segment.timesS[same]) same--;
  return { rows: same, because: same === held.length ? 'intact' : 'diverged' };
}

/** Forgets the rows from `length` on. */
export function truncateRows(held: CachedRows, length: number): void {
  if (length >= held.length) return;
  held.nextTimeS = held.timesS[length]!;
  held.length = length;
}

/** Declares the rows up to `length` final, computed from this window's tokens. */
export function commitRows(held: CachedRows, segment: EncodeSegment, length: number, modelDigest: string): void {
  held.modelDigest = modelDigest;
  held.windowStart = segment.windowStart;
  held.length = length;
  held.entities = segment.entities;
  held.timesS = segment.timesS;
  held.pageDigests = segment.pageDigests;
  held.nextTimeS = segment.timesS[length] ?? Number.NaN;
}

const sameDigest = (a: Uint32Array, b: Uint32Array, page: number): boolean =>
  a[2 * page] === b[2 * page] && a[2 * page + 1] === b[2 * page + 1];
