/** The sink against a real broker and the real ClickHouse engine, over HTTP, each test named by the promise it holds. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from '../../infra/clickhouse/connect.ts';
import { readAddress } from '../../infra/clickhouse/engine/engine-file.ts';
import { runQuery } from '../../infra/clickhouse/queries.ts';
import { rssOf } from '../../infra/console/memory.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import { until } from '../support/clickhouse-store.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';
import { BASE_MS, publishedRecords } from '../support/sink-records.ts';
import { SinkWorld } from '../support/sink-world.ts';
import { topicsWithOutcomes } from '../support/topics-named.ts';

let broker: Awaited<ReturnType<typeof sharedKafka>>;
const worlds: SinkWorld[] = [];

/** Five sinks, each a process, start at once, on a machine that may be busy. */
const PATIENCE_MS = 90_000;

async function newWorld(): Promise<SinkWorld> {
  const world = await SinkWorld.create(broker, randomName('sink'));
  worlds.push(world);
  return world;
}

/** Everything that a run stored, as text that two runs can be compared by. */
async function contents(world: SinkWorld): Promise<Record<string, unknown>> {
  const tables = ['actions', 'embeddings', 'embeddings_current', 'scores', 'quality', 'outcomes', 'dead_letters'];
  const rows = await Promise.all(
    tables.map((table) =>
      world.clickhouse.rows<{ n: number; digest: string }>(
        `SELECT count() AS n, toString(groupBitXor(cityHash64(*))) AS digest FROM ${table} FINAL WHERE run_id = {runId:String}`,
        { runId: world.runId },
      ),
    ),
  );
  return Object.fromEntries(tables.map((table, i) => [table, rows[i]![0]]));
}

