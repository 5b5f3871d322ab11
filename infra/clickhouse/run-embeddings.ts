/** The stored embeddings of a run, users at a time: what a verification compares with. */
import type { StoredState } from '../../schemas/stored-state.ts';
import type { ClickHouse } from './clickhouse.ts';

/** All versions of these users, by user and version. */
export async function embeddingsOfUsers(
  clickhouse: ClickHouse,
  runId: string,
  userIds: readonly string[],
): Promise<Map<string, Map<number, StoredState>>> {
  const rows = await clickhouse.rows<{
    user_id: string;
    version: number;
    embedding: (number | null)[];
    sequence_digest: string;
    model_digest: string;
    query_ms: number;
  }>(
    `SELECT user_id, version, embedding, sequence_digest, model_digest, toUnixTimestamp64Milli(query_time) AS query_ms
     FROM embeddings FINAL
     WHERE run_id = {runId:String} AND user_id IN {userIds:Array(String)}`,
    { runId, userIds },
  );
  const users = new Map<string, Map<number, StoredState>>();
  for (const row of rows) {
    const versions = users.get(row.user_id) ?? new Map<number, StoredState>();
    users.set(row.user_id, versions);
    versions.set(row.version, {
      // ClickHouse writes NaN and infinities as null.
      embedding: Float32Array.from(row.embedding, (value) => value ?? Number.NaN),
      sequenceDigest: row.sequence_digest,
      modelDigest: row.model_digest,
      queryTimeMs: row.query_ms,
    });
  }
  return users;
}

/** Users of whom the run has stored an embedding. */
export async function usersOfRun(clickhouse: ClickHouse, runId: string): Promise<string[]> {
  const rows = await clickhouse.rows<{ user_id: string }>(
    'SELECT DISTINCT user_id FROM embeddings WHERE run_id = {runId:String}',
    { runId },
  );
  return rows.map(({ user_id }) => user_id);
}
