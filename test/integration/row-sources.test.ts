/** Every source of a replay gives what the CSV file gives: through the real engine, from files that it wrote, and through a real broker. */

import { statSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { openEngine } from '../../infra/clickhouse/engine/open-engine.ts';
import { openFileSource } from '../../infra/files/merge-by-time.ts';
import { deadLetter } from '../../operators/dead-letter.ts';
import type { DeadLetter, PositionedAction, UserAction } from '../../schemas/action.ts';
import type { Config, ConfigInput } from '../../schemas/config.ts';
import { parseConfig } from '../../schemas/config.ts';
import { loadConfig } from '../../streams/load-config.ts';
import { lettersBatch } from '../../streams/replay/backfill-output.ts';
import { deadLetterBackfill } from '../../streams/replay/dead-letter-source.ts';
import { rowInputs } from '../../streams/replay/row-inputs.ts';
import { type BackfillSource, fileBackfill, kafkaBackfill } from '../../streams/replay/source.ts';
import { storedLettersBackfill } from '../../streams/replay/stored-letters.ts';
import { until } from '../support/clickhouse-store.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

const MOVIELENS = fileURLToPath(new URL('../../examples/movielens/replay.yaml', import.meta.url));
const ROWS = 4_000;

const bare = ({ position: _, ...action }: PositionedAction): UserAction => action;

/** What a backfill takes from a source, in order. */
async function eventsOf(source: BackfillSource): Promise<UserAction[]> {
  const events: UserAction[] = [];
  await source.scan((_, result) => {
    if (!result.ok) throw new Error(result.message);
    events.push(...result.actions.map(bare));
  });
  return events;
}

/** Stores what a source's decoder refuses as the letters of a run; how many they are. */
async function storeLetters(clickhouse: ClickHouse, runId: string, source: BackfillSource): Promise<number> {
  const letters: DeadLetter[] = [];
  await source.scan((record, result) => {
    if (!result.ok) letters.push(deadLetter(record, 'decode', result.code, result.message));
  });
  await new ClickHouseSink(clickhouse, { runId }).write(lettersBatch(letters), 0);
  return letters.length;
}

type Source = NonNullable<ConfigInput['source']>;

describe('rows of files and tables', { timeout: 120_000 }, () => {
  let folder: string;
  let engine: ClickHouse;
  let given: Config;
  let expected: UserAction[];
  const path = (name: string) => join(folder, 'data', name);
  const sql = (text: string) => engine.command(`${text} SETTINGS max_threads = 1, engine_file_truncate_on_insert = 1`);
  const write = (name: string, format: string, select = '*') =>
    sql(
      `INSERT INTO FUNCTION file('${path(name)}', '${format}') SELECT ${select} FROM file('${path('ratings.csv')}', 'CSVWithNames')`,
    );
  const withSource = (source: Source): Config => ({ ...given, source: parseConfig({ bundle: 'x', source }, 'test').source });
  const mapped = (name: string, format: 'csv' | 'jsonl' | 'avro' | 'parquet') => ({
    path: path(name),
    format,
    mapping: given.source!.files[0]!.mapping,
  });
  const read = (source: Source) => eventsOf(fileBackfill(withSource(source)));

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hstu-rows-'));
    await mkdir(join(folder, 'data'));
    const movielens = await loadConfig({ file: MOVIELENS });
    const clickhouse = { ...movielens.clickhouse, path: join(folder, 'ch') };
    given = { ...movielens, state: { ...movielens.state, path: join(folder, 'state') }, clickhouse };
    const lines = (await readFile(movielens.source!.files[0]!.path, 'utf8')).split('\n').slice(0, ROWS + 1);
    await writeFile(path('ratings.csv'), `${lines.join('\n')}\n`);
    await writeFile(path('ratings.csv.gz'), gzipSync(`${lines.join('\n')}\n`));
    engine = await connect(clickhouse);
    expected = await read({ files: [mapped('ratings.csv', 'csv')] });
    expect(expected).toHaveLength(ROWS);
  }, 120_000);
  afterAll(async () => {
    await engine?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('are the same from Avro, Parquet, JSON lines and packed text; another value shows', async () => {
    await write('a.avro', 'Avro');
    await write('a.parquet', 'Parquet');
    await write('a.jsonl', 'JSONEachRow');
    await sql(
      `INSERT INTO FUNCTION file('${path('a.jsonl.zst')}', 'LineAsString') SELECT * FROM file('${path('a.jsonl')}', 'LineAsString')`,
    );
    for (const [name, format] of [
      ['a.avro', 'avro'],
      ['a.parquet', 'parquet'],
      ['a.jsonl', 'jsonl'],
      ['a.jsonl.zst', 'jsonl'],
      ['ratings.csv.gz', 'csv'],
    ] as const)
      expect(await read({ files: [mapped(name, format)] }), name).toEqual(expected);
    await write('other.parquet', 'Parquet', '* REPLACE (if(movieId = 3, 1.5, rating) AS rating)');
    expect(await read({ files: [mapped('other.parquet', 'parquet')] })).not.toEqual(expected);
  });

  it('of hostile files are refused with their path, of one whose engine dies too, and the store goes on', async () => {
    const footer = Buffer.from([0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]);
    await writeFile(
      path('hostile.parquet'),
      Buffer.concat([Buffer.from('PAR1'), footer, Buffer.from([9, 0, 0, 0]), Buffer.from('PAR1')]),
    );
    await expect(read({ files: [mapped('hostile.parquet', 'parquet')] })).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: `cannot read source file '${path('hostile.parquet')}' as Parquet: at byte 9 of 9 is a list of 2147483647, with 0 bytes left`,
    });
    await cp(fileURLToPath(new URL('../golden/parquet/unpacks-to-20-gb.parquet', import.meta.url)), path('bomb.parquet'));
    await expect(read({ files: [mapped('bomb.parquet', 'parquet')] })).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringMatching(/bomb\.parquet' as Parquet: Query memory limit exceeded: .* maximum: 2\.00 GiB/),
    });
    await sql(
      `INSERT INTO FUNCTION file('${path('large.parquet')}', 'Parquet') SELECT number AS userId, 1 AS movieId, 1 AS rating, repeat('x', 100) AS timestamp FROM numbers(3000000)`,
    );
    const reading = expect(read({ files: [mapped('large.parquet', 'parquet')] })).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringContaining(`the engine died reading source file '${path('large.parquet')}' as Parquet`),
    });
    const spooled = () => readdir(join(given.state.path, 'backfill')).catch(() => []);
    const begun = async () =>
      (await spooled()).some(
        (name) => statSync(join(given.state.path, 'backfill', name, 'rows'), { throwIfNoEntry: false })?.size,
      );
    await until(begun, 30_000);
    const { pid } = JSON.parse(await readFile(join(given.state.path, 'file-reader/.engine.json'), 'utf8')) as { pid: number };
    expect(pid).not.toBe(engine.enginePid);
    process.kill(pid, 'SIGKILL');
    await reading;
    expect(await spooled()).toEqual([]);
    expect(await engine.rows('SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await write('again.parquet', 'Parquet');
    expect(await read({ files: [mapped('again.parquet', 'parquet')] })).toEqual(expected);
  });

  it('are the same from a table and a query, and a plain replay merges them with files by event time', async () => {
    await engine.command(
      'CREATE TABLE ratings (n UInt32, userId UInt32, movieId UInt64, rating Float32, timestamp UInt64) ENGINE = MergeTree ORDER BY movieId',
    );
    await engine.command(
      `INSERT INTO ratings SELECT rowNumberInAllBlocks() AS n, * FROM file('${path('ratings.csv')}', 'CSVWithNames') SETTINGS max_threads = 1`,
    );
    const { mapping } = mapped('', 'csv');
    expect(await read({ clickhouse: [{ name: 'ratings', table: 'ratings', mapping }] })).toEqual(expected);
    const lease = await openEngine(join(folder, 'ch'));
    try {
      const { url, username, password } = lease;
      const server = { name: 'ratings', url, username, password, database: 'hstu', mapping };
      expect(await read({ clickhouse: [{ ...server, table: 'ratings' }] })).toEqual(expected);
      expect(await read({ clickhouse: [{ ...server, query: 'SELECT * FROM ratings WHERE n > 0 ORDER BY n;' }] })).toEqual(
        expected.slice(1),
      );
    } finally {
      lease.release();
    }
    const query = 'SELECT * FROM ratings WHERE userId % 2 = 1 ORDER BY n';
    const odd = { name: 'odd', query, mapping };
    const isOdd = ({ userId }: UserAction) => Number(userId) % 2 === 1;
    expect(await read({ clickhouse: [odd] })).toEqual(expected.filter(isOdd));
    expect(await read({ clickhouse: [{ ...odd, query: query.replace('ORDER BY n', 'ORDER BY n DESC') }] })).toEqual(
      expected.filter(isOdd).reverse(),
    );

    await sql(
      `INSERT INTO FUNCTION file('${path('even.avro')}', 'Avro') SELECT * FROM file('${path('ratings.csv')}', 'CSVWithNames') WHERE userId % 2 = 0`,
    );
    const merged = await openFileSource(await rowInputs(withSource({ files: [mapped('even.avro', 'avro')], clickhouse: [odd] })));
    const whole = await openFileSource([mapped('ratings.csv', 'csv')]);
    const actions = (from: typeof merged) =>
      [...from.records()].flatMap((record) => {
        const result = from.decode(record);
        if (!result.ok) throw new Error(result.message);
        return result.actions.map(bare);
      });
    const [both, one] = [actions(merged), actions(whole)];
    const ofUser = (events: UserAction[], user: string) => events.filter(({ userId }) => userId === user);
    expect(both.map(({ eventTimeMs }) => eventTimeMs)).toEqual(one.map(({ eventTimeMs }) => eventTimeMs));
    for (const user of new Set(one.map(({ userId }) => userId))) expect(ofUser(both, user)).toEqual(ofUser(one, user));
  });

  it('of Avro and Parquet must have the columns that the mapping names: all that they lack is listed', async () => {
    await write('named.avro', 'Avro');
    const file = mapped('named.avro', 'avro');
    const mapping = { ...file.mapping, userId: 'u:{user}', value: 'stars', context: { a: 'movieId', b: 'place.city' } };
    await expect(rowInputs(withSource({ files: [{ ...file, mapping }] }))).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining("named.avro' needs 'user', 'stars', 'place'; its columns are 'userId'"),
    });
  });

  it('of a pattern are those of its files in order; drift, damage and absence are one clear message each', async () => {
    const half = async (name: string, where: string, select = '*') =>
      sql(
        `INSERT INTO FUNCTION file('${path(name)}', 'Parquet') SELECT ${select} FROM file('${path('ratings.csv')}', 'CSVWithNames') WHERE ${where}`,
      );
    await half('part-1.parquet', 'userId <= 10');
    await half('part-2.parquet', 'userId > 10');
    const parts = { files: [mapped('part-*.{parquet,pq}', 'parquet')] };
    expect(await read(parts)).toEqual(expected);

    await half('part-3.parquet', 'userId > 10', '* REPLACE (toString(rating) AS rating)');
    await expect(read(parts)).rejects.toThrow(
      /part-3\.parquet' has column 'rating' as Nullable\(String\), which is Nullable\(Float64\) in '.*part-1\.parquet'/,
    );
    await writeFile(path('bad.parquet'), 'PAR1 is not enough');
    await expect(read({ files: [mapped('bad.parquet', 'parquet')] })).rejects.toThrow(
      /cannot read source file '.*bad\.parquet' as Parquet: /,
    );
    await writeFile(path('bad.csv.gz'), gzipSync('not whole'.repeat(100)).subarray(0, 20));
    await expect(read({ files: [mapped('bad.csv.gz', 'csv')] })).rejects.toMatchObject({ code: 'SOURCE_UNREADABLE' });
    await expect(read({ files: [mapped('none-*.csv', 'csv')] })).rejects.toThrow(/no file matches '.*none-\*\.csv'/);
    const { mapping } = mapped('', 'csv');
    await expect(read({ clickhouse: [{ name: 'gone', table: 'gone', mapping }] })).rejects.toThrow(
      /cannot read 'gone' from ClickHouse: /,
    );
    expect(() => withSource({ clickhouse: [{ name: 'x y', mapping }] })).toThrow(
      /2 problem\(s\)[\s\S]*clickhouse\.0\.name[\s\S]*table or query/,
    );
  });

  it('leave nothing on disk when a backfill is stopped while they are written out, or lack a column; and are read whole after that', async () => {
    const { mapping } = mapped('', 'csv');
    const query = `SELECT * FROM file('${path('ratings.csv')}', 'CSVWithNames') WHERE sleepEachRow(0.0001) = 0`;
    const source = { clickhouse: [{ name: 'slow', query, mapping }] };
    const spool = join(folder, 'state', 'backfill');
    const spooled = () => readdir(spool).catch(() => []);
    const stop = new AbortController();
    const reading = fileBackfill(withSource(source)).scan(() => undefined, stop.signal);
    await until(async () => (await spooled()).length > 0, 30_000);
    stop.abort();
    await expect(reading).rejects.toThrow(/abort/);
    expect(await spooled()).toEqual([]);
    expect(await read(source)).toEqual(expected);

    const lacking = { clickhouse: [{ name: 'lacking', query: 'SELECT 1 AS a', mapping }] };
    await expect(read(lacking)).rejects.toThrow();
    await sql(`INSERT INTO FUNCTION file('${path('one.csv.zst')}', 'CSVWithNames') SELECT 1 AS a`);
    await expect(read({ files: [mapped('one.csv.zst', 'csv')] })).rejects.toThrow(/its columns are 'a'/);
    expect(await spooled()).toEqual([]);
  });

  it('that were dead letters come again from the table of their run, decoded by what the configuration says now', async () => {
    const now = withSource({ files: [mapped('ratings.csv', 'csv')] });
    const minMs = expected[ROWS / 2]!.eventTimeMs;
    const before = { ...now, time: { ...now.time, minMs } };
    const refused = expected.filter(({ eventTimeMs }) => eventTimeMs < minMs);
    expect(await storeLetters(engine, 'of-files', fileBackfill(before))).toBe(refused.length);
    expect(refused.length).toBeGreaterThan(500);
    const byId = (a: UserAction, b: UserAction) => (a.userId + a.eventId < b.userId + b.eventId ? -1 : 1);
    expect((await eventsOf(storedLettersBackfill(now, 'of-files'))).sort(byId)).toEqual([...refused].sort(byId));
    const other = withSource({ files: [mapped('ratings.csv.gz', 'csv')] });
    await expect(eventsOf(storedLettersBackfill(other, 'of-files'))).rejects.toThrow(
      /no topic or source of this name \(ratings\.csv\.gz\)/,
    );
  });
});

