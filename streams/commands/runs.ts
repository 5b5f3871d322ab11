/** `hstu-streams runs`: what backfills there are; a finished one becomes live, or goes. */
import { type Command, Option } from 'commander';
import { connect } from '../../infra/clickhouse/connect.ts';
import { count } from '../../infra/console/format.ts';
import { heading, table } from '../../infra/console/table.ts';
import { loadBundle } from '../../models/hstu/bundle.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { loadConfig } from '../load-config.ts';
import type { RunPlace } from '../replay/backfill-output.ts';
import { holdRun } from '../replay/hold-run.ts';
import { openOutput, PLACES } from '../replay/open-output.ts';
import { executePromotion, planPromotion } from '../replay/promote.ts';
import { deploymentName, planStoredPromotion, promoteStored, requireNotPromoted } from '../replay/promote-stored.ts';
import { requireKafka } from '../require-kafka.ts';
import { collect } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
  readonly to?: RunPlace;
}

export function addRuns(program: Command): void {
  const runs = program.command('runs').description('the runs of replay: list them, promote one to live, drop one');
  const under = (name: string, description: string) =>
    runs
      .command(name)
      .description(description)
      .requiredOption('-c, --config <file>', 'configuration, YAML')
      .option('--set <key=value>', 'override a setting (repeatable)', collect, []);
  const place = () => new Option('--to <place>', 'where the runs are; without it as backfill.to says').choices(PLACES);

  under('list', 'every run of a place: how far it has come, and what it is made of')
    .addOption(place())
    .action(async (options: Options) => listRuns(await configOf(options), options.to));
  under(
    'promote <run>',
    'make a finished run, or the latest, live: of kafka its state and its embeddings, of clickhouse what questions are asked about; shows what it would do, unless --execute',
  )
    .addOption(new Option('--to <place>', 'where the run is').choices(PLACES).default('kafka'))
    .option('--execute', 'do it')
    .action(async (named: string, { to = 'kafka', execute = false, ...options }: Options & { execute?: boolean }) => {
      const config = await configOf(options);
      const runId = named === LATEST ? await newestRun(config, to) : named;
      if (to === 'kafka') return promote(config, runId, execute);
      if (to === 'clickhouse') return promoteInClickHouse(config, runId, execute);
      throw new PipelineError(
        'CONFIG_INVALID',
        `--to ${to}: files of a run are read by whom they are for, and nothing live reads them; only runs of kafka and of clickhouse are promoted`,
      );
    });
  under('drop <run>', 'remove all of a run: rows, topics, files')
    .addOption(place())
    .action(async (runId: string, options: Options) => drop(await configOf(options), runId, options.to));
}

/** Stands for the finished run that was written last. */
const LATEST = 'latest';

async function newestRun(config: Config, place: RunPlace): Promise<string> {
  const output = await openOutput(config, place);
  try {
    const finished = (await output.runs()).filter((run) => run.finished).sort((a, b) => a.updatedAtMs - b.updatedAtMs);
    const newest = finished.at(-1);
    if (newest === undefined)
      throw new PipelineError('CONFIG_INVALID', `${LATEST}: there is no finished run in ${output.place}: ${output.where}`);
    return newest.runId;
  } finally {
    await output.close();
  }
}

const configOf = ({ config, set }: Options): Promise<Config> =>
  loadConfig({ file: config, environment: process.env, assignments: set });

async function listRuns(config: Config, place: RunPlace | undefined): Promise<void> {
  const output = await openOutput(config, place);
  try {
    const runs = await output.runs();
    if (runs.length === 0) {
      console.log(`no runs in ${output.place}: ${output.where}`);
      return;
    }
    console.log(
      table(
        runs.map(({ runId, position, total, finished, updatedAtMs, facts }) => ({
          run: runId,
          events: `${count(position)} of ${total === undefined ? '?' : count(total)}`,
          state: finished ? 'finished' : 'not finished',
          moved: updatedAtMs === 0 ? '-' : new Date(updatedAtMs).toISOString().slice(0, 19),
          model: String(facts['model'] ?? '-'),
        })),
      ),
    );
  } finally {
    await output.close();
  }
}

async function promote(given: Config, runId: string, execute: boolean): Promise<void> {
  const config = requireKafka(given, 'runs promote');
  const plan = await planPromotion(config, await loadBundle(config.bundle), runId);
  console.log(heading(`Cut-over of ${config.kafka.applicationId} to ${runId}`));
  console.log(table(plan.cut.map(({ topic, partition, to }) => ({ topic, partition, 'goes on at': to }))));
  console.log(
    'embeddings, lists (where the run has them: --ranks) and state of live become those of the run; of users that it does not know they are withdrawn',
  );
  if (!execute) {
    console.log('nothing was done: this was a dry run; repeat with --execute');
    return;
  }
  const held = await holdRun(config, runId);
  try {
    await executePromotion(config, plan, (partition, { embeddings, lists, withdrawn, state }) =>
      console.log(
        `partition ${partition}: ${count(embeddings)} embeddings, ${count(lists)} lists, ${count(withdrawn)} withdrawn, ${count(state)} records of state`,
      ),
    );
  } finally {
    held.release();
  }
  console.log('done: start the instances');
}

async function promoteInClickHouse(config: Config, runId: string, execute: boolean): Promise<void> {
  const clickhouse = await connect(config.clickhouse);
  try {
    const now = await planStoredPromotion(clickhouse, config, runId);
    console.log(heading(`Questions of ${deploymentName(config) || 'this database'} are to be asked about ${runId}`));
    console.log(`without run_id they are asked about ${now ?? 'the newest run'} now`);
    if (!execute) {
      console.log('nothing was done: this was a dry run; repeat with --execute');
      return;
    }
    await promoteStored(clickhouse, config, runId);
    console.log('done');
  } finally {
    await clickhouse.close();
  }
}

async function drop(config: Config, runId: string, place: RunPlace | undefined): Promise<void> {
  const output = await openOutput(config, place);
  try {
    const runs = await output.runs();
    if (!runs.some((run) => run.runId === runId))
      throw new PipelineError(
        'CONFIG_INVALID',
        `run ${runId}: not in ${output.place}: ${output.where}, which holds ${runs.map((run) => run.runId).join(', ') || 'none'}`,
      );
    if (output.place === 'clickhouse') {
      const clickhouse = await connect(config.clickhouse);
      await requireNotPromoted(clickhouse, runId).finally(() => clickhouse.close());
    }
    const held = await holdRun(config, runId);
    await output.drop(runId).finally(() => held.release());
    console.log(`${runId} is gone from ${output.place}: ${output.where}`);
  } finally {
    await output.close();
  }
}
