import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { fingerprintFiles } from '../../infra/files/fingerprint.ts';
import { expandGlob, patternIn } from '../../infra/files/glob.ts';
import { type MergedFiles, openFileSource } from '../../infra/files/merge-by-time.ts';
import { openRawRows, readCsv, readJsonLines } from '../../infra/files/read-records.ts';
import { RowSplitter } from '../../infra/files/split-rows.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { FileSource } from '../../schemas/config.ts';
import { UnreadableRow } from '../../schemas/unreadable-row.ts';

const folder = mkdtempSync(join(tmpdir(), 'hstu-files-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function file(text: string | Uint8Array, name = `file-${++files}`): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}
async function all(records: AsyncIterable<SourceRecord>): Promise<SourceRecord[]> {
  const list: SourceRecord[] = [];
  for await (const record of records) list.push(record);
  return list;
}
const values = async (records: AsyncIterable<SourceRecord>) => (await all(records)).map(({ value }) => value);

const mapping: FileSource['mapping'] = {
  userId: '{u}',
  action: 'view',
  entity: '{e}',
  eventTime: { field: 't', unit: 'ms' },
};
const csv = (path: string): FileSource => ({ path, format: 'csv', mapping });
const jsonl = (path: string): FileSource => ({ path, format: 'jsonl', mapping });
const merged = (source: MergedFiles, from?: number, to?: number) =>
  [...source.records(from, to)].map((entry) => {
    const result = source.decode(entry);
    return result.ok ? result.actions.map(({ userId, eventTimeMs }) => `${userId}@${eventTimeMs}`).join('+') : result.code;
  });

describe('CSV files are read row by row, and a bad row never ends the file', () => {
  it('numbers records from 0 after the header, and forgets a byte-order mark', async () => {
    const path = file('\ufeffa,b\r\n1,2\r\n\r\n3,4', 'bom.csv');
    expect(await all(readCsv(path))).toEqual([
      { position: { topic: 'bom.csv', partition: 0, offset: 0 }, value: { a: '1', b: '2' } },
      { position: { topic: 'bom.csv', partition: 0, offset: 1 }, value: { a: '3', b: '4' } },
    ]);
  });

  it('understands quoted fields, with commas, quotes and line breaks inside', async () => {
    const path = file('a,b\n"1,5","say ""hi"""\n"two\nlines",x\n"",""\n');
    expect(await values(readCsv(path))).toEqual([
      { a: '1,5', b: 'say "hi"' },
      { a: 'two\nlines', b: 'x' },
      { a: '', b: '' },
    ]);
  });

  it('keeps the raw text of rows that do not fit, and says what is wrong with each', async () => {
    const path = file('a,b\n1\n1,2,3\nx"y""z,5\n"bad" row,6\n7,8\n');
    expect(await values(readCsv(path))).toEqual([
      new UnreadableRow('1', 'has 1 field(s) for 2 columns (a, b)'),
      new UnreadableRow('1,2,3', 'has 3 field(s) for 2 columns (a, b)'),
      new UnreadableRow('x"y""z,5', 'a quote stands inside a field that does not begin with one'),
      new UnreadableRow('"bad" row,6', 'a quote inside a quoted field is not doubled'),
      { a: '7', b: '8' },
    ]);
  });

  it('resumes at the next line after a quote that is never closed', async () => {
    const path = file('a,b\n1,"open\n2,3\n4,5\n');
    expect(await values(readCsv(path))).toEqual([
      new UnreadableRow('1,"open', 'a quote is not closed'),
      { a: '2', b: '3' },
      { a: '4', b: '5' },
    ]);
  });

  it('cuts rows that are too long, so that memory stays bounded', async () => {
    const path = file(`a,b\n${'x'.repeat(5_000_000)},1\n2,3\n"${'y'.repeat(300)}\n4,5\n`);
    const [long, next, quoted, last] = await values(readCsv(path, { maxRecordBytes: 100 }));
    expect([(long as string).length, next, (quoted as string).length, last]).toEqual([
      101,
      { a: '2', b: '3' },
      101,
      { a: '4', b: '5' },
    ]);
  });

  it('refuses a header that names a column twice', async () => {
    await expect(all(readCsv(file('a,a\n1,2\n')))).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringContaining("'a' twice"),
    });
  });

  it('splits alike however the text is cut into chunks', () => {
    const text = fc
      .array(fc.constantFrom('a', ',', '"', '""', '\n', '\r\n', '"b,\n"', ',"c"\n'), { maxLength: 40 })
      .map((parts) => parts.join(''));
    const split = (chunks: string[]) => {
      const splitter = new RowSplitter({ quoted: true, maxRowChars: 1_000 });
      return [...chunks.flatMap((chunk) => splitter.push(chunk)), ...splitter.end()];
    };
    fc.assert(
      fc.property(text, fc.nat(40), fc.nat(40), (whole, i, j) => {
        const [a, b] = [Math.min(i, j), Math.max(i, j)];
        expect(split([whole.slice(0, a), whole.slice(a, b), whole.slice(b)])).toEqual(split([whole]));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('JSON lines are passed on raw', () => {
  it('without the empty ones', async () => {
    const path = file('{"a":1}\n\n  \nnonsense\n{"a":2}', 'events.jsonl');
    const records = await all(readJsonLines(path));
    expect(records.map(({ value }) => value)).toEqual(['{"a":1}', 'nonsense', '{"a":2}']);
    expect(records.map(({ position }) => position.offset)).toEqual([0, 1, 2]);
  });

  it('even where bytes are no UTF-8, or a character spans two chunks', async () => {
    const odd = file(Uint8Array.of(0x22, 0xff, 0x22, 0x0a));
    expect(await values(readJsonLines(odd))).toEqual([new UnreadableRow('"\ufffd"', 'holds bytes that are no text in UTF-8')]);
    const wide = file(`${'é'.repeat(700_000)}\nx`);
    expect((await values(readJsonLines(wide, { maxRecordBytes: 2_000_000 }))).map((value) => (value as string).length)).toEqual([
      700_000, 1,
    ]);
  });
});

describe('files in another form', () => {
  const rowsOf = async (content: string | Uint8Array, csv: object, more: object = {}, name = 'f.csv') => {
    const { chunks, toValue } = await openRawRows({ path: file(content, name), format: 'csv', csv, ...more });
    const rows: unknown[] = [];
    for await (const chunk of chunks) rows.push(...chunk.map(toValue));
    return rows;
  };
  const row = { user: 'u1', item: '1' };

  it.each([
    ['semicolons', 'user;item\nu1;1\n', { separator: ';' }],
    ['tabs', 'user\titem\nu1\t1\n', { separator: '\t' }],
    ['two colons, without a header', 'u1::1\n', { separator: '::', columns: ['user', 'item'] }],
    ['no header', 'u1,1\n', { columns: ['user', 'item'] }],
    ['comments', '# export\nuser,item\n# of today\nu1,1\n', { comment: '#' }],
    ['lines before the header', 'Export of\ntoday\nuser,item\nu1,1\n', { skipLines: 2 }],
    ['a separator inside quotes', 'user;item\n"u1";"1"\n', { separator: ';' }],
    ['line ends of carriage returns alone', 'user,item\ru1,1\r', {}],
  ])('of %s', async (_, content, csv) => {
    expect(await rowsOf(content, csv)).toEqual([row]);
  });

  it('with quotes in what is left out, which open nothing; blank lines count as lines', async () => {
    expect(await rowsOf('user,item\n#,"it\nu1,1\nu2,"2"\nu3,3', { comment: '#' })).toEqual([
      row,
      { user: 'u2', item: '2' },
      { user: 'u3', item: '3' },
    ]);
    expect(await rowsOf('"made by us\n\nuser,item\nu1,1\n', { skipLines: 2 })).toEqual([row]);
    // Within a field that is quoted it is no comment.
    expect(await rowsOf('user,item\nu1,"1\n# more"\n', { comment: '#' })).toEqual([{ user: 'u1', item: '1\n# more' }]);
  });

  it('the same wherever their text is cut', () => {
    const text = 'made "by\n\na,b\n# no "quote\n1,"x\n#y"\n#\n2,3\n##';
    const split = (cuts: readonly number[]) => {
      const splitter = new RowSplitter({ quoted: true, comment: '#', skipLines: 2, maxRowChars: 100 });
      const rows: string[] = [];
      for (const [i, at] of cuts.entries()) rows.push(...splitter.push(text.slice(i === 0 ? 0 : cuts[i - 1], at)));
      return [...rows, ...splitter.push(text.slice(cuts.at(-1) ?? 0)), ...splitter.end()];
    };
    const whole = split([]);
    expect(whole).toEqual(['a,b', '1,"x\n#y"', '2,3']);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: text.length })), (cuts) => {
        expect(split([...cuts].sort((x, y) => x - y))).toEqual(whole);
      }),
    );
  });

  it('whose columns begin with the letters of a format', async () => {
    for (const name of ['PAR1', 'ORC', 'BZh9', 'PK'])
      expect(await rowsOf(`${name},item\nu1,1\n`, {})).toEqual([{ [name]: 'u1', item: '1' }]);
  });

  it('with texts that mean no value', async () => {
    const csv = { nullTexts: ['NA', '\\N'] };
    expect(await rowsOf('user,item\nu1,NA\nu1,\\N\nu1,NAN\n', csv)).toEqual([
      { user: 'u1', item: '' },
      { user: 'u1', item: '' },
      { user: 'u1', item: 'NAN' },
    ]);
  });

  it('in UTF-16 by its mark, and in an encoding that is declared; two ids of other bytes are never one', async () => {
    const utf16 = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('user,item\nJosé,1\n', 'utf16le')]);
    expect(await rowsOf(utf16, {})).toEqual([{ user: 'José', item: '1' }]);
    const latin1 = Buffer.from('user,item\nJos\xe9,1\nJos\xe8,1\n', 'latin1');
    expect(await rowsOf(latin1, {}, { encoding: 'windows-1252' })).toEqual([
      { user: 'José', item: '1' },
      { user: 'Josè', item: '1' },
    ]);
    const refused = await rowsOf(latin1, {});
    expect(refused).toEqual([expect.any(UnreadableRow), expect.any(UnreadableRow)]);
  });

  it('packed, whatever its name is', async () => {
    const packed = gzipSync('user,item\nu1,1\n');
    for (const name of ['IN.CSV.GZ', 'plain.csv']) expect(await rowsOf(packed, {}, {}, name)).toEqual([row]);
  });

  it.each([
    ['Parquet', Buffer.from('PAR1\x15\x04xxPAR1'), /it is a Parquet file: format: parquet/],
    ['Avro', Buffer.from('Obj\x01xxxx'), /it is an Avro file: format: avro/],
    ['a zip', Buffer.from('PK\x03\x04xxxx'), /it is a zip archive, which is not read/],
    ['bzip2', Buffer.from('BZh91AY&SY'), /it is packed with bzip2, which is not read: use gzip or zstd/],
    [
      'UTF-16 without a mark',
      Buffer.from('user,item\n', 'utf16le'),
      /looks like UTF-16 without a byte-order mark; if so, set its encoding: utf-16le/,
    ],
  ])('that is no text (%s) is refused, and named', async (_, content, problem) => {
    await expect(rowsOf(content, {})).rejects.toThrow(problem);
  });
});

