import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HstuEncoder } from '../../models/encoder.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { describeCatalogue, withCatalogue } from '../../streams/catalogue.ts';
import { LineScorer } from '../../streams/score-lines.ts';

const bundle = randomBundle({
  dimension: 16,
  layers: 1,
  heads: 1,
  maxSequenceLength: 8,
  vocabularySize: 6,
  content: { dimension: 2 },
});

describe('a catalogue file', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hstu-catalogue-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  const load = async (lines: readonly string[], name = 'entities.jsonl') => {
    const file = join(folder, name);
    await writeFile(file, lines.join('\n'));
    return withCatalogue(bundle, file);
  };

  it('takes what it can, and counts the rest with line and reason', async () => {
    const { report } = await load([
      '{"entity":"new","content":[1,2]}',
      '',
      '{"entity":"new","content":[1,null]}',
      '{"entity":"new","content":[1,NaN]}',
      '{"entity":"new","content":[1,2,3]}',
      '{"entity":"nobody"}',
      '{"entity":"item:1","retired":"yes"}',
      '{"entity":"item:1","colour":"red"}',
      '[]',
      'null',
      `{"entity":"${'x'.repeat(2 ** 20)}"}`,
      '{"entity":"item:2","retired":true}\r',
      '{"entity":"item:3","popularity":4}',
      '{"entity":"item:4","popularity":4}',
      '{"entity":"item:4","removed":true}',
    ]);
    expect(report).toMatchObject({
      outcomes: { known: 1, added: 1, retired: 1, removed: 1 },
      rejected: { malformed: 6, 'content-not-finite': 1, 'content-dimension': 1, 'no-content': 1 },
      added: 1,
      retired: 1,
    });
    expect(report.examples[0]).toBe(`${join(folder, 'entities.jsonl')}, line 3: content of 'new' holds null at index 1`);
    expect(describeCatalogue(report)).toMatch(/^catalogue: 1 entities added, 1 retired, 1 of the vocabulary updated; rejected: /);
  });

  it('is the same as CSV: of the same columns, a number of the content each', async () => {
    const said = await load([
      '{"entity":"new","content":[1,-2.5e-1]}',
      '{"entity":"a, \\"b\\"","content":[0,4],"popularity":7}',
      '{"entity":"item:2","retired":true}',
      '{"entity":"item:3","popularity":4}',
      '{"entity":"item:3","removed":true}',
    ]);
    const rows = [
      '\ufeffentity,content.1,content.0,popularity,retired,removed\r',
      'new,-2.5e-1,1,,,\r',
      '',
      '"a, ""b""",4,0,7,false,',
      'item:2,,,,TRUE,',
      'item:3,,,4,,',
      'item:3,,,,,true',
    ];
    const { bundle: grown, report } = await load(rows, 'entities.csv');
    expect(report).toEqual(said.report);
    expect(report).toMatchObject({ added: 2, retired: 1, rejected: {} });
    expect(grown.catalogue).toEqual(said.bundle.catalogue);
  });

  it('counts rows of CSV that it cannot use, with file and line', async () => {
    const rows = ['entity,popularity,content.0,content.1', 'a,,1,', 'b,,1,x', 'c,,1,Infinity', 'd,many,,'];
    const { report } = await load([...rows, 'item:1,2', ',1,,', '"open,1,1,1', 'e,,1,2'], 'faulty.csv');
    expect(report).toMatchObject({ added: 1, rejected: { 'content-not-finite': 3, malformed: 4 } });
    const file = join(folder, 'faulty.csv');
    expect(report.examples).toEqual([
      `${file}, line 2: content of 'a' holds "" at index 1`,
      `${file}, line 3: content of 'b' holds "x" at index 1`,
      `${file}, line 4: content of 'c' holds "Infinity" at index 1`,
      `${file}, line 5: popularity "many"; must be a number`,
      `${file}, line 6: has 2 field(s) for 4 columns (entity, popularity, content.0, content.1)`,
    ]);
  });

  it('says all that is wrong with the columns of CSV, with file and line', async () => {
    const refused = load(['', 'name,content.0,content.2,colour'], 'columns.csv');
    await expect(refused).rejects.toMatchObject({ code: 'SOURCE_UNREADABLE' });
    await expect(refused).rejects.toThrow(/columns\.csv', line 2: 4 problem\(s\)/);
    for (const problem of [/column 'name'/, /column 'colour'/, /no column 'entity'/, /no content\.1/])
      await expect(refused).rejects.toThrow(problem);
    await expect(load(['entity,popularity,entity'], 'twice.csv')).rejects.toThrow(/names the column 'entity' twice/);
  });

  it('says of a file that is not there that it is not', async () => {
    await expect(withCatalogue(bundle, join(folder, 'none.jsonl'))).rejects.toThrow(/there is no such file/);
  });

  it('is what lines are scored with: new entities in lists and by name, retired ones in none, popular ones first', async () => {
    const { bundle: grown } = await load([
      '{"entity":"new","content":[3,-2],"popularity":7}',
      '{"entity":"item:2","retired":true}',
      '{"entity":"item:5","popularity":9}',
    ]);
    const encoder = new HstuEncoder(grown);
    try {
      const scorer = new LineScorer(grown, encoder);
      const events = [
        { entity: 'item:1', eventTimeMs: 1_000 },
        { entity: 'item:2', eventTimeMs: 2_000 },
      ];
      const ask = (line: object) => JSON.stringify({ userId: 'u', ...line });
      const [list, named, cold] = await scorer.score([
        ask({ events, topK: 10 }),
        ask({ events, candidates: ['new', 'item:2', 'unknown'] }),
        ask({ events: [], topK: 10 }),
      ]);
      const names = (line: typeof list) => line!.candidates!.map(({ entity }) => entity);
      expect(names(list).sort()).toEqual(['item:3', 'item:4', 'item:5', 'item:6', 'new']);
      expect(names(named).sort()).toEqual(['item:2', 'new']);
      expect(named!.leftOut).toEqual([{ entity: 'unknown', reason: 'unknown-entity' }]);
      const score = (line: typeof list) => line!.candidates!.find(({ entity }) => entity === 'new')!.score;
      expect(score(list)).toBeCloseTo(score(named), 5);
      expect(names(cold)).toEqual(['item:5', 'new', 'item:1', 'item:3', 'item:4', 'item:6']);
    } finally {
      await encoder.close();
    }
  });
});
