/** `hstu-streams replay`: backfill from files into ClickHouse. */
import { type Command, Option } from 'commander';
import { runQuery } from '../../infra/clickhouse/queries.ts';
import { countRows } from '../../infra/clickhouse/readers.ts';
import { count, duration, mebibytes, percent } from '../../infra/console/format.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { loadConfig } from '../load-config.ts';
import { PLACES } from '../replay/open-output.ts';
import { INTERRUPTED } from './interrupt.ts';
import { collect, positiveInteger, wholeNumber } from './options.ts';
import { type BackfillFlags, MODES, runBackfill, SOURCES } from './run-backfill.ts';
import { runReplay, stoppedAt } from './run-replay.ts';

interface ReplayFlags extends Omit<BackfillFlags, 'mode'> {
  readonly config: string;
  readonly limit?: number;
  readonly mode?: BackfillFlags['mode'];
  readonly set: string[];
}

const BULK_FLAGS = [
  'asOf',
  'from',
  'offsets',
  'since',
  'until',
  'against',
  'lettersOf',
  'ranks',
  'maxRate',
  'parallel',
  'memory',
  'to',
  'nice',
  'dryRun',
] as const;
const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

export function addReplay(program: Command): void {
  program
    .command('replay')
    .description(
      'encode the events of files, or with --mode of Kafka too, into ClickHouse, Kafka or files; resumable and idempotent',
    )
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--limit <events>', 'stop after this many events of the merged order', positiveInteger)
    .option('--fresh', 'drop what an earlier replay of the same run has written, and begin anew')
    .addOption(new Option('--mode <mode>', 'in bulk, user by user; without it every event is stepped').choices(MODES))
    .option('--as-of <time>', 'of --mode as-of: the moment, ISO or ms since the epoch')
    .addOption(new Option('--from <source>', 'where events are read; without it files if there are any').choices(SOURCES))
    .option('--offsets <ranges>', 'of Kafka: PARTITION:FROM-TO,… ; without it the whole log')
    .option('--since <time>', 'of Kafka: from the first record of this time on')
    .option('--until <time>', 'of Kafka: up to the first record of this time')
    .option('--against <run>', 'of --mode verify: a run id, or kafka for the topic of embeddings')
    .option('--letters-of <run>', 'of --from dead-letters: those of a run in ClickHouse, not of the topic')
    .addOption(new Option('--to <place>', 'where the run goes; without it as backfill.to says').choices(PLACES))
    .option('--dry-run', 'count and estimate, store nothing')
    .option('--ranks', 'rank every event as well, and list the best entities at the end of each history')
    .option('--max-rate <events>', 'events a second, at most', positiveInteger)
    .option('--parallel <threads>', 'encoder threads', positiveInteger)
    .option('--nice <n>', 'priority below other processes, 0 to 19; 10 without it', wholeNumber)
    .option('--memory <MiB>', 'what sorting may hold in memory; the rest lies on disk', positiveInteger)
    .option('--set <key=value>', 'override a setting, such as encoder.workers=2 (repeatable)', collect, [])
    .action(async (options: ReplayFlags) => {
      const config = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
      const { mode } = options;
      if (mode !== undefined) {
        if (options.limit !== undefined) throw new PipelineError('CONFIG_INVALID', '--limit: not with --mode');
        return runBackfill(config, { ...options, mode });
      }
      const alone = BULK_FLAGS.find((flag) => options[flag] !== undefined);
      if (alone !== undefined) throw new PipelineError('CONFIG_INVALID', `--${kebab(alone)}: only with --mode`);
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
        if (totals.embeddings === 0 && totals.events > 0 && totals.deadLetters === totals.events) {
          process.stderr.write('none of the records could be used: see the dead letters\n');
          process.exitCode = 1;
        }
        if (result.interrupted) {
          console.log(stoppedAt(result));
          process.exitCode = INTERRUPTED;
        }
      } finally {
        await result.clickhouse.close();
      }
    });
}
