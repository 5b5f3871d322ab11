/** What of a batch of histories is encoded: the state as of every event, or only where each history ends. */
import { changesOf } from '../../operators/state-pages.ts';
import type { SourcePosition } from '../../schemas/action.ts';
import type { PublishPoint, SequencedBatch, SourceBatch, TakenChanges, UserUpdate } from '../../schemas/batch.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import type { StateChange } from '../../schemas/state.ts';
import type { Histories } from './histories.ts';

/** A batch of whole histories. */
export interface HistoryBatch extends SourceBatch {
  /** The user whose history goes on in the next batch. */
  readonly continues: string | undefined;
}

/** The embedding as of an event: made of what came before it, asked about its time. */
export interface AsOfPoint {
  readonly segment: number;
  /** From the segment's first wanted row. */
  readonly row: number;
  readonly version: number;
  readonly sequenceLength: number;
  readonly sequenceDigest: string;
  readonly lastEventTimeMs: number;
  /** Of the event, ms. */
  readonly queryTimeMs: number;
  /** The newest input record included. */
  readonly position: SourcePosition;
}

export interface ShapedUpdate extends UserUpdate {
  readonly points: readonly AsOfPoint[];
}

export interface ShapedBatch extends SequencedBatch {
  readonly source: HistoryBatch;
  readonly updates: readonly ShapedUpdate[];
}

export interface ShapeOptions {
  readonly histories: Histories;
  /** One embedding an event, as of just before it; else only that of the end of each history. */
  readonly everyEvent: boolean;
  /** Whether events are ranked: what the targets are kept for. */
  readonly ranks: boolean;
  /** The moment that the end of a history is asked about, ms. @default its newest event's */
  readonly asOfMs?: number | undefined;
  /** Give the state of each history at its end, as `PartitionedChange`s. @default false */
  readonly keepState?: boolean | undefined;
}

/** A record of a user's state, and the partition of the input that the user belongs to. */
export interface PartitionedChange extends StateChange {
  readonly partition: number;
}

/**
 * Shapes batches in their order, right after they were sequenced: it reads the sequences as they stand.
 *
 * Every history ends with an embedding of its end, in whatever batches it came.
 */
export function shapeUpdates({
  histories,
  everyEvent,
  ranks,
  asOfMs,
  keepState = false,
}: ShapeOptions): (batch: SequencedBatch) => ShapedBatch {
  /** The user of whom an earlier batch gave something to the world. */
  let given: string | undefined;

  return (batch) => {
    const source = batch.source as HistoryBatch;
    const { continues } = source;
    const pointsOf = everyEvent ? pointsByUser(batch, histories) : noteAll(batch, histories);
    const updates: ShapedUpdate[] = [];
    const byUser = new Map(batch.updates.map((update) => [update.userId, update]));
    const users = new Set(byUser.keys());
    // Its last batch may have held nothing new of it.
    if (given !== undefined && given !== continues) users.add(given);
    for (const userId of users) {
      const update = byUser.get(userId);
      const end = userId === continues ? undefined : endOf(userId, histories, asOfMs);
      const shaped = everyEvent && update !== undefined ? { ...update, publish: [] } : nothingOf(userId);
      const whole = withEnd({ ...shaped, targets: ranks ? shaped.targets : [], points: pointsOf.get(userId) ?? [] }, end);
      if (whole.request.segments.length > 0) updates.push(whole);
    }
    // Nothing is stored of users that this batch begins.
    const erased = batch.erased?.filter((userId) => userId === given) ?? [];
    const { erased: _, ...rest } = batch;
    const state = keepState ? endStates(batch, histories, continues) : undefined;
    given = continues;
    histories.keepOnly(continues);
    return { ...rest, source, updates, ...(erased.length > 0 && { erased }), ...(state !== undefined && { state }) };
  };
}

