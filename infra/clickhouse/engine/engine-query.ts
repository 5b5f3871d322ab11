/** A ClickHouse HTTP request as one query for the embedded engine: parameters, settings and format go into its text. */
import { type SqlToken, sqlTokens } from './sql-tokens.ts';

export interface EngineQuery {
  readonly sql: string;
  /** Format of the answer. */
  readonly format: string;
  /** Database that names without one belong to. */
  readonly database: string;
}

/** A fault of the request, in the words and with the code of a ClickHouse server. */
export class EngineFault extends Error {
  readonly code: number;

  constructor(code: number, type: string, message: string) {
    super(`Code: ${code}. DB::Exception: ${message}. (${type})`);
    this.code = code;
  }
}

/** URL parameters of the HTTP interface that are no settings. */
const HTTP_ONLY = new Set([
  'query',
  'query_id',
  'database',
  'default_format',
  'user',
  'password',
  'role',
  'quota_key',
  'stacktrace',
  'compress',
  'decompress',
  'buffer_size',
  'wait_end_of_query',
  'enable_http_compression',
  'http_zlib_compression_level',
  'send_progress_in_http_headers',
  'http_headers_progress_interval_ms',
  'cancel_http_readonly_queries_on_client_close',
]);

/** Statements that end in `SETTINGS …`, in `FORMAT … SETTINGS …`. */
const WITH_SETTINGS = new Set(['DELETE', 'UPDATE']);
const WITH_FORMAT = new Set(['SELECT', 'WITH', '(', 'SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS', 'CHECK', 'FROM']);
const WITH_FORMAT_NULL = new Set(['CREATE', 'ALTER', 'DROP', 'DETACH', 'ATTACH', 'TRUNCATE', 'OPTIMIZE', 'RENAME']);

/**
 * Builds the query that the engine runs for an HTTP request.
 *
 * The engine is one session for all requests, so nothing may stick to it: settings of the request are written into the
 * query (those that the query sets itself win, as on a server), parameters are bound as literals, and `SET`, `USE` and
 * sessions are refused.
 *
 * @param parameters of the URL (and of a form)
 * @param body what follows the query of the URL, or the query itself
 * @throws EngineFault
 */
export function engineQuery(parameters: URLSearchParams, body: string): EngineQuery {
  if (parameters.has('session_id')) throw new EngineFault(48, 'NOT_IMPLEMENTED', 'The embedded engine keeps no sessions');
  const head = parameters.get('query');
  let sql = head === null ? body : body === '' ? head : `${head}\n${body}`;
  const settings: [string, string][] = [];
  const values = new Map<string, string>();
  for (const [name, value] of parameters) {
    if (name.startsWith('param_')) values.set(name.slice('param_'.length), value);
    else if (!HTTP_ONLY.has(name)) settings.push([name, value]);
  }
  if (values.size > 0) sql = bindParameters(sql, values);
  const { sql: complete, format } = addSettings(sql, settings, parameters.get('default_format') ?? 'TabSeparated');
  return { sql: complete, format, database: parameters.get('database') ?? 'default' };
}

// ---------------------------------------------------------------- parameters

/** Replaces `{name:Type}` by literals; an unknown name is left for the engine to complain about. */
export function bindParameters(sql: string, values: ReadonlyMap<string, string>): string {
  let bound = '';
  let copied = 0;
  for (const token of queryPart(sql)) {
    if (token.kind !== 'param') continue;
    const colon = token.text.indexOf(':');
    const value = values.get(token.text.slice(1, colon).trim());
    if (value === undefined) continue;
    bound += sql.slice(copied, token.start) + literal(value, token.text.slice(colon + 1, -1).trim());
    copied = token.end;
  }
  return bound + sql.slice(copied);
}

