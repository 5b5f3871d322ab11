/** What a deployment's topics hold of a user. */
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import { readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { committedBy } from '../../infra/kafka/request-erasure.ts';
import { readTopics, type TopicState } from '../../infra/kafka/topics.ts';
import { UserKeys } from '../../operators/state-keys.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { RecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { decodePlace, type ErasurePlace } from '../../schemas/erasure-place.ts';
import { Fault } from '../../schemas/record-fields.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { type Finding, nothingIn } from './finding.ts';

export interface TopicSearch {
  readonly kafka: KafkaClient;
  readonly config: LiveConfig;
  readonly userId: string;
  readonly codec: AvroCodec;
  readonly decoder: RecordDecoder;
  /** Awaited with records before they are decoded: the schemas they need. */
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  readonly onProgress?: (topic: string, records: number) => void;
  readonly signal: AbortSignal;
}

export interface TopicFindings {
  readonly findings: readonly Finding[];
  /** Timestamp of the last erasure of the user that the topics hold, ms since the epoch; undefined: none. */
  readonly erasedAtMs: number | undefined;
  /** Whether the changelog holds a state of the user of after the erasure. */
  readonly returned: boolean;
}

/** A record of the user. */
interface Trace {
  readonly partition: number;
  readonly offset: number;
  readonly timestampMs: number;
  /** What a compacted topic keeps the last record of. */
  readonly key: string;
  readonly isTombstone: boolean;
  /** Record of `user-actions` that it was made of, as `partition/offset`. */
  readonly madeOf?: string | undefined;
  readonly isErasure?: boolean;
}

/** What lies in a batch that is too large is nobody's that anyone could tell. */
const LIMITS = { maxBufferedBytes: 4 * 2 ** 20, faults: 'given' } as const;

/**
 * Reads every committed record of every topic.
 *
 * An action counts as of before the erasure by where that was carried out, or, where it was not yet, by its timestamp; an embedding by
 * the action it was made of; another record by its timestamp.
 *
 * @throws PipelineError Kafka's; `DOMException` `AbortError` when aborted
 */
export async function findInTopics(search: TopicSearch): Promise<TopicFindings> {
  const { kafka, config } = search;
  // A catalogue holds no users.
  const states = (await readTopics(kafka, config.kafka)).filter(({ role }) => role !== 'entities');
  const stateOf = (role: TopicState['role']) => states.find((state) => state.role === role);
  const found = new Map<TopicState['role'], readonly Trace[]>();
  const places = new Map<string, ErasurePlace>();
  for (const state of states) if (state.partitions !== undefined) found.set(state.role, await tracesIn(state, search, places));
  const tracesOf = (role: TopicState['role']) => found.get(role) ?? [];

  const erasures = [...tracesOf('erasures'), ...tracesOf('userActions').filter(({ isErasure }) => isErasure === true)];
  const erasedAtMs = erasures.length === 0 ? undefined : Math.max(...erasures.map(({ timestampMs }) => timestampMs));
  const isBefore = ({ timestampMs }: Trace) => erasedAtMs === undefined || timestampMs <= erasedAtMs;
  // One among the actions stands where it lies.
  const placeOf = ({ partition, offset, isErasure }: Trace): { readonly before: number } | undefined =>
    isErasure === true ? { before: offset } : places.get(`${partition}/${offset}`);
  const isTaken = (action: Trace) =>
    erasures.some((erasure) => {
      const place = placeOf(erasure);
      if (place === undefined) return action.timestampMs <= erasure.timestampMs;
      return erasure.partition === action.partition && action.offset < place.before;
    }) ||
    (erasures.length === 0 && isBefore(action));
  const oldActions = new Set(
    tracesOf('userActions')
      .filter(isTaken)
      .map(({ partition, offset }) => `${partition}/${offset}`),
  );
  const isOld = (trace: Trace) => isBefore(trace) || (trace.madeOf !== undefined && oldActions.has(trace.madeOf));

  const findings: Finding[] = [await unreadErasures(search, stateOf('erasures')?.name, tracesOf('erasures'))];
  for (const state of states) {
    const place = `topic ${state.name}`;
    const traces = tracesOf(state.role);
    if (state.partitions === undefined) findings.push(nothingIn(place, 'there is no such topic'));
    else if (state.role === 'erasures') findings.push(erasuresFinding(place, traces, state));
    else if (state.cleanupPolicy?.includes('compact') === true) findings.push(compactedFinding(place, traces, isOld));
    else findings.push(logFinding(place, traces, state.role === 'userActions' ? isTaken : isBefore, state));
  }
  const returned = currentOf(tracesOf('changelog')).some((trace) => !isBefore(trace));
  return { findings, erasedAtMs, returned };
}

/** @param places takes, by `partition/offset`, where erasures were carried out */
async function tracesIn({ name, role }: TopicState, search: TopicSearch, places: Map<string, ErasurePlace>): Promise<Trace[]> {
  const { kafka, prepare, onProgress, signal } = search;
  const traceOf = traceReader(role, search);
  const traces: Trace[] = [];
  let records = 0;
  const ranges = await resolveRanges(kafka, name, () => ({}));
  for await (const part of readRanges(kafka, ranges, LIMITS, signal)) {
    if (role !== 'changelog') await prepare?.(part);
    for (const record of part) {
      const trace = traceOf(record);
      if (trace !== undefined) traces.push(trace);
      const place = role === 'changelog' ? decodePlace(record.key, record.value as Uint8Array | null) : undefined;
      if (place !== undefined) places.set(`${record.position.partition}/${place.offset}`, place);
    }
    records += part.length;
    onProgress?.(name, records);
  }
  return traces;
}

/** Tells the user's records of a topic from others'. */
function traceReader(
  role: TopicState['role'],
  { userId, config, codec, decoder }: TopicSearch,
): (record: SourceRecord) => Trace | undefined {
  const keys = new UserKeys(userId);
  const isKey = (key: Uint8Array | null | undefined) => key != null && Buffer.from(key).toString() === userId;
  const decoded = (record: SourceRecord) => {
    const result = decoder.decode(record);
    return result.ok ? result.actions[0] : undefined;
  };
  const trace = ({ position, key, value, timestampMs = 0 }: SourceRecord, more: Partial<Trace> = {}): Trace => ({
    partition: position.partition,
    offset: position.offset,
    timestampMs,
    key: key == null ? '' : Buffer.from(key).toString('latin1'),
    isTombstone: value === null,
    ...more,
  });
  switch (role) {
    case 'changelog':
      return (record) => (record.key != null && keys.owns(record.key) ? trace(record) : undefined);
    case 'source':
    case 'userActions':
      return (record) => {
        const action = decoded({ ...record, position: { ...record.position, topic: config.kafka.topics.userActions } });
        if (action === undefined ? !isKey(record.key) : action.userId !== userId) return undefined;
        return trace(record, { isErasure: action?.action === config.sequence.erasureAction });
      };
    case 'candidateRequests':
      return (record) => {
        const result = decoder.decodeRequest(record);
        return (result.ok ? result.request.userId === userId : isKey(record.key)) ? trace(record) : undefined;
      };
    case 'userEmbeddings':
      return (record) => {
        if (!isKey(record.key)) return undefined;
        const embedding = record.value === null ? undefined : codec.decode('UserEmbedding', record.value as Uint8Array);
        if (embedding === undefined || embedding instanceof Fault) return trace(record);
        const { topic, partition, offset } = embedding.lineage;
        return trace(record, { ...(topic === config.kafka.topics.userActions && { madeOf: `${partition}/${offset}` }) });
      };
    case 'deadLetters':
      return (record) => {
        const letter = record.value === null ? undefined : codec.decode('DeadLetter', record.value as Uint8Array);
        if (letter === undefined || letter instanceof Fault) return isKey(record.key) ? trace(record) : undefined;
        const { position, original, originalKey, timestampMs } = letter;
        const again = { position, value: original, key: originalKey ?? null, timestampMs: timestampMs ?? 0 };
        const isOf = isKey(record.key) || isKey(originalKey) || decoded(again)?.userId === userId;
        return isOf ? trace(record, timestampMs === undefined ? {} : { timestampMs }) : undefined;
      };
    default:
      return (record) => (isKey(record.key) ? trace(record) : undefined);
  }
}

/** An erasure that the stream has not come to has erased nothing. */
async function unreadErasures(
  { kafka, config }: TopicSearch,
  topic: string | undefined,
  erasures: readonly Trace[],
): Promise<Finding> {
  const group = config.kafka.applicationId;
  const place = `group ${group}`;
  if (topic === undefined) return nothingIn(place);
  const committed = await committedBy(kafka, group, [topic]);
  const unread = erasures.filter(({ partition, offset }) => (committed.get(`${partition}/${topic}`) ?? 0) <= offset);
  if (unread.length === 0) return nothingIn(place, erasures.length === 0 ? 'no erasure of this user was asked for' : '');
  return { ...nothingIn(place, `erasures that the stream has not read: is \`run\` up?`), leftOver: unread.length };
}

/** Of each key, and partition, the last record, where it is no tombstone. */
function currentOf(traces: readonly Trace[]): Trace[] {
  const last = new Map(traces.map((trace) => [`${trace.partition}/${trace.key}`, trace]));
  return [...last.values()].filter(({ isTombstone }) => !isTombstone);
}

function compactedFinding(place: string, traces: readonly Trace[], isOld: (trace: Trace) => boolean): Finding {
  const current = currentOf(traces);
  const leftOver = current.filter(isOld).length;
  const expiring = traces.filter(({ isTombstone }) => !isTombstone).length - current.length;
  const note = expiring === 0 ? '' : 'replaced records, until the log is compacted';
  return { place, leftOver, expiring, later: current.length - leftOver, note };
}

function logFinding(place: string, traces: readonly Trace[], isBefore: (trace: Trace) => boolean, state: TopicState): Finding {
  const records = traces.filter(({ isTombstone, isErasure }) => !isTombstone && isErasure !== true);
  const old = records.filter(isBefore);
  return { place, leftOver: 0, expiring: old.length, later: records.length - old.length, note: retentionNote(old, state) };
}

const erasuresFinding = (place: string, traces: readonly Trace[], state: TopicState): Finding => ({
  ...nothingIn(place, traces.length === 0 ? '' : `name the user; ${retentionNote(traces, state)}`),
  expiring: traces.length,
});

function retentionNote(traces: readonly Trace[], { retentionMs = -1 }: TopicState): string {
  if (traces.length === 0) return '';
  if (retentionMs < 0) return 'stay for ever: retention.ms is -1';
  const untilMs = Math.max(...traces.map(({ timestampMs }) => timestampMs)) + retentionMs;
  return `by retention, from ${new Date(untilMs).toISOString().slice(0, 16)}Z on`;
}
