/** A user's own entities, as candidates beside what was retrieved. Plain functions, no RxJS. */
import { type AllowedRows, type EncodeSegment, isAllowed } from '../schemas/encoding.ts';

export interface OwnHistory {
  /** Distinct entities of a window, at most. */
  readonly most: number;
  /** Row of the vocabulary that a token is of; 0 for none. */
  readonly entityRowOf: (token: number) => number;
}

/** Entity rows of a window, the newest first, but for those that are hidden or not allowed. */
export function ownRows(
  { entities }: Pick<EncodeSegment, 'entities'>,
  { most, entityRowOf }: OwnHistory,
  hidden: ReadonlySet<number>,
  allowed: AllowedRows | undefined,
): Int32Array {
  const rows = new Set<number>();
  for (let place = entities.length - 1; place >= 0 && rows.size < most; place--) {
    const row = entityRowOf(entities[place]!);
    if (row > 0 && !hidden.has(row) && (allowed === undefined || isAllowed(allowed, row))) rows.add(row);
  }
  return Int32Array.from(rows);
}

/** Both, each once; what was retrieved first. */
export const withOwn = (retrieved: Int32Array, own: Int32Array): Int32Array =>
  own.length === 0 ? retrieved : Int32Array.from(new Set([...retrieved, ...own]));
