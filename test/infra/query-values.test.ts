import { describe, expect, it } from 'vitest';
import { listQueries, parseQuery } from '../../infra/clickhouse/queries.ts';
import { boundValue } from '../../infra/clickhouse/query-values.ts';

describe('a value from the command line is of the type that the query names', () => {
  it.each([
    ['10', 'UInt32', 10],
    ['-3', 'Int64', -3],
    ['0.5', 'Float64', 0.5],
    ['0010', 'String', '0010'],
    ['', 'String', ''],
    ['a,b', 'Array(String)', ['a', 'b']],
    ['["a,b"]', 'Array(String)', ['a,b']],
    ['1,2', 'Array(UInt8)', [1, 2]],
    ['', 'Array(String)', []],
    ['hour', "Enum('hour','action')", 'hour'],
  ])('%j as %s', (text, type, value) => {
    expect(boundValue(text, type)).toEqual({ value });
  });

  it.each([
    ['ten', 'UInt32', 'must be a whole number from 0 to 4294967295 (found: "ten")'],
    ['-1', 'UInt8', 'must be a whole number from 0 to 255 (found: "-1")'],
    ['1.5', 'Int8', 'must be a whole number from -128 to 127 (found: "1.5")'],
    ['4294967296', 'UInt32', 'must be a whole number from 0 to 4294967295 (found: "4294967296")'],
    ['1e3', 'UInt32', 'must be a whole number from 0 to 4294967295 (found: "1e3")'],
    ['x', 'Float64', 'must be a number (found: "x")'],
    ['year', "Enum('hour','action')", 'must be one of hour, action (found: "year")'],
    ['[1', 'Array(String)', 'must be a list: a,b or JSON (Array(String)) (found: "[1")'],
    ['1,x', 'Array(UInt8)', 'must be a whole number from 0 to 255 (found: "x") in the list'],
  ])('not %j as %s', (text, type, problem) => {
    expect(boundValue(text, type)).toEqual({ problem });
  });
});

describe('a query file', () => {
  it('says its question, its parameters and its curves in comments', () => {
    const text = '-- Why?\n-- param run_id String\n-- param k UInt32 = 3\n-- param u String =\n-- plot a b by c\nSELECT 1';
    expect(parseQuery('q', text)).toMatchObject({
      title: 'Why?',
      parameters: [
        { name: 'run_id', type: 'String', default: undefined },
        { name: 'k', type: 'UInt32', default: '3' },
        { name: 'u', type: 'String', default: '' },
      ],
      plot: { columns: ['a', 'b'], by: 'c' },
    });
  });

  it('has defaults that fit', async () => {
    for (const { parameters } of await listQueries())
      for (const { type, default: fallback } of parameters)
        if (fallback !== undefined) expect(boundValue(fallback, type)).toHaveProperty('value');
  });
});
