/** Rows as a Parquet file, made by ClickHouse: through a table in memory, so that a server elsewhere serves as well. */
import type { ClickHouse } from './clickhouse.ts';

const LINEAGE = 'sequence_digest String, model_digest String, topic String, partition UInt32, offset UInt64';
const TIME = "DateTime64(3, 'UTC')";

/** Columns by kind of row. */
const COLUMNS: Readonly<Record<string, string>> = {
  embeddings: `run_id String, user_id String, version UInt64, embedding Array(Float32), sequence_length UInt32, last_event_time ${TIME}, query_time ${TIME}, ${LINEAGE}`,
  scores: `run_id String, user_id String, version UInt64, entities Array(String), scores Array(Float32), ${LINEAGE}`,
  quality: `run_id String, user_id String, event_id String, event_time ${TIME}, action String, entity String, prior_events UInt64, rank UInt32, ${LINEAGE}`,
  dead_letters:
    'run_id String, topic String, partition UInt32, offset UInt64, code String, step String, message String, original String, encoding String',
};

/**
 * @param name of the table in memory: distinct among those who write at once; one that is left over is replaced
 * @param lines rows as JSON objects
 * @returns the bytes of a Parquet file with the rows in their order
 */
export async function toParquet(
  clickhouse: ClickHouse,
  name: string,
  kind: string,
  lines: readonly string[],
): Promise<Uint8Array> {
  const drop = `DROP TABLE IF EXISTS ${name} SYNC`;
  await clickhouse.command(drop);
  try {
    await clickhouse.command(`CREATE TABLE ${name} (${COLUMNS[kind]}) ENGINE = Memory`);
    const settings = "date_time_input_format = 'best_effort', max_threads = 1, max_insert_threads = 1";
    await clickhouse.command(`INSERT INTO ${name} SETTINGS ${settings} FORMAT JSONEachRow\n${lines.join('\n')}\n`);
    return await clickhouse.bytes(
      `SELECT * FROM ${name} SETTINGS max_threads = 1, output_format_parquet_string_as_string = 1, output_format_parquet_parallel_encoding = 0 FORMAT Parquet`,
    );
  } finally {
    await clickhouse.command(drop);
  }
}
