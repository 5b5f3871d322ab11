/** The configured source as a list of what can be read row by row: wildcards expanded, schemas compared, ClickHouse asked. */
import { join } from 'node:path';
import { type Column, fileColumns, writeFileRows, writeQueryRows } from '../../infra/clickhouse/row-files.ts';
import { expandGlob } from '../../infra/files/glob.ts';
import { checkColumns, openRawRows, type RowInput } from '../../infra/files/read-records.ts';
import type { Config, FileSource, TableSource } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { neededPaths } from '../../schemas/record-mapping.ts';

const ENGINE_FORMATS = { avro: 'Avro', parquet: 'Parquet' } as const;

/**
 * Files first, then tables, as configured; of a pattern its files by path. Nothing but schemas is read here: each input is read, and
 * for the engine's formats written out below `state.path`, when its turn comes.
 *
 * @throws PipelineError `CONFIG_INVALID` without a source; `SOURCE_UNREADABLE` where no file matches, one cannot be read, or the
 * files of one pattern differ in their columns: the file, the column and both types
 */
export async function rowInputs(config: Config): Promise<readonly RowInput[]> {
  const { source } = config;
  if (source === undefined)
    throw new PipelineError('CONFIG_INVALID', 'source: missing; a replay needs source.files or source.clickhouse');
  const inputs: RowInput[] = [];
  for (const given of source.files) {
    const files = expandGlob(given.path).map((path) => fileInput(config, { ...given, path }));
    if (given.format === 'avro' || given.format === 'parquet') await requireFields(config, given, given.format, files[0]!);
    if (files.length > 1) await requireOneSchema(config, given, files);
    inputs.push(...files);
  }
  return [...inputs, ...source.clickhouse.map((table) => tableInput(config, table))];
}

/** Files are read by an engine of their own: a server does not see them, and a file that ends an engine must not end the store. */
const fileEngine = ({ state }: Config): string => join(state.path, 'file-reader');

const spoolFolder = ({ state }: Config): string => join(state.path, 'backfill');

function fileInput(config: Config, { path, format, mapping, encoding, csv }: FileSource): RowInput {
  if (format === 'csv' || format === 'jsonl') return { path, format, mapping, encoding, csv };
  return {
    path,
    format,
    mapping,
    spooled: {
      folder: spoolFolder(config),
      write: (target) => writeFileRows(fileEngine(config), path, ENGINE_FORMATS[format], target),
    },
  };
}

function tableInput(
  config: Config,
  { name, table, query, url, path, database, username, password, mapping }: TableSource,
): RowInput {
  const elsewhere = url !== undefined || path !== undefined;
  const base = elsewhere ? { path: path ?? '', database: database ?? 'default', url, username, password } : config.clickhouse;
  const access = { ...base, ...(database !== undefined && { database }) };
  const select = query?.trim().replace(/;$/, '') ?? `SELECT * FROM ${table} ORDER BY ALL`;
  return {
    path: name,
    format: 'clickhouse',
    mapping,
    spooled: {
      folder: spoolFolder(config),
      // In brackets, a LIMIT or SETTINGS of its own stays its own.
      write: (target) => writeQueryRows(access, name, `SELECT * FROM (${select})`, target),
    },
  };
}

/** Of a path within a column the column: what lies in it the rows say. */
async function requireFields(
  config: Config,
  { mapping }: FileSource,
  format: keyof typeof ENGINE_FORMATS,
  { path }: RowInput,
): Promise<void> {
  const columns = (await fileColumns(fileEngine(config), path, ENGINE_FORMATS[format])).map(({ name }) => name);
  const named = neededPaths(mapping).map((field) => (columns.includes(field.path) ? field.path : field.path.split('.')[0]!));
  checkColumns(path, columns, [...new Set(named)]);
}

/** Lines of JSON name their own fields: nothing to compare. */
async function requireOneSchema(
  config: Config,
  { path: pattern, format }: FileSource,
  inputs: readonly RowInput[],
): Promise<void> {
  if (format === 'jsonl') return;
  const columnsOf = async (input: RowInput): Promise<Column[]> => {
    if (format !== 'csv') return fileColumns(fileEngine(config), input.path, ENGINE_FORMATS[format]);
    const { header, chunks } = await openRawRows(input);
    for await (const _ of chunks) break;
    return (header ?? []).map((name) => ({ name, type: 'text' }));
  };
  const [first, ...others] = inputs;
  const expected = await columnsOf(first!);
  for (const other of others) {
    const found = await columnsOf(other);
    const problems = differences(expected, found);
    // A CSV file without any row has no columns, and nothing that could be misread.
    if (problems.length === 0 || (format === 'csv' && found.length === 0)) continue;
    throw new PipelineError(
      'SOURCE_UNREADABLE',
      `the files of '${pattern}' differ: '${other.path}' has ${problems.join('; ')} in '${first!.path}'. Name them as sources of their own, each with its mapping`,
    );
  }
}

function differences(expected: readonly Column[], found: readonly Column[]): string[] {
  const before = new Map(expected.map(({ name, type }) => [name, type]));
  const now = new Map(found.map(({ name, type }) => [name, type]));
  const problems: string[] = [];
  for (const [name, type] of now) {
    const other = before.get(name);
    if (other === undefined) problems.push(`a column '${name}' (${type}), which is not`);
    else if (other !== type) problems.push(`column '${name}' as ${type}, which is ${other}`);
  }
  for (const [name, type] of before) if (!now.has(name)) problems.push(`no column '${name}', which is ${type}`);
  return problems;
}
