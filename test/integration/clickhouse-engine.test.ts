import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { ClickHouseError, createClient } from '@clickhouse/client';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { type EngineLease, openEngine } from '../../infra/clickhouse/engine/open-engine.ts';
import { countRows, readProgress } from '../../infra/clickhouse/readers.ts';
import { isAlive } from '../../infra/files/is-alive.ts';
import { embeddedIn, makeStore, sampleBatch, type TestStore, until } from '../support/clickhouse-store.ts';

const stores: TestStore[] = [];
const children: ChildProcess[] = [];

function newStore(): TestStore {
  const store = makeStore();
  stores.push(store);
  return store;
}

/** Another process on the folder; `lines` are what it says. */
function startProcess(folder: string, mode: 'write' | 'hold') {
  const child = spawn(process.execPath, ['--import', 'tsx', 'test/support/clickhouse-process.ts', folder, mode], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  const lines: { enginePid?: number; position?: number }[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => lines.push(JSON.parse(line)));
  const enginePid = async () => {
    await until(() => lines.length > 0, 20_000);
    return lines[0]!.enginePid!;
  };
  return { child, lines, enginePid };
}

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const store of stores.splice(0)) await store.remove();
});

function fileIn(folder: string, name: string): string {
  writeFileSync(join(folder, name), '');
  return join(folder, name);
}

const engineFile = (folder: string) => join(folder, '.engine.json');