describe('a path', () => {
  it('has wildcards where its user wrote them, and not in its folder, nor in the name of a file that is there', () => {
    const odd = join(folder, 'a{b}*');
    mkdirSync(odd, { recursive: true });
    for (const name of ['in.csv', 'part{1}.csv', 'part2.csv']) writeFileSync(join(odd, name), 'x');
    expect(expandGlob(patternIn(odd, 'in.csv'))).toEqual([join(odd, 'in.csv')]);
    expect(expandGlob(patternIn(odd, 'part{1}.csv'))).toEqual([join(odd, 'part{1}.csv')]);
    expect(expandGlob(patternIn(odd, 'part*.csv'))).toEqual([join(odd, 'part2.csv'), join(odd, 'part{1}.csv')]);
    expect(expandGlob(patternIn(odd, './{in,part2}.csv'))).toEqual([join(odd, 'in.csv'), join(odd, 'part2.csv')]);
    expect(expandGlob(patternIn(folder, join(odd, 'in.csv')))).toEqual([join(odd, 'in.csv')]);
    expect(() => expandGlob(patternIn(odd, 'none*.csv'))).toThrow(/no file matches/);
  });
});

describe('a file that cannot be read is named, with the reason', () => {
  it.each([
    ['no such file', () => join(folder, 'absent.csv'), 'there is no such file'],
    ['a folder', () => folder, 'it is a folder'],
    ['a path through a file', () => join(file('x'), 'y.csv'), 'is a file, not a folder'],
  ])('%s', async (_, makePath, reason) => {
    const path = makePath();
    for (const records of [readCsv(path), readJsonLines(path)])
      await expect(all(records)).rejects.toMatchObject({
        code: 'SOURCE_UNREADABLE',
        exitCode: 2,
        message: expect.stringContaining(reason),
      });
    await expect(openFileSource([csv(path)])).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringContaining(path),
    });
    await expect(fingerprintFiles([csv(path)])).rejects.toMatchObject({ code: 'SOURCE_UNREADABLE' });
  });
});