describe.skipIf(!kafkaIsPossible)('dead letters', { timeout: 180_000 }, () => {
  it('are the original records, decoded by what the configuration says now', async () => {
    const broker = await sharedKafka();
    const bundle = await liveBundle();
    const actions = liveEvents({ events: 300, users: 20 });
    const times = actions.map(({ eventTimeMs }) => eventTimeMs).sort((a, b) => a - b);
    const minMs = times[150]!;
    const name = randomName('letters');
    const world = await LiveWorld.create({
      broker,
      name,
      bundlePath: bundle.path,
      bundle: bundle.bundle,
      settings: { time: { minMs } },
    });
    try {
      await world.start('a');
      await world.produce(actions);
      await world.untilConsumed(actions.length);
      const refused = actions.filter(({ eventTimeMs }) => eventTimeMs < minMs);
      expect(refused.length).toBeGreaterThan(100);
      const mended = { ...world.config, time: { ...world.config.time, minMs: 0 } };
      const byId = (a: UserAction, b: UserAction) => (a.eventId < b.eventId ? -1 : 1);
      expect((await eventsOf(deadLetterBackfill(mended, () => ({})))).sort(byId)).toEqual([...refused].sort(byId));
      // As it was, they are dead letters again.
      await expect(eventsOf(deadLetterBackfill(world.config, () => ({})))).rejects.toThrow(/before time\.minMs/);

      // And from ClickHouse, bytes and all.
      const stored = { ...mended, clickhouse: { ...mended.clickhouse, path: join(world.folder, 'ch') } };
      const clickhouse = await connect(stored.clickhouse);
      try {
        expect(
          await storeLetters(
            clickhouse,
            name,
            kafkaBackfill(world.config, () => ({})),
          ),
        ).toBe(refused.length);
        expect((await eventsOf(storedLettersBackfill(stored, name))).sort(byId)).toEqual([...refused].sort(byId));
      } finally {
        await clickhouse.close();
      }
    } finally {
      await world.close();
    }
  });
});