describe.skipIf(!kafkaIsPossible)('sink', { timeout: 240_000, concurrent: true }, () => {
  beforeAll(async () => {
    broker = await sharedKafka();
  }, 180_000);
  afterAll(async () => {
    await Promise.all(worlds.map((world) => world.close()));
  });

  it('stores-every-committed-record-once, and adds nothing when the topics are read again', async () => {
    const world = await newWorld();
    const records = publishedRecords({ ...world, events: 1_000, users: 50 });
    await world.produce(records);
    const first = await world.sink();
    await world.untilCount('actions', 1_000);
    await world.untilCount('dead_letters', 20);
    await world.untilCount('scores', 1_000);
    await world.untilCount('outcomes', 1_000);
    await world.untilCount('embeddings', 1_000);
    expect(await first.stop()).toBe(0);
    const before = await contents(world);
    expect(before).toMatchObject({
      actions: { n: 1_000 },
      embeddings: { n: 1_000 },
      embeddings_current: { n: 50 },
      scores: { n: 1_000 },
      quality: { n: 1_000 },
      outcomes: { n: 1_000 },
      dead_letters: { n: 20 },
    });
    // The group's offsets are gone, as after a reset: where the sink stands is told by ClickHouse.
    const admin = world.kafka.admin();
    await admin.connect();
    await admin.deleteGroups([`${world.runId}-sink`]);
    await admin.disconnect();
    const raw = await world.count('embeddings', true);
    const second = await world.sink();
    await second.untilLogged(/"state":"RUNNING"/);
    const more = publishedRecords({ ...world, events: 10, users: 50, from: 1_000 });
    await world.produce(more);
    await world.untilCount('actions', 1_010);
    expect(await world.count('embeddings', true)).toBeLessThanOrEqual(raw + 10);
    await second.stop();
    // And though ClickHouse's own offsets are lost as well, the rows are keyed by what they are of.
    await world.clickhouse.command('TRUNCATE TABLE sink_offsets');
    const third = await world.sink();
    for (const topic of new Set(records.map((record) => record.topic))) {
      const written = [...records, ...more].filter((record) => record.topic === topic).length;
      await until(async () => (await world.committed(topic)) === written, PATIENCE_MS);
    }
    await third.stop();
    expect(await world.count('actions')).toBe(1_010);
    expect(await world.count('embeddings')).toBe(1_010);
    expect(await world.count('dead_letters')).toBe(21);
  });

  it('loses-and-doubles-nothing: the sink killed -9 mid-insert, and the engine too', async () => {
    const world = await newWorld();
    const events = 6_000;
    const producing = world.produce(publishedRecords({ ...world, events, users: 200 }));
    const killEngine = async () => process.kill((await readAddress(world.embedded.path))!.pid, 'SIGKILL');
    for (let round = 0; round < 2; round++) {
      const sink = await world.sink({ clickhouse: world.embedded });
      await sink.untilLogged(/"msg":"stored"/);
      await sleep(60 + round * 170);
      if (round > 0) await killEngine();
      await sink.kill();
    }
    await producing;
    const last = await world.sink({ clickhouse: world.embedded });
    await last.untilLogged(/"msg":"stored"/);
    await killEngine();
    // And another takes its share over while it goes on.
    const beside = await world.sink({ clickhouse: world.embedded });
    for (const table of ['actions', 'embeddings', 'scores', 'quality', 'outcomes']) await world.untilCount(table, events);
    await world.untilCount('dead_letters', events / 50);
    await beside.untilLogged(/"partitions":\[\d\]/);
    expect(await Promise.all([last.stop(), beside.stop()])).toEqual([0, 0]);
    const killed = await contents(world);
    expect(killed).toMatchObject({
      actions: { n: events },
      embeddings: { n: events },
      embeddings_current: { n: 200 },
      scores: { n: events },
      quality: { n: events },
      outcomes: { n: events },
      dead_letters: { n: events / 50 },
    });
    // What is stored is what was written, not only as much.
    const [sum] = await world.clickhouse.rows<{ versions: number; offsets: number }>(
      'SELECT sum(version) AS versions, sum(offset) AS offsets FROM embeddings FINAL WHERE run_id = {runId:String}',
      { runId: world.runId },
    );
    expect(sum).toEqual({
      versions: Array.from({ length: events }, (_, n) => Math.floor(n / 200) + 1).reduce((a, b) => a + b, 0),
      offsets: (events * (events - 1)) / 2,
    });
  });

  it('waits-for-clickhouse: away for 20 s under load, bounded, no offset moved, nothing lost, no restart', async () => {
    const world = await newWorld();
    const sink = await world.sink();
    await world.produce(publishedRecords({ ...world, events: 500, users: 100 }));
    await world.untilCount('actions', 500);
    await world.door.close();
    const topic = world.config.kafka.topics.userActions;
    const events = 12_000;
    const began = performance.now();
    for (let from = 500; from < events; from += 1_000)
      await world.produce(publishedRecords({ ...world, events: Math.min(1_000, events - from), users: 100, from }));
    await sink.untilLogged(/ClickHouse is away/);
    const before = await world.committed(topic);
    const rss = rssOf(sink.pid)!;
    const health = await fetch(`http://127.0.0.1:${sink.port}/readyz`);
    expect(health.status).toBe(503);
    expect(await health.json()).toMatchObject({ state: 'RETRYING', reason: expect.stringContaining('ClickHouse') });
    expect((await fetch(`http://127.0.0.1:${sink.port}/healthz`)).status).toBe(200);
    await sleep(Math.max(0, 20_000 - (performance.now() - began)));
    expect(await world.committed(topic)).toBe(before);
    expect(rssOf(sink.pid)! - rss).toBeLessThan(100 * 2 ** 20);
    const metrics = await (await fetch(`http://127.0.0.1:${sink.port}/metrics`)).text();
    expect(metrics).toContain('hstu_sink_clickhouse_up 0');
    await world.door.open();
    for (const table of ['actions', 'embeddings', 'scores', 'outcomes']) await world.untilCount(table, events);
    expect(await world.count('actions')).toBe(events);
    expect(await world.count('embeddings')).toBe(events);
    await sink.untilLogged(/ClickHouse is back/);
    expect(await sink.stop()).toBe(0);
  });

  it('erases-a-user-everywhere, in whatever order the topics are read, and again', async () => {
    const world = await newWorld();
    const { topics } = world.config.kafka;
    const events = 1_000;
    await world.produce(publishedRecords({ ...world, events, users: 10 }));
    const sink = await world.sink();
    await world.untilCount('actions', events);
    await world.untilCount('scores', events);
    await world.untilCount('outcomes', events);
    const endMs = BASE_MS + events * 1_000 + 10_000;
    // The user asks, the stream answers with a tombstone, and a new life of the same name begins.
    await world.produce([
      { topic: topics.erasures, key: 'user-3', value: null, timestampMs: endMs },
      { topic: topics.userEmbeddings, key: 'user-3', value: null, timestampMs: endMs + 5 },
    ]);
    await until(async () => (await runQuery(world.clickhouse, 'erasure-audit', { run_id: world.runId })).length > 0, PATIENCE_MS);
    const later = publishedRecords({ ...world, events: 1, users: 10, from: 1_003 }).map((record) => ({
      ...record,
      timestampMs: endMs + 60_000,
    }));
    await world.produce(later);
    await until(async () => (await world.count('actions')) === events - 100 + 1, PATIENCE_MS);
    await until(async () => (await world.count('scores')) === events - 100 + 1, PATIENCE_MS);
    const audit = () => runQuery(world.clickhouse, 'erasure-audit', { run_id: world.runId });
    expect((await audit()).map(({ remaining }) => remaining)).toEqual([0]);
    const [row] = await world.clickhouse.rows<{ n: number }>(
      "SELECT count() AS n FROM embeddings_current FINAL WHERE user_id = 'user-3' AND run_id = {runId:String}",
      { runId: world.runId },
    );
    expect(row!.n).toBe(1);
    await sink.stop();
    // Read again from the start, what was erased stays away.
    await world.clickhouse.command('TRUNCATE TABLE sink_offsets');
    const again = await world.sink();
    await again.untilLogged(/"state":"RUNNING"/);
    await until(
      async () =>
        (await world.clickhouse.rows('SELECT 1 FROM sink_offsets FINAL GROUP BY topic HAVING sum(next_offset) >= 1000')).length >=
        4,
      PATIENCE_MS,
    );
    expect(await world.count('actions')).toBe(events - 100 + 1);
    expect(await world.count('embeddings')).toBe(events - 100 + 1);
    // The audit has eyes: a row of the old life would be seen.
    await world.clickhouse.command(
      `INSERT INTO scores (run_id, user_id, version, published_at) VALUES ('${world.runId}', 'user-3', 77, '2001-01-01 00:00:00')`,
    );
    expect((await audit()).map(({ remaining }) => remaining)).toEqual([1]);
  });

  it('answers-for-the-stream: run with the sink inside, its ranks and dispositions, and an erasure from topic to tables', async () => {
    const name = randomName('inside');
    const { bundle, path } = await liveBundle();
    const topics = topicsWithOutcomes(name);
    const settings = {
      sink: { inside: true, port: 0, maxDelayMs: 100 },
      clickhouse: { path: mkdtempSync(join(tmpdir(), 'hstu-in-')) },
    };
    const world = await LiveWorld.create({
      broker,
      name,
      bundlePath: path,
      bundle,
      settings: { ...settings, kafka: { topics, partitions: 2 } },
    });
    const actions = liveEvents({ events: 400, users: 10 });
    // Some a second time: duplicates, or, if the window has passed them, late.
    const instance = await world.start('a');
    await world.produce([...actions, ...actions.slice(0, 20)]);
    await instance.untilRunning();
    await world.untilConsumed(420);
    const clickhouse = await connect(world.config.clickhouse);
    const count = async (table: string, where = '1') => {
      const [row] = await clickhouse.rows<{ n: number }>(
        `SELECT count() AS n FROM ${table} FINAL WHERE run_id = '${name}' AND ${where}`,
      );
      return row!.n;
    };
    try {
      await until(async () => (await count('outcomes')) === 420 && (await count('embeddings')) === 400, PATIENCE_MS);
      await until(async () => (await count('scores')) === 400 && (await count('actions')) === 420, PATIENCE_MS);
      const outcomes = await world.outputs(topics.actionOutcomes, 'ActionOutcome');
      const duplicates = outcomes.filter(({ value }) => value?.disposition === 'duplicate').length;
      expect(duplicates).toBeGreaterThan(5);
      expect(await count('outcomes', "disposition = 'duplicate'")).toBe(duplicates);
      expect(await count('quality')).toBe(outcomes.filter(({ value }) => value?.ranked !== undefined).length);
      const faults = await runQuery(clickhouse, 'faults-by-hour', { run_id: name });
      expect(faults.reduce((sum, row) => sum + Number(row['duplicates']), 0)).toBe(duplicates);

      const producer = world.kafka.producer({ idempotent: true, createPartitioner: statedPartition });
      await producer.connect();
      await producer.send({
        topic: topics.erasures,
        messages: [{ key: 'user-0', value: null, partition: partitionOf('user-0', 2) }],
      });
      await producer.disconnect();
      await until(async () => {
        const rows = await runQuery(clickhouse, 'erasure-audit', { run_id: name, user_id: 'user-0' });
        return (
          rows.length === 1 &&
          (await count('actions', "user_id = 'user-0'")) === 0 &&
          (await count('scores', "user_id = 'user-0'")) === 0
        );
      }, PATIENCE_MS);
      for (const table of ['embeddings', 'embeddings_current', 'quality', 'outcomes', 'dead_letters'])
        expect(await count(table, "user_id = 'user-0'")).toBe(0);
      expect(await runQuery(clickhouse, 'erasure-audit', { run_id: name })).toMatchObject([{ remaining: 0 }]);
      expect(await count('actions')).toBeGreaterThan(200);
      expect(await instance.stop()).toBe(0);
    } finally {
      await clickhouse.close();
      await world.close();
    }
  });
});