describe('files are merged in event-time order', () => {
  it('though each is unsorted; ties by file and place', async () => {
    const source = await openFileSource([
      csv(file('u,e,t\na,x,30\nb,x,10\nc,x,20\n')),
      jsonl(file('{"u":"d","e":"x","t":20}\n{"u":"e","e":"x","t":5}\n')),
    ]);
    expect(merged(source)).toEqual(['e@5', 'b@10', 'c@20', 'd@20', 'a@30']);
    expect(source.total).toBe(5);
    expect(merged(source, 1, 3)).toEqual(['b@10', 'c@20']);
    expect([...source.records(3)].map(({ fileIndex, record }) => [fileIndex, record.position.offset])).toEqual([
      [1, 0],
      [0, 0],
    ]);
  });

  it('bad records in place, at the time of the one before them', async () => {
    const source = await openFileSource([
      csv(file('u,e,t\nbad\na,x,30\n,x,1\nb,x,20\nc,x,99,9\n')),
      csv(file('u,e,t\nd,x,25\n')),
    ]);
    expect(merged(source)).toEqual(['RECORD_MALFORMED', 'b@20', 'RECORD_MALFORMED', 'd@25', 'a@30', 'FIELD_INVALID']);
  });

  it('by contents alone: the clock does not move a record', async () => {
    const path = file('u,e,t\na,x,5000\nb,x,10\nc,x,20\n');
    const early = await openFileSource([csv(path)], { now: () => 0, maxFutureMs: 1_000 });
    const late = await openFileSource([csv(path)], { now: () => 10_000, maxFutureMs: 1_000 });
    expect(merged(early)).toEqual(['b@10', 'c@20', 'TIME_INVALID']);
    expect(merged(late)).toEqual(['b@10', 'c@20', 'a@5000']);
  });

  it('keeps files of one name apart, and empty ones cost nothing', async () => {
    const path = file('u,e,t\na,x,1\n', 'same.csv');
    const source = await openFileSource([csv(file('')), csv(path), csv(file('u,e,t\n')), csv(path)]);
    expect([...source.records()].map(({ record, fileIndex }) => [record.position.topic, fileIndex])).toEqual([
      ['same.csv', 1],
      ['same.csv#2', 3],
    ]);
  });

  it('refuses more records than may be sorted, saying which limit', async () => {
    const path = file('u,e,t\na,x,1\nb,x,2\n');
    await expect(openFileSource([csv(path), csv(path)], { maxSortRecords: 3 })).rejects.toThrow(
      /more than 3 records \(source\.maxSortRecords/,
    );
    expect((await openFileSource([csv(path), csv(path)], { maxSortRecords: 4 })).total).toBe(4);
  });

  it('refuses a mapping whose columns the file lacks', async () => {
    const wrong = { ...csv(file('user,e,t\na,x,1\n')) };
    await expect(openFileSource([wrong])).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining("needs 'u'; its columns are 'user', 'e', 't'"),
    });
  });

  it('equals a plain sort, for any files', async () => {
    const times = fc.array(fc.array(fc.nat(20), { maxLength: 12 }), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(times, async (perFile) => {
        const source = await openFileSource(
          perFile.map((list) => csv(file(`u,e,t\n${list.map((t, i) => `u${i},x,${t}\n`).join('')}`))),
        );
        const expected = perFile
          .flatMap((list, f) => list.map((t, i) => ({ t, f, i })))
          .sort((a, b) => a.t - b.t || a.f - b.f || a.i - b.i);
        expect([...source.records()].map(({ fileIndex, record }) => [fileIndex, record.position.offset])).toEqual(
          expected.map(({ f, i }) => [f, i]),
        );
      }),
      { numRuns: 50 },
    );
  });
});

describe('a fingerprint changes with contents and mapping, and with nothing else', () => {
  it('streams to the same digest that opening gives', async () => {
    const one = csv(file('u,e,t\na,x,1\n'));
    const two = csv(file('u,e,t\nb,x,2\n'));
    const base = await fingerprintFiles([one, two]);
    expect(base).toMatch(/^[0-9a-f]{64}$/);
    expect((await openFileSource([one, two])).fingerprint).toBe(base);
    const moved = csv(file('u,e,t\na,x,1\n'));
    const { userId, ...rest } = mapping;
    expect(await fingerprintFiles([{ ...moved, mapping: { ...rest, userId } }, two])).toBe(base);
    expect(await fingerprintFiles([two, one])).not.toBe(base);
    expect(await fingerprintFiles([{ ...one, mapping: { ...mapping, entity: 'm:{e}' } }, two])).not.toBe(base);
    expect(await fingerprintFiles([csv(file('u,e,t\na,x,1\n\n')), two])).not.toBe(base);
  });
});
