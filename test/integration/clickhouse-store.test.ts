import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { openEngine } from '../../infra/clickhouse/engine/open-engine.ts';
import { writeOffsets } from '../../infra/clickhouse/feed/feed-offsets.ts';
import { migrate, readMigrations } from '../../infra/clickhouse/migrate.ts';
import { promotedRun } from '../../infra/clickhouse/promotions.ts';
import { listQueries, runQuery } from '../../infra/clickhouse/queries.ts';
import { countRows, dropRun, latestEmbeddings, latestScores, newestRun, readProgress } from '../../infra/clickhouse/readers.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { parseConfig } from '../../schemas/config.ts';
import { planStoredPromotion, promoteStored, requireNotPromoted } from '../../streams/replay/promote-stored.ts';
import { embeddedIn, makeStore, sampleBatch } from '../support/clickhouse-store.ts';
import { runCommand } from '../support/command-line.ts';

const store = makeStore();
let clickhouse: ClickHouse;
beforeAll(async () => {
  clickhouse = await connect(embeddedIn(store.folder));
}, 20_000);
afterAll(async () => {
  await clickhouse.close();
  await store.remove();
});

const BATCHES = Array.from({ length: 6 }, (_, n) => sampleBatch(n));
const of = <K extends 'processed' | 'embeddings' | 'scores' | 'quality' | 'deadLetters'>(key: K) =>
  BATCHES.flatMap((batch) => batch[key] as unknown as OutputBatch[K][number][]);

async function write(runId: string, batches: readonly OutputBatch[] = BATCHES) {
  const sink = new ClickHouseSink(clickhouse, { runId, total: 100, facts: { model: 'model-1' } });
  await Promise.all(batches.map((batch, i) => sink.write(batch, i + 1)));
  return sink;
}
/** A handle whose inserts go through `around`. */
const withInserts = (around: (table: string, insert: () => Promise<void>) => Promise<void>): ClickHouse => ({
  ...clickhouse,
  insert: (table, columns, rows) => around(table, () => clickhouse.insert(table, columns, rows)),
});
const networkFault = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });

describe('tables are brought up to date once, and only forwards', () => {
  const noBootstrap = () => Promise.resolve();

  it('changes nothing the second time', async () => {
    const before = await clickhouse.rows('SELECT version, checksum, applied_at FROM schema_migrations ORDER BY version');
    await migrate(clickhouse, noBootstrap);
    expect(await clickhouse.rows('SELECT version, checksum, applied_at FROM schema_migrations ORDER BY version')).toEqual(before);
    expect(before).toHaveLength((await readMigrations()).length);
  });

  it('refuses a database that is newer, and a migration that was changed', async () => {
    const known = await readMigrations();
    const refused = { code: 'CONFIG_INVALID', exitCode: 2 };
    await expect(migrate(clickhouse, noBootstrap, [])).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/'hstu'.*upgrade/),
    });
    const changed = known.map((migration) => ({ ...migration, checksum: 'x' }));
    await expect(migrate(clickhouse, noBootstrap, changed)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('001-tables.sql'),
    });
  });

  it('applies what is missing, statement by statement', async () => {
    const server = await connect(embeddedIn(store.folder, 'second'));
    const extra = {
      version: 900,
      name: '900-more.sql',
      sql: "CREATE TABLE more (a String) ENGINE = MergeTree ORDER BY a;\nINSERT INTO more SELECT ';';",
      checksum: 'c',
    };
    await migrate(server, noBootstrap, [...(await readMigrations()), extra]);
    await migrate(server, noBootstrap, [...(await readMigrations()), extra]);
    expect(await server.rows('SELECT * FROM more')).toEqual([{ a: ';' }]);
    await server.close();
    await expect(connect(embeddedIn(store.folder, 'second'))).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('900-more.sql'),
    });
  });
});

