/** Where an erasure stands among the actions of its partition: what may be taken next of the two topics. */
import type { SourceRecord } from '../../schemas/action.ts';

/** What of a partition was fetched and not yet taken. */
export interface WaitingRecords {
  /** Oldest first. */
  readonly records: readonly SourceRecord[];
  /** Offset of the record that is taken next, or of the one to be fetched next. */
  readonly nextOffset: number;
  /** Behind the last of `records`, the log has nothing more. */
  readonly atEnd: boolean;
  /** No more is fetched until some of `records` were taken. */
  readonly full: boolean;
}

export interface NextTaken {
  readonly from: 'actions' | 'erasures';
  /** Records before this offset may be taken. */
  readonly beforeOffset: number;
}

/**
 * An erasure that was read before stands where it stood then. Read for the first time, it stands behind every action that has come and
 * is not younger, and behind all that lie before such a one in the log: a timestamp ahead of its time moves nobody's actions behind an
 * erasure. Looked ahead is as far as records are buffered.
 *
 * @param placeOf the offset of the actions before which an erasure stands; undefined for one that is read for the first time
 * @returns undefined where it is not known yet what comes next, or nothing has come
 */
export function nextOfMerged(
  actions: WaitingRecords,
  erasures: WaitingRecords,
  placeOf: (erasure: SourceRecord) => number | undefined,
): NextTaken | undefined {
  const erasure = erasures.records[0];
  if (erasure === undefined)
    return erasures.atEnd && actions.records.length > 0 ? { from: 'actions', beforeOffset: Number.POSITIVE_INFINITY } : undefined;
  const ended = actions.records.length === 0 && actions.atEnd;
  const place = placeOf(erasure);
  if (place !== undefined && actions.nextOffset < place && !ended)
    return actions.records.length > 0 ? { from: 'actions', beforeOffset: place } : undefined;
  if (place === undefined) {
    const older = endOfOlder(actions.records, timeOf(erasure));
    if (older !== undefined) return { from: 'actions', beforeOffset: older };
    // An older one may lie behind what was fetched so far.
    if (!actions.atEnd && !actions.full) return undefined;
  }
  return { from: 'erasures', beforeOffset: endOfDue(actions, erasures.records, placeOf) };
}

/** After the first erasure, which is due, those that are as well. */
function endOfDue(
  { records: actions, nextOffset }: WaitingRecords,
  erasures: readonly SourceRecord[],
  placeOf: (erasure: SourceRecord) => number | undefined,
): number {
  let oldestMs = Number.POSITIVE_INFINITY;
  for (const action of actions) oldestMs = Math.min(oldestMs, timeOf(action));
  const isDue = (erasure: SourceRecord) => {
    const place = placeOf(erasure);
    return place === undefined ? timeOf(erasure) < oldestMs : place <= nextOffset;
  };
  let count = 1;
  while (count < erasures.length && isDue(erasures[count]!)) count++;
  return erasures[count - 1]!.position.offset + 1;
}

/** The offset after the last record that is not younger than `timeMs`. */
function endOfOlder(records: readonly SourceRecord[], timeMs: number): number | undefined {
  for (let i = records.length - 1; i >= 0; i--) if (timeOf(records[i]!) <= timeMs) return records[i]!.position.offset + 1;
  return undefined;
}

const timeOf = ({ timestampMs }: SourceRecord): number => timestampMs ?? 0;