describe('an embedded engine lives as long as somebody uses it', () => {
  it('serves a second process on the same folder, outlives its starter, and ends after the last', {
    timeout: 30_000,
  }, async () => {
    const { folder } = newStore();
    const starter = startProcess(folder, 'hold');
    const pid = await starter.enginePid();
    const second = await connect(embeddedIn(folder));
    expect(second.enginePid).toBe(pid);
    starter.child.stdin!.write('end\n');
    expect(await once(starter.child, 'exit')).toEqual([0, null]);
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    expect(await second.rows('SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await second.close();
    await until(() => !isAlive(pid), 30_000);
    expect(existsSync(engineFile(folder))).toBe(false);
  });

  it('keeps every acknowledged row though its starter is killed, and ends', { timeout: 120_000 }, async () => {
    const { folder } = newStore();
    const writer = startProcess(folder, 'write');
    const pid = await writer.enginePid();
    await until(() => writer.lines.length > 8, 10_000);
    writer.child.kill('SIGKILL');
    await once(writer.child, 'exit');
    const acknowledged = writer.lines.at(-1)!.position!;
    await until(() => !isAlive(pid), 30_000);

    const clickhouse = await connect(embeddedIn(folder));
    expect(clickhouse.enginePid).not.toBe(pid);
    const progress = await readProgress(clickhouse, 'other');
    const counts = await countRows(clickhouse, 'other');
    await clickhouse.close();
    expect(progress!.position).toBeGreaterThanOrEqual(acknowledged);
    expect(counts.embeddings).toBeGreaterThanOrEqual(progress!.position * 16);
    expect(counts.dead_letters).toBeGreaterThanOrEqual(progress!.position);
  });

  it('is started once, however many start it at once', { timeout: 120_000 }, async () => {
    const { folder } = newStore();
    const leases = [1, 2, 3].map(() => openEngine(folder));
    const pids = await Promise.all([
      startProcess(folder, 'hold').enginePid(),
      startProcess(folder, 'hold').enginePid(),
      ...leases.map(async (lease) => (await lease).pid),
    ]);
    // Not before all have it: the last to let go ends it, and whoever is slow to start would start another.
    for (const lease of leases) (await lease).release();
    expect(new Set(pids).size).toBe(1);
  });

  it('is not ended by signals of the terminal', { timeout: 20_000 }, async () => {
    const { folder } = newStore();
    const clickhouse = await connect(embeddedIn(folder));
    const pid = clickhouse.enginePid!;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await clickhouse.rows('SELECT 1 AS one')).toEqual([{ one: 1 }]);
    expect(clickhouse.enginePid).toBe(pid);
    await clickhouse.close();
  });

  it('is started again when it dies in use: the sink goes on', { timeout: 20_000 }, async () => {
    const { folder } = newStore();
    const clickhouse = await connect(embeddedIn(folder));
    const pid = clickhouse.enginePid!;
    const sink = new ClickHouseSink(clickhouse, { runId: 'r' });
    await sink.write(sampleBatch(0), 1);
    process.kill(pid, 'SIGKILL');
    await sink.write(sampleBatch(1), 2);
    expect(clickhouse.enginePid).not.toBe(pid);
    expect(await readProgress(clickhouse, 'r')).toMatchObject({ position: 2 });
    expect((await countRows(clickhouse, 'r')).actions).toBe(32);
    await clickhouse.close();
  });
});

describe('a folder is taken only where that is safe', () => {
  it('replaces the address of an engine that is gone', { timeout: 20_000 }, async () => {
    const { folder } = newStore();
    const first = await openEngine(folder);
    const address = readFileSync(engineFile(folder), 'utf8');
    expect(statSync(engineFile(folder)).mode & 0o777).toBe(0o600);
    process.kill(first.pid, 'SIGKILL');
    await until(() => !isAlive(first.pid));
    expect(first.lost).toBe(true);
    writeFileSync(engineFile(folder), address);
    writeFileSync(join(folder, '.engine.lock'), String(first.pid));
    const second = await openEngine(folder);
    expect(second.pid).not.toBe(first.pid);
    second.release();
  });

  it('and the address of a living process that is no engine, and one that is torn', { timeout: 120_000 }, async () => {
    const { folder } = newStore();
    mkdirSync(folder);
    writeFileSync(join(folder, '.hstu-store.json'), '{}');
    for (const text of [JSON.stringify({ pid: process.pid, port: 9, secret: 'x', startedAt: 'then' }), '{"pid":']) {
      writeFileSync(engineFile(folder), text);
      const lease = await openEngine(folder);
      expect(lease.pid).not.toBe(process.pid);
      lease.release();
      await until(() => !isAlive(lease.pid));
    }
  });

  it.each([
    ['a path through a file', (parent: string) => join(fileIn(parent, 'file'), 'store')],
    ['a file', (parent: string) => fileIn(parent, 'file')],
    ['a folder that is not ours', (parent: string) => dirname(fileIn(parent, 'thesis.doc'))],
  ])('refuses %s, naming it and the cure', async (_, prepare) => {
    const parent = mkdtempSync(join(tmpdir(), 'hstu-store-'));
    const path = prepare(parent);
    await expect(connect(embeddedIn(path))).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      exitCode: 2,
      message: expect.stringMatching(new RegExp(`'${path}'.*; choose .*clickhouse\\.path`)),
    });
    rmSync(parent, { recursive: true });
  });

  it('says why an engine does not start', { timeout: 20_000 }, async () => {
    const { folder } = newStore();
    mkdirSync(folder);
    writeFileSync(join(folder, '.hstu-store.json'), '{}');
    // ClickHouse wants a folder of this name.
    writeFileSync(join(folder, 'data'), '');
    writeFileSync(join(folder, 'metadata'), '');
    writeFileSync(join(folder, 'store'), '');
    await expect(openEngine(folder)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining(folder),
    });
    expect(existsSync(join(folder, '.engine.lock'))).toBe(false);
  });
});

