/** What the pipeline reads back: how far a run has come, and the newest of a user. */
import type { Candidate, Lineage, UserEmbedding } from '../../schemas/output.ts';
import type { ClickHouse } from './clickhouse.ts';
import { OUTPUT_TABLES, type OutputTable, RUN_TABLES } from './output-rows.ts';

export interface RunProgress {
  readonly runId: string;
  /** How many records of the merged source are committed: where the run goes on. */
  readonly position: number;
  readonly total: number | undefined;
  readonly finished: boolean;
  readonly updatedAtMs: number;
  readonly facts: Readonly<Record<string, unknown>>;
}

export type StoredEmbedding = Pick<Lineage, 'sequenceDigest' | 'modelDigest'> &
  Pick<UserEmbedding, 'userId' | 'version' | 'embedding' | 'sequenceLength' | 'lastEventTimeMs' | 'queryTimeMs' | 'computedAtMs'>;

export interface StoredScores {
  readonly userId: string;
  readonly version: number;
  /** Best first. */
  readonly candidates: readonly Candidate[];
  readonly computedAtMs: number;
}

interface ProgressRow {
  readonly run_id: string;
  readonly position: number;
  readonly total: number | null;
  readonly finished: boolean;
  readonly updated_ms: number;
  readonly facts: string;
}

const PROGRESS =
  'SELECT run_id, position, total, finished, toUnixTimestamp64Milli(updated_at) AS updated_ms, facts FROM progress FINAL';

/** Undefined for a run that never committed. */
export async function readProgress(clickhouse: ClickHouse, runId: string): Promise<RunProgress | undefined> {
  const [row] = await clickhouse.rows<ProgressRow>(`${PROGRESS} WHERE run_id = {runId:String}`, { runId });
  return row === undefined ? undefined : progressOf(row);
}

/** Every replay and backfill, the last one to move first. */
export async function readRuns(clickhouse: ClickHouse): Promise<RunProgress[]> {
  const rows = await clickhouse.rows<ProgressRow>(`${PROGRESS} ORDER BY updated_at DESC, run_id`);
  return rows.map(progressOf);
}

/** Name of the run, replay or live, that moved last; undefined where there is none. */
export async function newestRun(clickhouse: ClickHouse): Promise<string | undefined> {
  const [row] = await clickhouse.rows<{ run_id: string }>('SELECT run_id FROM runs ORDER BY updated_at DESC, run_id LIMIT 1');
  return row?.run_id;
}

const progressOf = (row: ProgressRow): RunProgress => ({
  runId: row.run_id,
  position: row.position,
  total: row.total ?? undefined,
  finished: row.finished,
  updatedAtMs: row.updated_ms,
  facts: JSON.parse(row.facts) as Record<string, unknown>,
});

/** The newest embedding of each of these users, by user; users without one are left out. */
export async function latestEmbeddings(
  clickhouse: ClickHouse,
  runId: string,
  userIds: readonly string[],
): Promise<Map<string, StoredEmbedding>> {
  if (userIds.length === 0) return new Map();
  const rows = await clickhouse.rows<{
    user_id: string;
    version: number;
    embedding: (number | null)[];
    sequence_length: number;
    last_event_ms: number;
    query_ms: number;
    sequence_digest: string;
    model_digest: string;
    computed_ms: number;
  }>(
    `SELECT user_id, version, embedding, sequence_length, toUnixTimestamp64Milli(last_event_time) AS last_event_ms,
       toUnixTimestamp64Milli(query_time) AS query_ms, sequence_digest, model_digest, toUnixTimestamp64Milli(computed_at) AS computed_ms
     FROM embeddings
     WHERE run_id = {runId:String} AND user_id IN {userIds:Array(String)}
     ORDER BY user_id, version DESC
     LIMIT 1 BY user_id`,
    { runId, userIds },
  );
  return new Map(
    rows.map((row) => [
      row.user_id,
      {
        userId: row.user_id,
        version: row.version,
        // ClickHouse writes NaN and infinities as null.
        embedding: Float32Array.from(row.embedding, (value) => value ?? Number.NaN),
        sequenceLength: row.sequence_length,
        lastEventTimeMs: row.last_event_ms,
        queryTimeMs: row.query_ms,
        sequenceDigest: row.sequence_digest,
        modelDigest: row.model_digest,
        computedAtMs: row.computed_ms,
      },
    ]),
  );
}

/** A user's newest scores, or the newest before a version; answers to requests do not count. */
export async function latestScores(
  clickhouse: ClickHouse,
  runId: string,
  userId: string,
  beforeVersion: number = Number.MAX_SAFE_INTEGER,
): Promise<StoredScores | undefined> {
  const [row] = await clickhouse.rows<{ version: number; entities: string[]; scores: number[]; computed_ms: number }>(
    `SELECT version, entities, scores, toUnixTimestamp64Milli(computed_at) AS computed_ms
     FROM scores
     WHERE run_id = {runId:String} AND user_id = {userId:String} AND request_id = '' AND version < {beforeVersion:UInt64}
     ORDER BY version DESC
     LIMIT 1`,
    { runId, userId, beforeVersion },
  );
  if (row === undefined) return undefined;
  const candidates = row.entities.map((entity, i) => ({ entity, score: row.scores[i] ?? Number.NaN }));
  return { userId, version: row.version, candidates, computedAtMs: row.computed_ms };
}

/** An event of a user's sequence, as it was stored. */
export interface StoredEvent {
  readonly action: string;
  readonly entity: string;
  readonly value?: number;
  readonly eventTimeMs: number;
}

/** All that a user's sequence took in of a run, by event time, ties by arrival. */
export async function sequenceEvents(clickhouse: ClickHouse, runId: string, userId: string): Promise<StoredEvent[]> {
  const rows = await clickhouse.rows<{ action: string; entity: string; value: number | null; time_ms: number }>(
    `SELECT action, entity, value, toUnixTimestamp64Milli(event_time) AS time_ms
     FROM actions FINAL
     WHERE run_id = {runId:String} AND user_id = {userId:String} AND disposition IN ('appended', 'inserted')
     ORDER BY event_time, topic, partition, offset`,
    { runId, userId },
  );
  return rows.map(({ action, entity, value, time_ms }) => ({
    action,
    entity,
    ...(value !== null && { value }),
    eventTimeMs: time_ms,
  }));
}

/** Rows of a run in every table, replaced ones not counted. */
export async function countRows(clickhouse: ClickHouse, runId: string): Promise<Record<OutputTable, number>> {
  const counts = OUTPUT_TABLES.map(
    (table) => `SELECT '${table}' AS table, count() AS rows FROM ${table} FINAL WHERE run_id = {runId:String}`,
  );
  const rows = await clickhouse.rows<{ table: OutputTable; rows: number }>(counts.join(' UNION ALL '), { runId });
  return Object.fromEntries(rows.map(({ table, rows: count }) => [table, count])) as Record<OutputTable, number>;
}

/** Removes all of a run. Its progress goes first: a drop that is cut short leaves rows, never a position without them. */
export async function dropRun(clickhouse: ClickHouse, runId: string): Promise<void> {
  await clickhouse.command('DELETE FROM progress WHERE run_id = {runId:String}', { runId });
  for (const table of RUN_TABLES) await clickhouse.command(`ALTER TABLE ${table} DROP PARTITION {runId:String}`, { runId });
}
