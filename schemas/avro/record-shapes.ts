/** How our own types lie in Avro records: the few fields that differ, in both directions. */
import type { DeadLetter, SourcePosition, UserAction } from '../action.ts';
import type { EntityUpdate } from '../catalogue.ts';
import type { CatalogueFilter } from '../catalogue-filter.ts';
import type { ErrorCode } from '../errors.ts';
import type { ActionOutcome, CandidateScores, UserEmbedding } from '../output.ts';
import type { CandidateRequest, Erasure } from './requests.ts';
import type { RecordName } from './schemas.ts';

/** What a beginning of some bytes is the beginning of. */
export interface CutBytes {
  /** Length of the whole. */
  readonly bytes: number;
  /** Of the whole, 64 hexadecimal digits. */
  readonly sha256: string;
}

/** A dead letter with what sending its record again takes. */
export interface StampedDeadLetter extends Omit<DeadLetter, 'action' | 'userId'> {
  /** The record's own timestamp, ms since the epoch. */
  readonly timestampMs?: number;
  /** Given where `original` is only the beginning. */
  readonly originalCut?: CutBytes;
  /** Given where `originalKey` is only the beginning. */
  readonly keyCut?: CutBytes;
}

/** What each schema holds. */
export interface RecordTypes {
  readonly UserAction: UserAction;
  readonly CandidateRequest: CandidateRequest;
  readonly Erasure: Erasure;
  readonly UserEmbedding: UserEmbedding;
  readonly CandidateScores: CandidateScores;
  /** Its original comes back as bytes, whatever it was given as. */
  readonly DeadLetter: StampedDeadLetter;
  readonly ActionOutcome: ActionOutcome;
  /** What takes an entry back is a record without a value. */
  readonly Entity: Omit<EntityUpdate, 'removed'>;
}

/** The fields of an Avro record, absent ones null. */
type Nullable<T> = { readonly [K in keyof T]-?: undefined extends T[K] ? Exclude<T[K], undefined> | null : T[K] };

type CandidateRequestFields = Nullable<Omit<CandidateRequest, 'deny' | 'filter'>> & {
  readonly deny: readonly string[];
  readonly filter: string | null;
};

type CandidateScoresFields = Nullable<Omit<CandidateScores, 'tasks' | 'leftOut' | 'coldStart'>> & {
  readonly tasks: readonly { readonly task: string; readonly probabilities: Float32Array }[];
  readonly leftOut: NonNullable<CandidateScores['leftOut']>;
  readonly coldStart: boolean;
};

interface DeadLetterFields {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timestampMs: number | null;
  readonly originalKey: Buffer | null;
  readonly original: Buffer | null;
  readonly code: string;
  readonly step: string;
  readonly message: string;
  readonly originalCut: CutBytes | null;
  readonly keyCut: CutBytes | null;
}

type ActionOutcomeFields = Omit<ActionOutcome, 'position' | 'ranked'> &
  SourcePosition & { readonly ranked: ActionOutcome['ranked'] | null };

type EntityRecordFields = Nullable<Omit<EntityUpdate, 'removed'>>;

interface Shape<T> {
  /** Fields to write; an undefined one takes the schema's default. */
  readonly toFields: (value: T) => unknown;
  readonly fromFields: (fields: never) => T;
}

const same = (value: unknown): unknown => value;

