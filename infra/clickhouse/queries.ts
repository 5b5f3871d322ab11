/** Named questions to the store: one SQL file each, whose comments say the question and the parameters. */
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { PipelineError } from '../../schemas/errors.ts';
import type { ClickHouse } from './clickhouse.ts';
import { boundValue } from './query-values.ts';

export interface QueryParameter {
  readonly name: string;
  /** ClickHouse's type: `String`, `UInt32`, `Array(String)`. */
  readonly type: string;
  /** As written in the file; undefined where the caller must give one. */
  readonly default: string | undefined;
}

export interface NamedQuery {
  /** File name without its extension. */
  readonly name: string;
  /** The question it answers. */
  readonly title: string;
  readonly parameters: readonly QueryParameter[];
  readonly sql: string;
  /** Columns that say more as a curve, a row a point; `by`: a curve for each value of that column. */
  readonly plot: { readonly columns: readonly string[]; readonly by: string | undefined } | undefined;
}

const FOLDER = new URL('./queries/', import.meta.url);

/** All named queries, by name. */
export async function listQueries(): Promise<NamedQuery[]> {
  const files = (await readdir(FOLDER)).filter((file) => file.endsWith('.sql')).sort();
  return Promise.all(
    files.map(async (file) =>
      parseQuery(file.slice(0, -'.sql'.length), await readFile(fileURLToPath(new URL(file, FOLDER)), 'utf8')),
    ),
  );
}

/**
 * Runs a named query.
 *
 * @param given values by parameter name: of their own type, or text as from a command line (`a,b` or JSON for arrays)
 * @throws PipelineError `CONFIG_INVALID` for an unknown name or parameter, a missing one, or text that does not fit
 */
export async function runQuery(
  clickhouse: ClickHouse,
  name: string,
  given: Readonly<Record<string, unknown>> = {},
): Promise<Record<string, unknown>[]> {
  const queries = await listQueries();
  const query = queries.find((one) => one.name === name);
  if (query === undefined)
    throw new PipelineError(
      'CONFIG_INVALID',
      `there is no query '${name}'; there are ${queries.map((one) => one.name).join(', ')}`,
    );
  return clickhouse.rows<Record<string, unknown>>(query.sql, bindValues(query, given));
}

/** Reads the comments at the head of a query file. */
export function parseQuery(name: string, text: string): NamedQuery {
  const lines = text.split('\n');
  const title = /^-- (.+)$/.exec(lines[0] ?? '')?.[1];
  if (title === undefined)
    throw new PipelineError('CONFIG_INVALID', `query '${name}' must begin with a comment that says its question`);
  const parameters = lines.flatMap((line) => {
    const match = /^-- param (\w+) (\S+)(?: (=)(?: (.*))?)?$/.exec(line.trimEnd());
    if (match === null) return [];
    const [, name, type, equals, fallback = ''] = match;
    return [{ name: name!, type: type!, default: equals === undefined ? undefined : fallback }];
  });
  const plot = lines.flatMap((line) => /^-- plot (.+?)(?: by (\w+))?$/.exec(line.trimEnd()) ?? []);
  const curves = plot[1] === undefined ? undefined : { columns: plot[1].split(' '), by: plot[2] };
  return { name, title, parameters, sql: text.trim(), plot: curves };
}

function bindValues({ name, parameters }: NamedQuery, given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const refuse = (problem: string) =>
    new PipelineError(
      'CONFIG_INVALID',
      `query '${name}' ${problem}; its parameters: ${parameters.map(describe).join(', ') || 'none'}`,
    );
  const unknown = Object.keys(given).find((key) => !parameters.some((parameter) => parameter.name === key));
  if (unknown !== undefined) throw refuse(`has no parameter '${unknown}'`);
  return Object.fromEntries(
    parameters.map(({ name: key, type, default: fallback }) => {
      const value = given[key] ?? fallback;
      if (value === undefined) throw refuse(`needs '${key}'`);
      if (typeof value !== 'string') return [key, value];
      const bound = boundValue(value, type);
      if ('problem' in bound) throw refuse(`parameter '${key}' ${bound.problem}`);
      return [key, bound.value];
    }),
  );
}

const describe = ({ name, type, default: fallback }: QueryParameter) =>
  `${name} ${type}${fallback === undefined ? '' : ` = ${fallback}`}`;
