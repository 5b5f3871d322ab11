/** What of an encoded update has to be scored. */
import type { EncodedUpdate } from '../schemas/batch.ts';
import type { AllowedRows, ScoreRequest } from '../schemas/encoding.ts';
import type { HiddenOf } from './hidden-events.ts';

export interface ScorePart {
  readonly segment: number;
  /** Which row of the segment is the request's first. */
  readonly firstRow: number;
  readonly request: ScoreRequest;
}

/** A row that something is asked of. */
interface AskedRow {
  readonly segment: number;
  readonly row: number;
  readonly entity: number;
  readonly seenStart: number;
  readonly seenCount: number;
  readonly published: boolean;
}

/**
 * One request a segment, over the rows from the first to the last that something is asked of; two or more where the seen
 * list forgot its oldest in between, since all rows of a request share one list.
 */
export function scoreParts(
  { update, segments }: EncodedUpdate,
  topK: number,
  seenFilter: boolean | HiddenOf,
  allowed?: AllowedRows,
): ScorePart[] {
  const asked: AskedRow[] = update.targets.map((target) => ({ ...target, published: false }));
  // What hides by kind and age is each list's own: it is asked for by itself, after what else is asked of its segment.
  const lists: ScorePart[] =
    typeof seenFilter !== 'function' || topK === 0
      ? []
      : update.publish.map(({ segment }) => {
          const window = update.request.segments[segment]!;
          const { rows } = segments[segment]!;
          const row = window.entities.length - window.from - 1;
          const width = rows.length / (row + 1);
          const seen = seenFilter(window);
          const one = { targets: new Int32Array(1), seen, seenCount: Int32Array.of(seen.length), topK, allowed };
          return { segment, firstRow: row, request: { rows: rows.subarray(row * width, (row + 1) * width), ...one } };
        });
  if (topK > 0 && typeof seenFilter !== 'function')
    for (const { segment, seenStart, seenCount } of update.publish) {
      const { entities, from } = update.request.segments[segment]!;
      const seen = seenFilter ? { seenStart, seenCount } : { seenStart: 0, seenCount: 0 };
      asked.push({ segment, row: entities.length - from - 1, entity: 0, ...seen, published: true });
    }
  asked.sort((a, b) => a.segment - b.segment || a.row - b.row);

  const parts: ScorePart[] = [];
  for (let begin = 0, end = 0; begin < asked.length; begin = end) {
    const first = asked[begin]!;
    while (end < asked.length && asked[end]!.segment === first.segment && asked[end]!.seenStart === first.seenStart) end++;
    const { entities, from } = update.request.segments[first.segment]!;
    const width = segments[first.segment]!.rows.length / (entities.length - from);
    parts.push(partOf(asked.slice(begin, end), segments[first.segment]!.rows, width, update.seen, topK, allowed));
  }
  return lists.length === 0 ? parts : [...parts, ...lists].sort((a, b) => a.segment - b.segment);
}

function partOf(
  asked: readonly AskedRow[],
  rows: Float32Array,
  width: number,
  seen: Int32Array,
  topK: number,
  allowed: AllowedRows | undefined,
): ScorePart {
  const { segment, row: firstRow, seenStart } = asked[0]!;
  const last = asked.at(-1)!;
  const count = last.row - firstRow + 1;
  const targets = new Int32Array(count);
  const seenCount = new Int32Array(count);
  let seenEnd = seenStart;
  for (const { row, entity, seenCount: end } of asked) {
    seenEnd = Math.max(seenEnd, end);
    targets[row - firstRow] = entity;
    seenCount[row - firstRow] = end - seenStart;
  }
  return {
    segment,
    firstRow,
    request: {
      rows: rows.subarray(firstRow * width, (last.row + 1) * width),
      targets,
      seen: seen.subarray(seenStart, seenEnd),
      seenCount,
      topK: last.published ? topK : 0,
      allowed,
    },
  };
}
