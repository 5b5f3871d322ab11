/** Runs in the tables of ClickHouse: rows keyed by run and lineage, so that what is written again is there once. */
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { countRows, dropRun, readProgress, readRuns } from '../../infra/clickhouse/readers.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { Config } from '../../schemas/config.ts';
import { type BackfillOutput, lettersBatch, type RunStart, type RunWriter } from './backfill-output.ts';

/** Dead letters stored at once. */
const LETTERS = 1_000;

export async function clickhouseOutput(config: Config['clickhouse']): Promise<BackfillOutput> {
  const clickhouse = await connect(config);
  return {
    place: 'clickhouse',
    where: clickhouse.where,
    keepsState: false,
    async open({ runId, total, facts, letters }: RunStart): Promise<RunWriter> {
      const position = (await readProgress(clickhouse, runId))?.position ?? 0;
      const sink = new ClickHouseSink(clickhouse, { runId, total, facts });
      for (let at = 0; at < letters.length; at += LETTERS) await sink.write(lettersBatch(letters.slice(at, at + LETTERS)), 0);
      return {
        position,
        batchesDone: 0,
        write: (batch: OutputBatch) => sink.write(batch, batch.source.nextOffset),
        finish: (end) => sink.finish(end),
        close: () => sink.drained(),
      };
    },
    runs: () => readRuns(clickhouse),
    drop: (runId) => dropRun(clickhouse, runId),
    count: (runId) => countRows(clickhouse, runId),
    close: () => clickhouse.close(),
  };
}
