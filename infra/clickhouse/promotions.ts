/** The run that stands for a deployment: one row a name, replaced as a whole. */
import type { ClickHouse } from './clickhouse.ts';
import { timeText } from './output-rows.ts';

/** @param name `kafka.applicationId`; empty without Kafka @returns undefined where none was promoted */
export async function promotedRun(clickhouse: ClickHouse, name: string): Promise<string | undefined> {
  const [row] = await clickhouse.rows<{ run_id: string }>('SELECT run_id FROM promotions FINAL WHERE name = {name:String}', {
    name,
  });
  return row?.run_id;
}

/** By name, those for which the run stands. */
export async function promotionsOf(clickhouse: ClickHouse, runId: string): Promise<string[]> {
  const rows = await clickhouse.rows<{ name: string }>(
    'SELECT name FROM promotions FINAL WHERE run_id = {runId:String} ORDER BY name',
    { runId },
  );
  return rows.map(({ name }) => name);
}

export const writePromotion = (clickhouse: ClickHouse, name: string, runId: string): Promise<void> =>
  clickhouse.insert('promotions', ['name', 'run_id', 'promoted_at'], [JSON.stringify([name, runId, timeText(Date.now())])]);