/** Of the histories that end with this batch. A history never ends without an action in its last batch, which says its partition. */
function endStates({ processed }: SequencedBatch, histories: Histories, continues: string | undefined): TakenChanges {
  const partitions = new Map(processed.map(({ action }) => [action.userId, action.position.partition]));
  const changes: PartitionedChange[] = [];
  for (const [userId, partition] of partitions) {
    const sequence = userId === continues ? undefined : histories.get(userId);
    if (sequence === undefined) continue;
    for (const change of changesOf(userId, sequence)) changes.push({ ...change, partition });
  }
  return { changes, mark: 0 };
}

/** The end of a history, which may be what the last segment ends with. */
interface End {
  readonly segment: EncodeSegment;
  readonly point: Omit<PublishPoint, 'segment' | 'seenStart' | 'seenCount'>;
  readonly seen: Int32Array;
}

function endOf(userId: string, histories: Histories, asOfMs: number | undefined): End | undefined {
  const sequence = histories.get(userId);
  const last = histories.last(userId);
  if (sequence === undefined || last === undefined || sequence.length === 0) return undefined;
  const queryTimeMs = Math.max(asOfMs ?? sequence.newestTimeMs, sequence.newestTimeMs);
  return {
    segment: { ...sequence.snapshot(), from: sequence.length - 1, queryTimeS: Math.floor(queryTimeMs / 1000) },
    point: {
      version: sequence.version,
      sequenceLength: sequence.length,
      sequenceDigest: sequence.digest,
      lastEventTimeMs: sequence.newestTimeMs,
      queryTimeMs,
      position: last.position,
    },
    seen: sequence.seen(),
  };
}

function withEnd(update: ShapedUpdate, end: End | undefined): ShapedUpdate {
  if (end === undefined) return update;
  const segments = [...update.request.segments];
  const last = segments.at(-1);
  const same =
    last !== undefined &&
    last.windowStart === end.segment.windowStart &&
    last.entities.length === end.segment.entities.length &&
    last.queryTimeS === end.segment.queryTimeS;
  if (!same) segments.push(end.segment);
  // What is remembered at the end is the last of what the batch has seen.
  const seen = update.seen.length > 0 ? update.seen : end.seen;
  const point: PublishPoint = {
    ...end.point,
    segment: segments.length - 1,
    seenStart: seen.length - end.seen.length,
    seenCount: seen.length,
  };
  return { ...update, request: { userId: update.userId, segments }, publish: [point], seen };
}

const nothingOf = (userId: string): UserUpdate => ({
  userId,
  request: { userId, segments: [] },
  targets: [],
  publish: [],
  seen: new Int32Array(0),
});

const NO_POINTS: ReadonlyMap<string, readonly AsOfPoint[]> = new Map();

function noteAll({ processed }: SequencedBatch, histories: Histories): typeof NO_POINTS {
  for (const one of processed) histories.note(one);
  return NO_POINTS;
}

/** Every ranked event of the batch, by user: what was known just before it. */
function pointsByUser({ processed, updates }: SequencedBatch, histories: Histories): Map<string, AsOfPoint[]> {
  const points = new Map<string, AsOfPoint[]>();
  const byUser = new Map(updates.map((update) => [update.userId, { update, next: 0 }]));
  for (const one of processed) {
    const { action } = one;
    const of = byUser.get(action.userId);
    const target = of?.update.targets[of.next];
    if (of !== undefined && target?.action === action) {
      of.next += 1;
      const { lastEventTimeMs, position } = histories.last(action.userId)!;
      const list = points.get(action.userId) ?? [];
      points.set(action.userId, list);
      list.push({
        segment: target.segment,
        row: target.row,
        version: target.priorEvents,
        sequenceLength: of.update.request.segments[target.segment]!.from + target.row + 1,
        sequenceDigest: target.sequenceDigest,
        lastEventTimeMs,
        queryTimeMs: action.eventTimeMs,
        position,
      });
    }
    histories.note(one);
  }
  return points;
}