describe("the engine's HTTP front is a ClickHouse server to the client", () => {
  const store = makeStore();
  let lease: EngineLease;
  const clientWith = (settings: Record<string, unknown> = {}) =>
    createClient({
      url: lease.url,
      username: lease.username,
      password: lease.password,
      log: { level: 127 as never },
      ...settings,
    });

  beforeAll(async () => {
    lease = await openEngine(store.folder);
  }, 20_000);
  afterAll(async () => {
    lease.release();
    await store.remove();
  });

  it('refuses whoever does not know the secret', async () => {
    const client = clientWith({ password: 'guess' });
    await expect(client.query({ query: 'SELECT 1' })).rejects.toMatchObject({ code: '516', type: 'AUTHENTICATION_FAILED' });
    expect((await fetch(`${lease.url}/?query=SELECT%201`)).status).toBe(403);
    expect((await fetch(`${lease.url}/?query=SELECT%201`, { headers: { 'X-ClickHouse-Key': lease.password } })).status).toBe(200);
    expect(await (await fetch(`${lease.url}/ping`)).text()).toBe('Ok.\n');
    await client.close();
  });

  it('gives errors their code and type', async () => {
    const client = clientWith();
    const failing = [
      ['SELEC 1', '62', 'SYNTAX_ERROR'],
      ['SELECT * FROM nowhere', '60', 'UNKNOWN_TABLE'],
      ['SELECT {missing:String}', '456', 'UNKNOWN_QUERY_PARAMETER'],
    ] as const;
    for (const [query, code, type] of failing) {
      const error = await client.query({ query }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ClickHouseError);
      expect(error).toMatchObject({ code, type });
    }
    await expect(clientWith({ database: 'absent' }).query({ query: 'SELECT 1' })).rejects.toMatchObject({
      type: 'UNKNOWN_DATABASE',
    });
    await expect(client.command({ query: 'SET max_threads = 1' })).rejects.toMatchObject({ type: 'NOT_IMPLEMENTED' });
    await client.close();
  });

  it('keeps no setting and no database beyond a request', async () => {
    const client = clientWith();
    const threads = async (settings?: Record<string, string>) => {
      const result = await client.query({
        query: "SELECT toUInt32(getSetting('max_threads')) AS n, currentDatabase() AS d",
        format: 'JSONEachRow',
        ...(settings ? { clickhouse_settings: settings } : {}),
      });
      return result.json<{ n: number; d: string }>();
    };
    const before = await threads();
    expect((await threads({ max_threads: '7' }))[0]).toEqual({ n: 7, d: 'default' });
    const other = clientWith({ database: 'system' });
    await other.command({ query: 'SELECT 1' });
    expect(await threads()).toEqual(before);
    await other.close();
    await client.close();
  });

  it('binds parameters, short in the URL and long in a form, unchanged', async () => {
    const client = clientWith({ use_multipart_params_auto: true });
    const nasty = '\'"`\\ \t\n\r\0 {a:String} -- é 🎬 ;/*';
    for (const padding of ['', 'x'.repeat(100_000)]) {
      const values = { s: nasty + padding, a: [nasty, padding], n: null, i: 12, d: new Date(1_700_000_000_123) };
      const result = await client.query({
        query:
          'SELECT {s:String} AS s, {a:Array(String)} AS a, {n:Nullable(String)} AS n, {i:UInt64} AS i, toUnixTimestamp64Milli({d:DateTime64(3)}) AS d',
        query_params: values,
        format: 'JSONEachRow',
        clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
      });
      expect(await result.json()).toEqual([{ ...values, d: 1_700_000_000_123 }]);
    }
    await client.close();
  });

  it('inserts values, compressed and not, and reads compressed answers', async () => {
    const client = clientWith({ compression: { request: true, response: true } });
    await client.command({ query: 'CREATE TABLE IF NOT EXISTS words (n UInt32, word String) ENGINE = MergeTree ORDER BY n' });
    const rows = [
      { n: 1, word: "it's; -- FORMAT CSV" },
      { n: 2, word: 'zwei\n"\\' },
    ];
    await client.insert({ table: 'words', values: rows, format: 'JSONEachRow' });
    await client.insert({ table: 'words', values: [[3, 'three']], format: 'JSONCompactEachRow', columns: ['n', 'word'] });
    const result = await client.query({ query: 'SELECT * FROM words ORDER BY n', format: 'JSONEachRow' });
    expect(await result.json()).toEqual([...rows, { n: 3, word: 'three' }]);
    await expect(client.insert({ table: 'words', values: [{ n: 'x' }], format: 'JSONEachRow' })).rejects.toBeInstanceOf(
      ClickHouseError,
    );
    const summary = await client.command({ query: 'SELECT count() FROM words' });
    expect(Number(summary.summary?.read_rows)).toBeGreaterThan(0);
    await client.close();
  });

  it('answers many requests at once, each with its own answer and in its own database', async () => {
    const clients = ['default', 'system'].map((database) => clientWith({ database, max_open_connections: 20 }));
    const answers = await Promise.all(
      Array.from({ length: 50 }, async (_, n) => {
        const query = `SELECT ${n} AS n, currentDatabase() AS d`;
        return (await clients[n % 2]!.query({ query, format: 'JSONEachRow' })).json<{ n: number; d: string }>();
      }),
    );
    expect(answers.flat()).toEqual(Array.from({ length: 50 }, (_, n) => ({ n, d: n % 2 === 0 ? 'default' : 'system' })));
    for (const client of clients) await client.close();
  });
});
