/** `hstu-streams query`: named questions to ClickHouse. */
import type { Command } from 'commander';
import { Option } from 'commander';
import { connect } from '../../infra/clickhouse/connect.ts';
import { listQueries, runQuery } from '../../infra/clickhouse/queries.ts';
import { listRuns } from '../../infra/clickhouse/readers.ts';
import { table } from '../../infra/console/table.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { loadConfig } from '../load-config.ts';
import { collect } from './options.ts';

type Format = 'table' | 'json' | 'csv';

export function addQuery(program: Command): void {
  program
    .command('query')
    .description('ask ClickHouse a named question; without a name, list the questions and the runs')
    .argument('[name]')
    .option('-c, --config <file>', 'configuration, YAML', 'examples/movielens/replay.yaml')
    .option('-p, --param <name=value>', 'a parameter of the query; run_id defaults to the newest run (repeatable)', collect, [])
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .addOption(new Option('--format <format>', 'how to print').choices(['table', 'json', 'csv']).default('table'))
    .action(async (name: string | undefined, options: { config: string; param: string[]; set: string[]; format: Format }) => {
      const queries = await listQueries();
      if (name === undefined) {
        const rows = queries.map(({ name, title, parameters }) => ({
          name,
          question: title,
          parameters: parameters.map((parameter) => parameter.name + (parameter.default === undefined ? '' : '?')).join(' '),
        }));
        console.log(print(rows, options.format));
        return;
      }
      const config = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
      const clickhouse = await connect(config.clickhouse);
      try {
        const given = Object.fromEntries(options.param.map(parameterOf));
        const query = queries.find((one) => one.name === name);
        if (query?.parameters.some((parameter) => parameter.name === 'run_id') && given['run_id'] === undefined) {
          const [newest] = await listRuns(clickhouse);
          if (newest !== undefined) given['run_id'] = newest.runId;
        }
        console.log(print(await runQuery(clickhouse, name, given), options.format));
      } finally {
        await clickhouse.close();
      }
    });
}

function parameterOf(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new PipelineError('CONFIG_INVALID', `--param ${text}: expected NAME=VALUE`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function print(rows: readonly Record<string, unknown>[], format: Format): string {
  if (format === 'json') return JSON.stringify(rows, null, 2);
  if (format === 'table') return table(rows);
  const columns = Object.keys(rows[0] ?? {});
  const quoted = (value: unknown) => {
    const text = value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))]
    .map((line) => line.map(quoted).join(','))
    .join('\n');
}