/** A value as the HTTP interface writes it: the type's text, tab-separated escaping where that is a plain string. */
function literal(value: string, type: string): string {
  if (type === 'Identifier') return `\`${value.replace(/[\\`]/g, '\\$&')}\``;
  if (value === '\\N' && type.startsWith('Nullable')) return `CAST(NULL, ${quoted(type)})`;
  const text = /^(Nullable\(|LowCardinality\()*(String|FixedString)/.test(type) ? unescapeTsv(value) : value;
  return type === 'String' ? quoted(text) : `CAST(${quoted(text)}, ${quoted(type)})`;
}

const quoted = (text: string): string => `'${text.replace(/[\\']/g, '\\$&')}'`;

const ESCAPES: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', b: '\b', f: '\f', '0': '\0' };

const unescapeTsv = (text: string): string => text.replace(/\\([\s\S])/g, (_, char: string) => ESCAPES[char] ?? char);

// ---------------------------------------------------------------- settings and format

function addSettings(
  sql: string,
  settings: readonly (readonly [string, string])[],
  defaultFormat: string,
): { sql: string; format: string } {
  const tokens = [...queryPart(sql)];
  while (tokens.at(-1)?.text === ';') tokens.pop();
  const first = tokens[0]?.text.toUpperCase() ?? '';
  if (first === 'SET' || first === 'USE')
    throw new EngineFault(
      48,
      'NOT_IMPLEMENTED',
      `${first} would outlive the request: write SETTINGS into the query, or name the database`,
    );

  const own = ownSettings(tokens);
  const added = settings.filter(([name]) => !own.has(name)).map(([name, value]) => `${name} = ${quoted(value)}`);
  if (first === 'INSERT')
    return { sql: added.length === 0 ? sql : insertWithSettings(sql, tokens, added), format: defaultFormat };

  const formatAt = tokens.findLastIndex((token) => isKeyword(token, 'FORMAT'));
  const given = formatAt > 0 ? tokens[formatAt + 1]?.text : undefined;
  const format = given ?? defaultFormat;
  const text = sql.slice(0, tokens.at(-1)?.end ?? 0);
  if (added.length === 0) return { sql: text, format };
  const settingsAt = tokens.findLastIndex((token) => isKeyword(token, 'SETTINGS'));
  if (WITH_SETTINGS.has(first)) return { sql: `${text}${settingsAt > 0 ? ', ' : '\nSETTINGS '}${added.join(', ')}`, format };
  if (given !== undefined) return { sql: `${text}${settingsAt > formatAt ? ', ' : '\nSETTINGS '}${added.join(', ')}`, format };
  if (WITH_FORMAT.has(first)) return { sql: `${text}\nFORMAT ${format}\nSETTINGS ${added.join(', ')}`, format };
  if (WITH_FORMAT_NULL.has(first)) return { sql: `${text}\nFORMAT Null\nSETTINGS ${added.join(', ')}`, format };
  throw new EngineFault(48, 'NOT_IMPLEMENTED', `The embedded engine takes no settings with ${first || 'an empty query'}`);
}

function insertWithSettings(sql: string, tokens: readonly SqlToken[], added: readonly string[]): string {
  const at = tokens.find(
    (token, i) =>
      i > 2 && token.depth === 0 && /^(SETTINGS|FORMAT|VALUES|SELECT|WITH)$/i.test(token.text) && token.kind === 'word',
  );
  if (at === undefined) return `${sql}\nSETTINGS ${added.join(', ')}`;
  if (at.text.toUpperCase() === 'SETTINGS') return `${sql.slice(0, at.end)} ${added.join(', ')},${sql.slice(at.end)}`;
  return `${sql.slice(0, at.start)}SETTINGS ${added.join(', ')} ${sql.slice(at.start)}`;
}

/** Tokens of the query itself: without the data after `INSERT … FORMAT x`. */
function* queryPart(sql: string): Generator<SqlToken> {
  let insert = false;
  let number = 0;
  let formatNext = false;
  for (const token of sqlTokens(sql)) {
    if (number++ === 0) insert = token.text.toUpperCase() === 'INSERT';
    yield token;
    if (formatNext) return;
    formatNext = insert && number > 3 && isKeyword(token, 'FORMAT');
  }
}

const isKeyword = (token: SqlToken, keyword: string): boolean =>
  token.kind === 'word' && token.depth === 0 && token.text.toUpperCase() === keyword;

/** Names that the query sets itself. */
function ownSettings(tokens: readonly SqlToken[]): Set<string> {
  const names = new Set<string>();
  let inSettings = false;
  for (const [i, token] of tokens.entries()) {
    if (isKeyword(token, 'SETTINGS')) inSettings = true;
    else if (inSettings && token.kind === 'word' && tokens[i + 1]?.text === '=') names.add(token.text);
  }
  return names;
}
