/** `hstu-streams replay`: backfill from files into ClickHouse. */
import type { Command } from 'commander';
import { runQuery } from '../../infra/clickhouse/queries.ts';
import { countRows } from '../../infra/clickhouse/readers.ts';
import { count, duration, mebibytes, percent } from '../../infra/console/format.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { loadConfig } from '../load-config.ts';
import { INTERRUPTED } from './interrupt.ts';
import { collect, positiveInteger } from './options.ts';
import { runReplay, stoppedAt } from './run-replay.ts';

export function addReplay(program: Command): void {
  program
    .command('replay')
    .description('encode the events of files, in event-time order, into ClickHouse; resumable and idempotent')
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--limit <events>', 'stop after this many events of the merged order', positiveInteger)
    .option('--fresh', 'drop what an earlier replay of the same run has written, and begin anew')
    .option('--set <key=value>', 'override a setting, such as encoder.workers=2 (repeatable)', collect, [])
    .action(async (options: { config: string; limit?: number; fresh?: true; set: string[] }) => {
      const config = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
      const result = await runReplay(config, options);
      try {
        const { totals, runId, clickhouse, elapsedMs, encoder } = result;
        console.log(heading(`Run ${runId}`));
        console.log(
          facts([
            [
              'events now',
              `${count(totals.events)} in ${duration(elapsedMs)} (${count((1000 * totals.events) / Math.max(1, elapsedMs))}/s)`,
            ],
            ['position', `${count(result.position)} of ${count(result.total)}`],
            ['cache hits', percent(totals.cacheHits / totals.embeddings)],
            [
              'KV cache',
              `${mebibytes(encoder.kvBytesUsed)} of ${mebibytes(encoder.kvBytesBudget)}, ${count(encoder.users)} users`,
            ],
            ['peak memory', `${mebibytes(result.peakRssBytes)} (budget ${mebibytes(config.memoryBudgetBytes)})`],
            ['ClickHouse', clickhouse.where],
          ]),
        );
        console.log(table([await countRows(clickhouse, runId)]));
        const letters = await runQuery(clickhouse, 'dead-letter-summary', { run_id: runId });
        if (letters.length > 0) console.log(`${heading('Dead letters')}\n${table(letters)}`);
        if (result.interrupted) {
          console.log(stoppedAt(result));
          process.exitCode = INTERRUPTED;
        }
      } finally {
        await result.clickhouse.close();
      }
    });
}
