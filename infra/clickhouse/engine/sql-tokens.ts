/** Just enough of a lexer for SQL to be cut and added to without touching strings, comments or inline data. */

export interface SqlToken {
  /** `param` is a `{name: Type}` placeholder; `other` a number or a symbol. */
  readonly kind: 'word' | 'quoted' | 'string' | 'param' | 'other';
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** How many round brackets are open around it. */
  readonly depth: number;
}

const SKIPPED = /(?:\s+|--[^\n]*|#[ !][^\n]*|\/\*[\s\S]*?(?:\*\/|$))+/y;
const WORD = /[A-Za-z_][A-Za-z0-9_]*/y;
const NUMBER = /\d[\w.]*/y;
const STRING = /'(?:[^'\\]+|\\[\s\S]|'')*(?:'|$)/y;
const QUOTED = /`(?:[^`\\]+|\\[\s\S]|``)*(?:`|$)|"(?:[^"\\]+|\\[\s\S]|"")*(?:"|$)/y;
const HEREDOC = /\$(\w*)\$[\s\S]*?\$\1\$/y;
const PARAM = /\{\s*[A-Za-z_]\w*\s*:[^{}]+\}/y;

/**
 * Tokens of a query, lazily: a caller that knows that data follow (after `FORMAT x` of an `INSERT`) stops asking.
 * Never throws: what is left open runs to the end, and the engine will say so.
 */
export function* sqlTokens(sql: string): Generator<SqlToken, undefined> {
  let at = 0;
  let depth = 0;
  const match = (pattern: RegExp): number => {
    pattern.lastIndex = at;
    return pattern.test(sql) ? pattern.lastIndex : -1;
  };
  while (at < sql.length) {
    const skipped = match(SKIPPED);
    if (skipped > at) {
      at = skipped;
      continue;
    }
    let kind: SqlToken['kind'] = 'other';
    let end = -1;
    for (const [candidate, pattern] of KINDS) {
      end = match(pattern);
      if (end > at) {
        kind = candidate;
        break;
      }
    }
    if (end <= at) end = at + 1;
    const text = sql.slice(at, end);
    if (text === ')') depth--;
    yield { kind, text, start: at, end, depth };
    if (text === '(') depth++;
    at = end;
  }
}

const KINDS: readonly (readonly [SqlToken['kind'], RegExp])[] = [
  ['word', WORD],
  ['other', NUMBER],
  ['string', STRING],
  ['quoted', QUOTED],
  ['string', HEREDOC],
  ['param', PARAM],
];

/** The statements of a script, without their `;` and without empty ones. */
export function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let start = 0;
  let empty = true;
  for (const token of sqlTokens(sql)) {
    if (token.text !== ';') {
      empty = false;
      continue;
    }
    if (!empty) statements.push(sql.slice(start, token.start).trim());
    start = token.end;
    empty = true;
  }
  if (!empty) statements.push(sql.slice(start).trim());
  return statements;
}