export const SHAPES: { readonly [N in RecordName]: Shape<RecordTypes[N]> } = {
  UserAction: {
    toFields: same,
    fromFields: ({ eventId, userId, action, entity, value, eventTimeMs, context }: Nullable<UserAction>) => ({
      eventId,
      userId,
      action,
      entity,
      ...(value === null ? {} : { value }),
      eventTimeMs,
      ...(context === null ? {} : { context }),
    }),
  },
  CandidateRequest: {
    toFields: ({ filter, ...value }: CandidateRequest) => ({
      ...value,
      filter: filter === undefined ? null : JSON.stringify(filter),
    }),
    fromFields: ({ requestId, userId, entities, queryTimeMs, deadlineMs, topK, deny, filter }: CandidateRequestFields) => ({
      requestId,
      userId,
      entities,
      queryTimeMs,
      ...(deadlineMs === null ? {} : { deadlineMs }),
      ...(topK === null ? {} : { topK }),
      ...(deny.length === 0 ? {} : { deny }),
      ...(filter === null ? {} : { filter: JSON.parse(filter) as CatalogueFilter }),
    }),
  },
  Erasure: {
    toFields: same,
    fromFields: ({ userId, requestedAtMs, reason }: Nullable<Erasure>) => ({
      userId,
      ...(requestedAtMs === null ? {} : { requestedAtMs }),
      ...(reason === null ? {} : { reason }),
    }),
  },
  UserEmbedding: {
    toFields: (value) => ({ ...value, dimension: value.embedding.length }),
    fromFields: (fields: UserEmbedding) => ({
      userId: fields.userId,
      version: fields.version,
      embedding: floatsOf(fields.embedding),
      sequenceLength: fields.sequenceLength,
      lastEventTimeMs: fields.lastEventTimeMs,
      queryTimeMs: fields.queryTimeMs,
      lineage: { ...fields.lineage },
      computedAtMs: fields.computedAtMs,
      latencyMs: fields.latencyMs,
      rowsComputed: fields.rowsComputed,
      outcome: fields.outcome,
    }),
  },
  CandidateScores: {
    toFields: ({ tasks, ...scores }) => ({
      ...scores,
      tasks: Object.entries(tasks ?? {}).map(([task, probabilities]) => ({ task, probabilities })),
    }),
    fromFields: ({ userId, version, requestId, candidates, lineage, computedAtMs, ...more }: CandidateScoresFields) => ({
      userId,
      version,
      ...(requestId === null ? {} : { requestId }),
      candidates: candidates.map(({ entity, score }) => ({ entity, score })),
      ...(more.tasks.length === 0
        ? {}
        : { tasks: Object.fromEntries(more.tasks.map(({ task, probabilities }) => [task, floatsOf(probabilities)])) }),
      ...(more.leftOut.length === 0 ? {} : { leftOut: more.leftOut.map(({ entity, reason }) => ({ entity, reason })) }),
      ...(more.coldStart ? { coldStart: true } : {}),
      ...(more.queryTimeMs === null ? {} : { queryTimeMs: more.queryTimeMs }),
      ...(more.ageMs === null ? {} : { ageMs: more.ageMs }),
      lineage: { ...lineage },
      computedAtMs,
    }),
  },
  DeadLetter: {
    toFields: ({ position, code, step, message, original, originalKey, timestampMs, originalCut, keyCut }) => ({
      ...position,
      timestampMs,
      originalKey: bufferOf(originalKey ?? null),
      original: bufferOf(original),
      code,
      step,
      message,
      originalCut,
      keyCut,
    }),
    fromFields: ({
      topic,
      partition,
      offset,
      timestampMs,
      originalKey,
      original,
      code,
      step,
      message,
      ...more
    }: DeadLetterFields) => ({
      position: { topic, partition, offset },
      code: code as ErrorCode,
      step,
      message,
      original,
      ...(originalKey === null ? {} : { originalKey }),
      ...(timestampMs === null ? {} : { timestampMs }),
      ...(more.originalCut === null ? {} : { originalCut: { ...more.originalCut } }),
      ...(more.keyCut === null ? {} : { keyCut: { ...more.keyCut } }),
    }),
  },
  ActionOutcome: {
    toFields: ({ position, ...outcome }) => ({ ...outcome, ...position }),
    fromFields: ({ topic, partition, offset, ranked, ...outcome }: ActionOutcomeFields) => ({
      userId: outcome.userId,
      eventId: outcome.eventId,
      action: outcome.action,
      entity: outcome.entity,
      eventTimeMs: outcome.eventTimeMs,
      disposition: outcome.disposition,
      position: { topic, partition, offset },
      ...(ranked === null || ranked === undefined ? {} : { ranked: { ...ranked } }),
    }),
  },
  Entity: {
    toFields: same,
    fromFields: ({ entity, content, popularity, fields, retired }: EntityRecordFields) => ({
      entity,
      ...(content === null || content.length === 0 ? {} : { content: floatsOf(content) }),
      ...(popularity === null ? {} : { popularity }),
      ...(fields === null || Object.keys(fields).length === 0 ? {} : { fields }),
      ...(retired === true ? { retired } : {}),
    }),
  },
};

/** A writer of other numbers than float gives a plain array. */
const floatsOf = (values: ArrayLike<number>): Float32Array =>
  values instanceof Float32Array ? values : Float32Array.from(values);

function bufferOf(value: Uint8Array | string | null): Buffer | null {
  if (value === null) return null;
  if (typeof value === 'string') return Buffer.from(value);
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}
