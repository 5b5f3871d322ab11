/** `hstu-streams query`: named questions to ClickHouse. */
import type { Command } from 'commander';
import { Option } from 'commander';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { storeEntityVectors } from '../../infra/clickhouse/entity-vectors.ts';
import { promotedRun } from '../../infra/clickhouse/promotions.ts';
import { listQueries, type NamedQuery, runQuery } from '../../infra/clickhouse/queries.ts';
import { newestRun } from '../../infra/clickhouse/readers.ts';
import { whyNoRows } from '../../infra/clickhouse/why-no-rows.ts';
import { printData } from '../../infra/console/guard-output.ts';
import { printable } from '../../infra/console/printable.ts';
import { sparklines } from '../../infra/console/sparkline.ts';
import { table } from '../../infra/console/table.ts';
import { loadBundle } from '../../models/hstu/bundle.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { entityVectorsOf } from '../entity-vectors-of.ts';
import { loadConfig } from '../load-config.ts';
import { deploymentName } from '../replay/promote-stored.ts';
import { collect } from './options.ts';

type Format = 'table' | 'json' | 'csv';

interface Options {
  readonly config: string;
  readonly param: string[];
  readonly set: string[];
  readonly format: Format;
}

/** Fewer points make no curve. */
const MIN_POINTS = 5;

export function addQuery(program: Command): void {
  program
    .command('query')
    .description('ask ClickHouse a named question; without a name, list the questions')
    .argument('[name]')
    .option('-c, --config <file>', 'configuration, YAML', 'examples/movielens/replay.yaml')
    .option(
      '-p, --param <name=value>',
      'a parameter of the query; run_id defaults to the promoted run, else the newest (repeatable)',
      collect,
      [],
    )
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .addOption(new Option('--format <format>', 'how to print').choices(['table', 'json', 'csv']).default('table'))
    .action(async (name: string | undefined, options: Options) => {
      const queries = await listQueries();
      if (name === undefined) {
        const rows = queries.map(({ name, title, parameters }) => ({
          name,
          question: title,
          parameters: parameters.map((parameter) => parameter.name + (parameter.default === undefined ? '' : '?')).join(' '),
        }));
        show(rows, options.format);
        return;
      }
      const config = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
      const clickhouse = await connect(config.clickhouse);
      try {
        const query = queries.find((one) => one.name === name);
        const given = Object.fromEntries(options.param.map(parameterOf));
        if (query !== undefined) await prepare(clickhouse, query, given, config);
        const rows = await runQuery(clickhouse, name, given);
        if (query !== undefined && rows.length === 0 && options.format === 'table')
          console.log(`(no rows): ${printable(await whyNoRows(clickhouse, query, given))}`);
        else show(rows, options.format);
        const curves = query === undefined || options.format !== 'table' ? [] : curvesOf(query, rows);
        if (curves.length > 0) console.log(sparklines(curves));
      } finally {
        await clickhouse.close();
      }
    });
}

/** What a query takes for granted: a run to ask about, and the catalogue's vectors where it compares with them. */
async function prepare(
  clickhouse: ClickHouse,
  { sql, parameters }: NamedQuery,
  given: Record<string, string>,
  config: Config,
): Promise<void> {
  if (parameters.some((parameter) => parameter.name === 'run_id') && given['run_id'] === undefined) {
    const run = (await promotedRun(clickhouse, deploymentName(config))) ?? (await newestRun(clickhouse));
    if (run !== undefined) given['run_id'] = run;
  }
  if (/\bFROM entities\b/.test(sql)) await storeEntityVectors(clickhouse, entityVectorsOf(await loadBundle(config.bundle)));
}

function parameterOf(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new PipelineError('CONFIG_INVALID', `--param ${text}: expected NAME=VALUE`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function show(rows: readonly Record<string, unknown>[], format: Format): void {
  if (format === 'table') console.log(table(rows));
  else printData(format === 'json' ? JSON.stringify(rows, null, 2) : csvOf(rows));
}

function csvOf(rows: readonly Record<string, unknown>[]): string {
  const columns = Object.keys(rows[0] ?? {});
  const quoted = (value: unknown) => {
    const text = value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))]
    .map((line) => line.map(quoted).join(','))
    .join('\n');
}

function curvesOf({ plot }: NamedQuery, rows: readonly Record<string, unknown>[]): [string, (number | null)[]][] {
  if (plot === undefined) return [];
  const { columns, by } = plot;
  const groups = by === undefined ? [undefined] : [...new Set(rows.map((row) => row[by]))];
  return groups
    .flatMap((group) => {
      const own = by === undefined ? rows : rows.filter((row) => row[by] === group);
      return columns.map((column): [string, (number | null)[]] => [
        by === undefined ? column : `${column}, ${by} ${String(group)}`,
        own.map((row) => (typeof row[column] === 'number' ? row[column] : null)),
      ]);
    })
    .filter(([, values]) => values.length >= MIN_POINTS);
}
