/** Runs as folders of JSON lines or Parquet. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from '../../infra/clickhouse/connect.ts';
import { toParquet } from '../../infra/clickhouse/parquet.ts';
import { FileRunWriter, type RunFormat, readManifest, runsIn } from '../../infra/files/run-folder.ts';
import type { RunFile } from '../../infra/files/run-rows.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type BackfillOutput, checkpoints, lettersBatch, type RunStart, type RunWriter } from './backfill-output.ts';

export async function fileOutput(config: Config, format: RunFormat): Promise<BackfillOutput> {
  const { path, partBytes } = config.backfill;
  const folderOf = (runId: string) => join(path, runId);
  // Parquet is written by the ClickHouse engine.
  const clickhouse = format === 'parquet' ? await connect(config.clickhouse) : undefined;
  const encodeOf = (runId: string) => async (kind: RunFile, lines: readonly string[]) =>
    clickhouse === undefined
      ? Buffer.from(`${lines.join('\n')}\n`)
      : toParquet(clickhouse, `part_${kind}_${runId.replaceAll('-', '_')}`, kind, lines);
  return {
    place: format,
    where: path,
    keepsState: false,
    async open({ runId, total, facts, letters }: RunStart): Promise<RunWriter> {
      const folder = folderOf(runId);
      const other = await readManifest(folder);
      if (other !== undefined && other.format !== format)
        throw new PipelineError(
          'CONFIG_INVALID',
          `run ${runId} in ${folder} is of ${other.format}: drop it (hstu-streams runs drop), or give --to ${other.format}`,
        );
      const writer = await FileRunWriter.open({
        folder,
        format,
        partBytes,
        run: { runId, total, facts },
        encode: encodeOf(runId),
      });
      if (writer.isNew) {
        await writer.write(lettersBatch(letters), { position: 0 });
        await writer.flush(false);
      }
      const checkpointOf = checkpoints(writer);
      let failed = false;
      const noted = async (work: Promise<void>) => {
        await work.catch((error: unknown) => {
          failed = true;
          throw error;
        });
      };
      return {
        position: writer.position,
        batchesDone: writer.batchesDone,
        write: (batch) => noted(writer.write(batch, checkpointOf(batch))),
        finish: () => noted(writer.flush(true)),
        close: async () => {
          if (!failed && !writer.isFinished) await writer.flush(false);
        },
      };
    },
    runs: () => runsIn(path, format),
    drop: (runId) => rm(folderOf(runId), { recursive: true, force: true }),
    async count(runId) {
      const counts: Record<string, number> = {};
      for (const { kind, rows } of (await readManifest(folderOf(runId)))?.parts ?? []) counts[kind] = (counts[kind] ?? 0) + rows;
      return counts;
    },
    close: async () => clickhouse?.close(),
  };
}
