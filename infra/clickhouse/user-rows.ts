/** A user's rows, of all runs: what there are, and their removal. */
import type { ClickHouse } from './clickhouse.ts';
import { userHash } from './feed/erasures.ts';

/** Tables whose rows belong to a user, with the time that an erasure goes by. */
const TIME_OF = {
  actions: 'recorded_at',
  embeddings: 'published_at',
  embeddings_current: 'published_at',
  scores: 'published_at',
  quality: 'published_at',
  outcomes: 'published_at',
  dead_letters: 'published_at',
} as const;

export interface UserRows {
  readonly table: string;
  readonly runId: string;
  /** Rows up to the erasure; of actions, those recorded up to it, of the others, those published before it was carried out. */
  readonly before: number;
  readonly after: number;
}

export interface ErasureTimes {
  /** Up to when the user's actions are erased, ms since the epoch; 0 for never. */
  readonly actionsMs: number;
  /** Before when what was published of the user is erased, ms since the epoch; 0 for never. */
  readonly outputsMs: number;
}

/** When a user was last erased from a run, as the sink has it. */
export async function erasureTimes(clickhouse: ClickHouse, runId: string, userId: string): Promise<ErasureTimes> {
  const [row] = await clickhouse.rows<{ actions_ms: number; outputs_ms: number }>(
    `SELECT maxIf(toUnixTimestamp64Milli(erased_at), scope = 'actions') AS actions_ms,
       maxIf(toUnixTimestamp64Milli(erased_at), scope = 'outputs') AS outputs_ms
     FROM erasures WHERE run_id = {runId:String} AND user_hash = {hash:String}`,
    { runId, hash: userHash(userId) },
  );
  return { actionsMs: row?.actions_ms ?? 0, outputsMs: row?.outputs_ms ?? 0 };
}

/** How many rows each table and run has of a user; tables and runs without any are left out. Replaced rows count as well. */
export async function countUserRows(
  clickhouse: ClickHouse,
  userId: string,
  { actionsMs, outputsMs }: ErasureTimes,
): Promise<readonly UserRows[]> {
  const counts = Object.entries(TIME_OF).map(([table, time]) => {
    const until = table === 'actions' ? `<= {actionsMs:Int64}` : `< {outputsMs:Int64}`;
    return `SELECT '${table}' AS table, run_id, countIf(toUnixTimestamp64Milli(${time}) ${until}) AS before, count() - before AS after
      FROM ${table} WHERE user_id = {userId:String} GROUP BY run_id`;
  });
  const rows = await clickhouse.rows<{ table: string; run_id: string; before: number; after: number }>(
    `${counts.join(' UNION ALL ')} ORDER BY run_id, table`,
    { userId, actionsMs, outputsMs },
  );
  return rows.map(({ table, run_id, before, after }) => ({ table, runId: run_id, before, after }));
}

/** Removes a user's rows from all runs but one, whose sink does it. */
export async function eraseUserRows(clickhouse: ClickHouse, userId: string, exceptRunId = ''): Promise<void> {
  for (const table of Object.keys(TIME_OF))
    await clickhouse.command(`DELETE FROM ${table} WHERE user_id = {userId:String} AND run_id != {exceptRunId:String}`, {
      userId,
      exceptRunId,
    });
}
