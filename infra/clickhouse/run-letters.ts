/** The dead letters of a run, some at a time. */
import type { ClickHouse } from './clickhouse.ts';

export interface LetterRow {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly original: string;
  /** `text`, or `base64` for bytes that are no UTF-8. */
  readonly encoding: string;
  /** The record's key; empty where it had none, or where that is not known. */
  readonly userId: string;
  /** Length of the original where `original` is only its beginning, bytes; 0: it is whole. */
  readonly cutFrom: number;
}

/** Letters held at once: an original may have a megabyte. */
const PAGE = 500;

/** By topic, partition and offset. */
export async function* lettersOfRun(clickhouse: ClickHouse, runId: string): AsyncGenerator<readonly LetterRow[]> {
  let after = { topic: '', partition: 0, offset: 0 };
  for (;;) {
    const rows = await clickhouse.rows<LetterRow>(
      `SELECT topic, partition, offset, original, encoding, user_id AS userId, cut_from AS cutFrom
       FROM dead_letters FINAL
       WHERE run_id = {runId:String} AND (topic, partition, offset) > ({topic:String}, {partition:UInt32}, {offset:UInt64})
       ORDER BY topic, partition, offset
       LIMIT ${PAGE}`,
      { runId, ...after },
    );
    if (rows.length === 0) return;
    yield rows;
    after = rows.at(-1)!;
  }
}