describe('a server is reached by the same path', () => {
  it('with its user and password, or it says what to check', async () => {
    const lease = await openEngine(store.folder);
    const config = { path: 'unused', database: 'hstu', url: lease.url, username: lease.username };
    const server = await connect({ ...config, password: lease.password });
    expect(server.enginePid).toBeUndefined();
    expect(await server.rows('SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await server.close();
    const refused = { code: 'STORE_UNAVAILABLE', message: expect.stringMatching(/127\.0\.0\.1.*check clickhouse\.url/) };
    await expect(connect({ ...config, password: 'wrong' })).rejects.toMatchObject(refused);
    await expect(connect({ ...config, url: 'http://127.0.0.1:9' })).rejects.toMatchObject(refused);
    lease.release();
  });
});

describe('the sink stores a batch once, and progress last', () => {
  it('with every field as it was', async () => {
    await write('whole');
    expect(await countRows(clickhouse, 'whole')).toEqual({
      actions: 96,
      embeddings: 96,
      scores: 96,
      quality: 96,
      dead_letters: 6,
    });
    const [first] = await clickhouse.rows<object>("SELECT * FROM actions FINAL WHERE run_id = 'whole' ORDER BY offset LIMIT 1");
    expect(first).toEqual({
      run_id: 'whole',
      user_id: 'user-0',
      event_time: '1996-06-01 00:00:00.000',
      event_id: 'event-0',
      action: 'rating',
      entity: 'movie:0',
      value: 0,
      disposition: 'inserted',
      context: {},
      topic: 'events.csv',
      partition: 0,
      offset: 0,
      recorded_at: '1996-06-01 00:00:00.000',
      part: 0,
    });
    const newest = of('embeddings').findLast(({ userId }) => userId === 'user-3')!;
    const stored = (await latestEmbeddings(clickhouse, 'whole', ['user-3', 'nobody'])).get('user-3')!;
    expect(stored).toEqual({
      userId: 'user-3',
      version: newest.version,
      embedding: newest.embedding,
      sequenceLength: newest.sequenceLength,
      lastEventTimeMs: newest.lastEventTimeMs,
      queryTimeMs: newest.queryTimeMs,
      sequenceDigest: newest.lineage.sequenceDigest,
      modelDigest: newest.lineage.modelDigest,
      computedAtMs: newest.computedAtMs,
    });
  });

  it('though it is written again', async () => {
    await write('twice');
    const before = await countRows(clickhouse, 'twice');
    await write('twice');
    await write('twice', BATCHES.slice(0, 2));
    expect(await countRows(clickhouse, 'twice')).toEqual(before);
    // An older position never replaces a newer one.
    expect(await readProgress(clickhouse, 'twice')).toMatchObject({
      position: 6,
      total: 100,
      finished: false,
      facts: { model: 'model-1' },
    });
  });

  it('and says when a run is finished', async () => {
    const sink = await write('finished');
    await sink.finish();
    expect(await readProgress(clickhouse, 'finished')).toMatchObject({ position: 6, finished: true });
    expect(await readProgress(clickhouse, 'unknown')).toBeUndefined();
    expect(await newestRun(clickhouse)).toBe('finished');
  });

  it('coalesces writes that come together', async () => {
    let inserts = 0;
    const counting = withInserts((_, insert) => {
      inserts++;
      return insert();
    });
    const sink = new ClickHouseSink(counting, { runId: 'grouped' });
    await Promise.all(BATCHES.map((batch, i) => sink.write(batch, i + 1)));
    expect(inserts).toBe(6);
    inserts = 0;
    const small = new ClickHouseSink(counting, { runId: 'grouped-small', maxRows: 100 });
    await Promise.all(BATCHES.map((batch, i) => small.write(batch, i + 1)));
    expect(inserts).toBe(18);
  });

  it('never shows a position before the rows under it', async () => {
    const order: string[] = [];
    const watching = withInserts(async (table, insert) => {
      if (table === 'quality') await new Promise((resolve) => setTimeout(resolve, 30));
      await insert();
      order.push(table);
    });
    await new ClickHouseSink(watching, { runId: 'order' }).write(BATCHES[0]!, 1);
    expect(order.at(-1)).toBe('progress');
    expect(order).toHaveLength(6);
  });

  it('tries again after a fault of the network, even one after the insert', async () => {
    let faults = 0;
    const flaky = withInserts(async (table, insert) => {
      if (table === 'actions' && faults < 2) {
        if (faults++ === 1) await insert();
        throw networkFault();
      }
      return insert();
    });
    await new ClickHouseSink(flaky, { runId: 'flaky', retryDelayMs: 1 }).write(BATCHES[0]!, 1);
    expect((await countRows(clickhouse, 'flaky')).actions).toBe(16);
    expect(await readProgress(clickhouse, 'flaky')).toMatchObject({ position: 1 });
  });

  it('fails for good after the last attempt, and then takes nothing more', async () => {
    let attempts = 0;
    const dead = withInserts((table, insert) => {
      if (table !== 'scores') return insert();
      attempts++;
      return Promise.reject(networkFault());
    });
    const sink = new ClickHouseSink(dead, { runId: 'dead', maxAttempts: 3, retryDelayMs: 1 });
    const failed = {
      code: 'STORE_FAILED',
      retriable: true,
      message: expect.stringContaining('insert into scores failed after 3 attempts'),
    };
    const writes = await Promise.allSettled([sink.write(BATCHES[0]!, 1), sink.write(BATCHES[1]!, 2)]);
    for (const result of writes) expect(result).toMatchObject({ status: 'rejected', reason: failed });
    expect(attempts).toBe(3);
    await expect(sink.write(BATCHES[2]!, 3)).rejects.toMatchObject(failed);
    await expect(sink.finish()).rejects.toMatchObject(failed);
    expect(await readProgress(clickhouse, 'dead')).toBeUndefined();
  });

  it('does not repeat what can never succeed', async () => {
    let attempts = 0;
    const wrong = withInserts((table) => {
      attempts++;
      return clickhouse.command(`INSERT INTO ${table} (absent) VALUES (1)`);
    });
    const only: OutputBatch = { ...BATCHES[0]!, processed: [], embeddings: [], scores: [], quality: [] };
    await expect(
      new ClickHouseSink(
        {
          ...wrong,
          insert: (table, columns, rows) => (rows.length === 0 ? Promise.resolve() : wrong.insert(table, columns, rows)),
        },
        { runId: 'wrong' },
      ).write(only, 1),
    ).rejects.toMatchObject({
      code: 'STORE_FAILED',
    });
    expect(attempts).toBe(1);
  });

  it('refuses positions out of order', async () => {
    const sink = new ClickHouseSink(clickhouse, { runId: 'disorder' });
    const first = sink.write(BATCHES[1]!, 2);
    await expect(sink.write(BATCHES[0]!, 1)).rejects.toThrow(/in order/);
    await first;
  });

  it('keeps odd values: bytes, lone surrogates, NaN, times about 1970, long ids', async () => {
    const [base] = BATCHES as [OutputBatch];
    const letter = base.deadLetters[0]!;
    const odd: OutputBatch = {
      ...base,
      processed: [
        {
          disposition: 'kept',
          action: {
            ...base.processed[0]!.action,
            eventTimeMs: 5,
            userId: `\0'"\\\n${'é'.repeat(1000)}`,
            context: { 'k\n': "v'" },
          },
        },
      ],
      deadLetters: [
        { ...letter, original: Uint8Array.of(0xff, 0x00), message: 'half \ud800' },
        { ...letter, position: { ...letter.position, offset: 99 }, original: '\ud83c🎬' },
      ],
      embeddings: [{ ...base.embeddings[0]!, embedding: Float32Array.of(Number.NaN, Number.NEGATIVE_INFINITY, -0.1) }],
      scores: [
        {
          ...base.scores[0]!,
          requestId: 'q',
          candidates: [{ entity: 'e', score: Number.NEGATIVE_INFINITY }],
          coldStart: true,
          queryTimeMs: 1_500,
          ageMs: 0.5,
          tasks: { like: Float32Array.of(0.25), buy: Float32Array.of(Number.NaN) },
          leftOut: [{ entity: "it's", reason: 'denied' }],
        },
      ],
      quality: [],
    };
    await write('odd', [odd]);
    expect(
      await clickhouse.rows("SELECT user_id, toUnixTimestamp64Milli(event_time) AS t, context FROM actions WHERE run_id = 'odd'"),
    ).toEqual([{ user_id: odd.processed[0]!.action.userId, t: 5, context: { 'k\n': "v'" } }]);
    expect(
      await clickhouse.rows("SELECT original, encoding, message FROM dead_letters WHERE run_id = 'odd' ORDER BY offset"),
    ).toEqual([
      { original: '/wA=', encoding: 'base64', message: 'half \ufffd' },
      { original: '\ufffd🎬', encoding: 'text', message: letter.message },
    ]);
    expect(await clickhouse.rows("SELECT toString(embedding) AS e FROM embeddings WHERE run_id = 'odd'")).toEqual([
      { e: '[nan,-inf,-0.1]' },
    ]);
    expect(await clickhouse.rows("SELECT toString(scores) AS s FROM scores WHERE run_id = 'odd'")).toEqual([{ s: '[-inf]' }]);
    expect(
      await clickhouse.rows(
        "SELECT cold_start, toUnixTimestamp64Milli(query_time) AS t, age_ms, toString(tasks) AS tasks, left_out FROM scores WHERE run_id = 'odd'",
      ),
    ).toEqual([
      { cold_start: true, t: 1_500, age_ms: 0.5, tasks: "{'like':[0.25],'buy':[nan]}", left_out: { "it's": 'denied' } },
    ]);
  });
});

describe('what is stored is read back by run', () => {
  beforeAll(() => write('read').then(() => undefined));

  it('newest scores, and those before a version', async () => {
    const own = of('scores').filter(({ userId }) => userId === 'user-2');
    const [before, newest] = own.slice(-2) as [(typeof own)[0], (typeof own)[0]];
    const shape = ({ userId, version, candidates, computedAtMs }: typeof newest) => ({
      userId,
      version,
      candidates,
      computedAtMs,
    });
    expect(await latestScores(clickhouse, 'read', 'user-2')).toEqual(shape(newest));
    expect(await latestScores(clickhouse, 'read', 'user-2', newest.version)).toEqual(shape(before));
    expect(await latestScores(clickhouse, 'read', 'user-2', 0)).toBeUndefined();
  });

  it('newest embeddings of many users, and by the view', async () => {
    const users = Array.from({ length: 30_000 }, (_, i) => `user-${i}`);
    const found = await latestEmbeddings(clickhouse, 'read', users);
    expect([...found.keys()].sort()).toEqual(['user-0', 'user-1', 'user-2', 'user-3', 'user-4', 'user-5', 'user-6']);
    const view = await clickhouse.rows<{ user_id: string; latest_version: number }>(
      "SELECT user_id, latest_version FROM embeddings_latest WHERE run_id = 'read' ORDER BY user_id",
    );
    expect(view).toEqual([...found.values()].map(({ userId, version }) => ({ user_id: userId, latest_version: version })));
    expect((await latestEmbeddings(clickhouse, 'read', [])).size).toBe(0);
  });

  it('until the run is dropped, which leaves other runs alone', async () => {
    await write('dropped');
    await dropRun(clickhouse, 'dropped');
    await dropRun(clickhouse, "it's not there");
    expect(await countRows(clickhouse, 'dropped')).toEqual({ actions: 0, embeddings: 0, scores: 0, quality: 0, dead_letters: 0 });
    expect(await readProgress(clickhouse, 'dropped')).toBeUndefined();
    expect((await countRows(clickhouse, 'read')).actions).toBe(96);
  });
});

describe('a run that is promoted', () => {
  const name = 'shop';
  const topic = 'user-actions';
  const finished = async (runId: string, facts: Readonly<Record<string, unknown>>) => {
    const sink = new ClickHouseSink(clickhouse, { runId, facts: { mode: 'state', ...facts } });
    await Promise.all(BATCHES.map((batch, i) => sink.write(batch, i + 1)));
    await sink.finish();
  };
  const upTo = (to: number) => ({ ranges: [{ topic, partition: 0, from: 0, to }] });

  it('is what questions are asked about, at once and for as long as it is; unfinished, or older than live, it is refused', async () => {
    const settings = {
      bundle: 'none',
      clickhouse: { path: store.folder },
      kafka: { brokers: ['nowhere:1'], applicationId: name },
    };
    const config = parseConfig(settings, 'this test');
    const file = join(store.folder, 'promoted.yaml');
    await writeFile(file, stringify(settings));
    await writeOffsets(clickhouse, name, [
      { topic, partition: 0, nextOffset: 50 },
      { topic: 'candidate-scores', partition: 0, nextOffset: 900 },
    ]);
    await Promise.all([
      finished('new', upTo(60)),
      finished('old', upTo(49)),
      finished('of-files', {}),
      finished('moment', { ...upTo(60), mode: 'as-of' }),
    ]);
    await write('half-done');
    const plan = (runId: string) => planStoredPromotion(clickhouse, config, runId);
    await expect(plan('half-done')).rejects.toThrow(/it is not finished: 6 of 100 events; .*\n.*the run was not made of it/);
    await expect(plan('old')).rejects.toThrow(
      'of user-actions/0 live has stored up to offset 50, the run ends at 49: it is older',
    );
    await expect(plan('of-files')).rejects.toThrow(/was not made of it: it is older/);
    await expect(plan('moment')).rejects.toThrow(/--mode as-of/);
    await expect(plan('unknown')).rejects.toThrow(/not in ClickHouse at .* which holds .*half-done/);

    const asked = async () =>
      (await runCommand(['query', 'user-timeline', '-p', 'user_id=user-1', '--format', 'json', '-c', file])).stdout;
    const of = async (runId: string) =>
      JSON.stringify(await runQuery(clickhouse, 'user-timeline', { run_id: runId, user_id: 'user-1' }), null, 2);
    await write('newest', BATCHES.slice(0, 1));
    expect(await plan('new')).toBeUndefined();
    const promote = (to: string) => runCommand(['runs', 'promote', 'new', '--to', to, '--execute', '-c', file]);
    const [{ code }, ofFiles] = await Promise.all([promote('clickhouse'), promote('parquet')]);
    expect(code).toBe(0);
    expect(ofFiles.stderr).toMatch(/CONFIG_INVALID --to parquet: .*only runs of kafka and of clickhouse are promoted/);
    await promoteStored(clickhouse, config, 'new');
    expect((await asked()).trim()).toBe(await of('new'));
    expect(await of('new')).not.toBe(await of('newest'));

    await expect(requireNotPromoted(clickhouse, 'new')).rejects.toThrow('run new is promoted for shop');
    await requireNotPromoted(clickhouse, 'old');
    // The deployment's own name takes it back.
    expect(await plan(name)).toBe('new');
    await promoteStored(clickhouse, config, name);
    expect(await promotedRun(clickhouse, name)).toBe(name);
  }, 60_000);
});

describe('every named query agrees with a plain computation', () => {
  const runId = 'queries';
  beforeAll(async () => {
    // Written twice, so that a query that forgets FINAL counts double.
    await write(runId);
    await write(runId);
    await write('another');
  });
  const run = (name: string, params: Record<string, unknown> = {}) => runQuery(clickhouse, name, { run_id: runId, ...params });
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const groupBy = <T>(items: readonly T[], key: (item: T) => string) =>
    [...new Set(items.map(key))].sort().map((name) => [name, items.filter((item) => key(item) === name)] as const);

  it('says its question and parameters', async () => {
    const queries = await listQueries();
    expect(queries.length).toBeGreaterThan(18);
    for (const { title, parameters } of queries) {
      expect(title).toMatch(/\?$/);
      expect(parameters[0]).toMatchObject({ name: 'run_id', type: 'String' });
    }
  });

  it.each([
    [['user-1', 'user-4'], 5],
    [[], 0],
  ])('prequential-by-year (unseen %j, at least %i prior events)', async (unseen, minPrior) => {
    const counted = of('quality').filter(({ priorEvents }) => priorEvents >= minPrior);
    const key = ({ eventTimeMs, userId }: (typeof counted)[0]) =>
      `${new Date(eventTimeMs).getUTCFullYear()} ${unseen.includes(userId as never) ? 'unseen' : 'seen'}`;
    const expected = groupBy(counted, key).map(([name, events]) => ({
      year: Number(name.slice(0, 4)),
      users: name.slice(5),
      events: events.length,
      hr_10: expect.closeTo(mean(events.map(({ rank }) => (rank <= 10 ? 1 : 0))), 10),
      ndcg_10: expect.closeTo(mean(events.map(({ rank }) => (rank <= 10 ? 1 / Math.log2(rank + 1) : 0))), 10),
      mrr: expect.closeTo(mean(events.map(({ rank }) => 1 / rank)), 10),
      hr_50: expect.closeTo(mean(events.map(({ rank }) => (rank <= 50 ? 1 : 0))), 10),
    }));
    expect(await run('prequential-by-year', { unseen_users: unseen, min_prior: minPrior })).toEqual(expected);
    expect(await run('prequential-by-year', { unseen_users: unseen.join(','), min_prior: String(minPrior) })).toEqual(expected);
  });

  it('latency-quantiles', async () => {
    const sorted = of('embeddings')
      .map(({ latencyMs }) => latencyMs)
      .sort((a, b) => a - b);
    const at = (level: number) => expect.closeTo(sorted[Math.floor(level * sorted.length)]!, 4);
    expect(await run('latency-quantiles')).toEqual([
      { embeddings: 96, p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), max_ms: expect.closeTo(sorted.at(-1)!, 4) },
    ]);
  });

  it('user-story', async () => {
    const own = of('processed')
      .map(({ action }) => action)
      .filter(({ userId }) => userId === 'user-5')
      .sort((a, b) => b.eventTimeMs - a.eventTimeMs);
    const rows = await run('user-story', { user_id: 'user-5', limit: 4 });
    expect(rows.map((row) => [row['entity'], row['value'], row['offset']])).toEqual(
      own.slice(0, 4).map(({ entity, value, position }) => [entity, value, position.offset]),
    );
  });

  it('dead-letter-summary', async () => {
    expect(await run('dead-letter-summary')).toEqual([
      { code: 'FIELD_MISSING', step: 'decode', records: 6, example: "field 'x' is missing", first_at: 'events.csv/0/16' },
    ]);
  });

  it('cache-outcomes', async () => {
    const expected = groupBy(of('embeddings'), ({ outcome }) => outcome).map(([outcome, items]) => ({
      outcome,
      embeddings: items.length,
      avg_rows: expect.closeTo(mean(items.map(({ rowsComputed }) => rowsComputed)), 10),
      avg_sequence: expect.closeTo(mean(items.map(({ sequenceLength }) => sequenceLength)), 10),
    }));
    const rows = await run('cache-outcomes');
    expect(rows.sort((a, b) => String(a['outcome']).localeCompare(String(b['outcome'])))).toEqual(expected);
  });

  it('disposition-counts', async () => {
    const rows = await run('disposition-counts');
    const expected = groupBy(of('processed'), ({ disposition }) => disposition).map(([disposition, items]) => ({
      disposition,
      action: 'rating',
      actions: items.length,
      users: new Set(items.map(({ action }) => action.userId)).size,
    }));
    expect(rows).toEqual(expected.sort((a, b) => b.actions - a.actions));
  });

  it('top-candidates', async () => {
    const latest = of('scores')
      .filter(({ userId }) => userId === 'user-6')
      .slice(-2)
      .reverse();
    const rows = await run('top-candidates', { user_id: 'user-6', k: 3 });
    expect(rows.map(({ version, place, entity, score }) => [version, place, entity, score])).toEqual(
      latest.flatMap(({ version, candidates }) =>
        candidates.slice(0, 3).map(({ entity, score }, i) => [version, i + 1, entity, score]),
      ),
    );
  });

  it('and refuses what it does not know', async () => {
    const refused = { code: 'CONFIG_INVALID' };
    await expect(runQuery(clickhouse, 'nonsense')).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('user-story'),
    });
    await expect(runQuery(clickhouse, 'user-story', { run_id: 'r' })).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining("needs 'user_id'"),
    });
    await expect(run('user-story', { user_id: 'u', colour: 'red' })).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining("'colour'"),
    });
    await expect(run('user-story', { user_id: 'u', limit: 'many' })).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining("'limit'"),
    });
  });
});
