import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EngineFault, engineQuery } from '../../infra/clickhouse/engine/engine-query.ts';
import { formFields } from '../../infra/clickhouse/engine/form-fields.ts';
import { splitStatements, sqlTokens } from '../../infra/clickhouse/engine/sql-tokens.ts';
import { parseQuery } from '../../infra/clickhouse/queries.ts';

const sqlOf = (url: Record<string, string>, body = '') => engineQuery(new URLSearchParams(url), body).sql;
const withThreads = (sql: string) => sqlOf({ max_threads: '3' }, sql);

describe('SQL is cut without touching strings and comments', () => {
  it('splits statements', () => {
    const script = "-- a; b\nSELECT ';' /* ; */ , `;`, \";\";\n\n;SELECT 'it''s; \\';' # x;\n, $$;$$ ;\n-- end";
    expect(splitStatements(script)).toEqual(['-- a; b\nSELECT \';\' /* ; */ , `;`, ";"', "SELECT 'it''s; \\';' # x;\n, $$;$$"]);
  });

  it('and never throws or loops, whatever it is given', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("'", '`', '"', '\\', '--', '/*', '*/', '(', ')', '{a:B}', ';', 'FORMAT', ' ', '\n', '$$')),
        (parts) => {
          const sql = parts.join('');
          let end = 0;
          for (const token of sqlTokens(sql)) {
            expect(token.start).toBeGreaterThanOrEqual(end);
            expect(token.end).toBeGreaterThan(token.start);
            end = token.end;
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

describe('settings of a request become settings of its query', () => {
  it.each([
    ['SELECT 1', "SELECT 1\nFORMAT TabSeparated\nSETTINGS max_threads = '3'"],
    ['SELECT 1 \nFORMAT JSON;', "SELECT 1 \nFORMAT JSON\nSETTINGS max_threads = '3'"],
    ['SELECT 1 SETTINGS x = 1 FORMAT JSON', "SELECT 1 SETTINGS x = 1 FORMAT JSON\nSETTINGS max_threads = '3'"],
    ['SELECT 1 FORMAT JSON SETTINGS x = 1 -- done', "SELECT 1 FORMAT JSON SETTINGS x = 1, max_threads = '3'"],
    ["SELECT ' FORMAT JSON'", "SELECT ' FORMAT JSON'\nFORMAT TabSeparated\nSETTINGS max_threads = '3'"],
    [
      '(SELECT 1 SETTINGS max_threads = 1) UNION ALL SELECT 2',
      "(SELECT 1 SETTINGS max_threads = 1) UNION ALL SELECT 2\nFORMAT TabSeparated\nSETTINGS max_threads = '3'",
    ],
    [
      'CREATE TABLE t (a Int8) ENGINE = Memory',
      "CREATE TABLE t (a Int8) ENGINE = Memory\nFORMAT Null\nSETTINGS max_threads = '3'",
    ],
    ['DELETE FROM t WHERE a = 1', "DELETE FROM t WHERE a = 1\nSETTINGS max_threads = '3'"],
    ['INSERT INTO t (a, b) FORMAT CSV\n1,SETTINGS', "INSERT INTO t (a, b) SETTINGS max_threads = '3' FORMAT CSV\n1,SETTINGS"],
    ["INSERT INTO t VALUES ('FORMAT')", "INSERT INTO t SETTINGS max_threads = '3' VALUES ('FORMAT')"],
    ['INSERT INTO t SETTINGS x = 1 SELECT 1', "INSERT INTO t SETTINGS max_threads = '3', x = 1 SELECT 1"],
  ])('%s', (sql, expected) => {
    expect(withThreads(sql)).toBe(expected);
  });

  it('unless the query sets them itself', () => {
    expect(withThreads('SELECT 1 SETTINGS max_threads = 1')).toBe('SELECT 1 SETTINGS max_threads = 1');
    expect(withThreads('INSERT INTO t SETTINGS max_threads=1 FORMAT CSV\n1')).toBe(
      'INSERT INTO t SETTINGS max_threads=1 FORMAT CSV\n1',
    );
  });

  it('and data after FORMAT are never read as SQL', () => {
    const data = `{"a":"'; \\" SETTINGS max_threads = 1 {x:String} /*"}\n`;
    expect(sqlOf({ query: 'INSERT INTO t FORMAT JSONEachRow', max_threads: '3', param_x: 'no' }, data)).toBe(
      `INSERT INTO t SETTINGS max_threads = '3' FORMAT JSONEachRow\n${data}`,
    );
  });

  it('escaped, and without those of the HTTP interface', () => {
    expect(sqlOf({ a: "it's\\", query_id: 'q', enable_http_compression: '1', wait_end_of_query: '1' }, 'SELECT 1')).toContain(
      "SETTINGS a = 'it\\'s\\\\'",
    );
    expect(sqlOf({ query_id: 'q', database: 'd' }, 'SELECT 1;')).toBe('SELECT 1');
  });

  it('and what would stick to the engine is refused', () => {
    for (const sql of ['SET max_threads = 1', ' /* x */ use system']) expect(() => sqlOf({}, sql)).toThrow(EngineFault);
    expect(() => sqlOf({ session_id: 's' }, 'SELECT 1')).toThrow(/sessions/);
    expect(() => withThreads('SYSTEM FLUSH LOGS')).toThrow(/no settings with SYSTEM/);
  });
});

describe('parameters become literals', () => {
  it('by type, outside strings and comments', () => {
    const sql =
      "SELECT {s:String}, {n: UInt8}, {a:Array(String)}, {z:Nullable(String)}, {t:Identifier}, '{s:String}' -- {s:String}\n, {unknown:Int8}";
    expect(sqlOf({ param_s: "a\\tb'", param_n: '5', param_a: "['x\\'y']", param_z: '\\N', param_t: 'a`b' }, sql)).toBe(
      "SELECT 'a\tb\\'', CAST('5', 'UInt8'), CAST('[\\'x\\\\\\'y\\']', 'Array(String)'), CAST(NULL, 'Nullable(String)'), `a\\`b`, '{s:String}' -- {s:String}\n, {unknown:Int8}",
    );
  });
});

describe('a form is read field by field', () => {
  it('with line breaks and boundaries in values', () => {
    const part = (name: string, value: string) => `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
    expect(formFields(Buffer.from(`${part('query', 'SELECT 1\r\n')}${part('param_x', 'é--')}--b--\r\n`), 'b')).toEqual([
      ['query', 'SELECT 1\r\n'],
      ['param_x', 'é--'],
    ]);
  });
});

describe('a query file says its question and its parameters', () => {
  it('in its comments', () => {
    expect(parseQuery('q', '-- How many?\n-- param run_id String\n-- param n UInt32 = 5\nSELECT 1\n')).toEqual({
      name: 'q',
      title: 'How many?',
      parameters: [
        { name: 'run_id', type: 'String', default: undefined },
        { name: 'n', type: 'UInt32', default: '5' },
      ],
      sql: '-- How many?\n-- param run_id String\n-- param n UInt32 = 5\nSELECT 1',
    });
    expect(() => parseQuery('q', 'SELECT 1')).toThrow(/begin with a comment/);
  });
});
