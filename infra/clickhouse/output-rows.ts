/** What a batch writes, table by table, as JSON rows. */
import type { DeadLetter, Disposition, PositionedAction } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { CandidateScores, Lineage, PrequentialRank, UserEmbedding } from '../../schemas/output.ts';

/** Columns in the order of the rows. */
export const TABLE_COLUMNS = {
  actions: [
    'run_id',
    'user_id',
    'event_time',
    'event_id',
    'action',
    'entity',
    'value',
    'disposition',
    'context',
    'topic',
    'partition',
    'offset',
    'part',
  ],
  embeddings: [
    'run_id',
    'user_id',
    'version',
    'embedding',
    'sequence_length',
    'last_event_time',
    'query_time',
    'sequence_digest',
    'model_digest',
    'topic',
    'partition',
    'offset',
    'computed_at',
    'latency_ms',
    'rows_computed',
    'outcome',
  ],
  scores: [
    'run_id',
    'user_id',
    'version',
    'request_id',
    'entities',
    'scores',
    'sequence_digest',
    'model_digest',
    'topic',
    'partition',
    'offset',
    'computed_at',
    'cold_start',
    'query_time',
    'age_ms',
    'tasks',
    'left_out',
  ],
  quality: [
    'run_id',
    'user_id',
    'event_time',
    'event_id',
    'action',
    'entity',
    'prior_events',
    'rank',
    'sequence_digest',
    'model_digest',
    'topic',
    'partition',
    'offset',
  ],
  dead_letters: ['run_id', 'topic', 'partition', 'offset', 'code', 'step', 'message', 'original', 'encoding'],
} as const;

/** Tables that hold what batches put out. */
export type OutputTable = keyof typeof TABLE_COLUMNS;
export const OUTPUT_TABLES = Object.keys(TABLE_COLUMNS) as readonly OutputTable[];

/** Every table that is partitioned by the run. */
export const RUN_TABLES = [...OUTPUT_TABLES, 'embeddings_current', 'outcomes'] as const;

/** Those of a replay whose rows belong to a user. */
export const USER_TABLES = ['actions', 'embeddings', 'embeddings_current', 'scores', 'quality'] as const;

export type OutputRows = Record<OutputTable, string[]>;

export const emptyRows = (): OutputRows => ({ actions: [], embeddings: [], scores: [], quality: [], dead_letters: [] });

/** Appends the batch's rows to `rows`; how many they are. */
export function appendRows(rows: OutputRows, runId: string, batch: OutputBatch): number {
  for (const { action, disposition } of batch.processed) rows.actions.push(actionRow(runId, action, disposition));
  for (const embedding of batch.embeddings) rows.embeddings.push(embeddingRow(runId, embedding));
  for (const scores of batch.scores) rows.scores.push(scoresRow(runId, scores));
  for (const rank of batch.quality) rows.quality.push(qualityRow(runId, rank));
  for (const letter of batch.deadLetters) rows.dead_letters.push(deadLetterRow(runId, letter));
  return batch.processed.length + batch.embeddings.length + batch.scores.length + batch.quality.length + batch.deadLetters.length;
}

/** @param disposition empty where the action's topic does not say it */
export function actionRow(runId: string, action: PositionedAction, disposition: Disposition | ''): string {
  const { eventId, userId, eventTimeMs, entity, value, context, position, part = 0 } = action;
  return JSON.stringify([
    runId,
    userId,
    timeText(eventTimeMs),
    eventId,
    action.action,
    entity,
    value ?? null,
    disposition,
    context ?? {},
    position.topic,
    position.partition,
    position.offset,
    part,
  ]);
}

export function embeddingRow(runId: string, item: UserEmbedding): string {
  const before = JSON.stringify([runId, item.userId, item.version]).slice(0, -1);
  const after = JSON.stringify([
    item.sequenceLength,
    timeText(item.lastEventTimeMs),
    timeText(item.queryTimeMs),
    ...lineageCells(item.lineage),
    timeText(item.computedAtMs),
    item.latencyMs,
    item.rowsComputed,
    item.outcome,
  ]).slice(1);
  return `${before},${floatsText(item.embedding)},${after}`;
}

export function scoresRow(runId: string, answer: CandidateScores): string {
  const { userId, version, requestId, candidates, lineage, computedAtMs, coldStart, queryTimeMs, ageMs, tasks, leftOut } = answer;
  return JSON.stringify([
    runId,
    userId,
    version,
    requestId ?? '',
    candidates.map(({ entity }) => entity),
    candidates.map(({ score }) => numberCell(score)),
    ...lineageCells(lineage),
    timeText(computedAtMs),
    coldStart ?? false,
    queryTimeMs === undefined ? null : timeText(queryTimeMs),
    ageMs ?? null,
    Object.fromEntries(Object.entries(tasks ?? {}).map(([task, values]) => [task, Array.from(values, numberCell)])),
    Object.fromEntries((leftOut ?? []).map(({ entity, reason }) => [entity, reason])),
  ]);
}

export function qualityRow(runId: string, rank: PrequentialRank): string {
  const { userId, eventId, action, entity, eventTimeMs, priorEvents, lineage } = rank;
  const what = [runId, userId, timeText(eventTimeMs), eventId, action, entity, priorEvents, rank.rank];
  return JSON.stringify([...what, ...lineageCells(lineage)]);
}

const lineageCells = ({ sequenceDigest, modelDigest, topic, partition, offset }: Lineage) => [
  sequenceDigest,
  modelDigest,
  topic,
  partition,
  offset,
];

/** `2009-12-14 02:52:24.000`: the one form that ClickHouse never takes for seconds. */
export const timeText = (ms: number): string => new Date(ms).toISOString().slice(0, 23).replace('T', ' ');

/** JSON has no NaN and no infinities, ClickHouse reads them from strings; they must not become zeros. */
const numberCell = (value: number): number | string => (Number.isFinite(value) ? value : String(value).toLowerCase());

const floatsText = (values: Float32Array): string =>
  values.every(Number.isFinite) ? `[${values.join(',')}]` : JSON.stringify(Array.from(values, numberCell));

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function deadLetterRow(runId: string, { position, code, step, message, original }: DeadLetter): string {
  const { topic, partition, offset } = position;
  const [text, encoding] = originalText(original ?? '');
  return JSON.stringify([runId, topic, partition, offset, code, step, wellFormed(message), text, encoding]);
}

export function originalText(original: Uint8Array | string): [text: string, encoding: 'text' | 'base64'] {
  if (typeof original === 'string') return [wellFormed(original), 'text'];
  try {
    return [utf8.decode(original), 'text'];
  } catch {
    return [Buffer.from(original).toString('base64'), 'base64'];
  }
}

/** Lone surrogates, which no UTF-8 store takes, become U+FFFD. */
const wellFormed = (text: string): string => (/\p{Surrogate}/u.test(text) ? Buffer.from(text).toString() : text);
