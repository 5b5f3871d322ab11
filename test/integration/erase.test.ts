/** `erase USER` end to end, under load, against a real broker and the real ClickHouse engine; and that its proof has eyes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { connect } from '../../infra/clickhouse/connect.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { changelogOf } from '../../infra/kafka/topics.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import { UserKeys } from '../../operators/state-keys.ts';
import type { UserAction } from '../../schemas/action.ts';
import { findEverywhere } from '../../streams/erase/find-everywhere.ts';
import type { Finding } from '../../streams/erase/finding.ts';
import { until } from '../support/clickhouse-store.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';
import { Load } from '../support/promises/promise.ts';
import { topicsWithOutcomes } from '../support/topics-named.ts';

const VICTIM = 'victim';
const USER = 'of-before';

describe.skipIf(!kafkaIsPossible)('erase', { timeout: 150_000 }, () => {
  const clickhouseFolder = mkdtempSync(join(tmpdir(), 'hstu-erase-'));
  let world: LiveWorld;
  let file: string;
  let load: Load | undefined;

  beforeAll(async () => {
    const [{ bundle, path }, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    const name = randomName('erase');
    const settings = {
      sink: { inside: true, port: 0, maxDelayMs: 50 },
      clickhouse: { path: join(clickhouseFolder, 'clickhouse') },
      kafka: { topics: topicsWithOutcomes(name), partitions: 2 },
    };
    world = await LiveWorld.create({ broker, name, bundlePath: path, bundle, settings });
    file = join(world.folder, 'erase.yaml');
    await writeFile(file, stringify({ ...world.config, state: { ...world.config.state, path: join(world.folder, 'a') } }));
  }, 180_000);
  afterAll(async () => {
    await load?.stop();
    await world?.close();
    rmSync(clickhouseFolder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });

  const verify = async () => {
    const clickhouse = await connect(world.config.clickhouse);
    const live = { ...world.config, state: { ...world.config.state, path: join(world.folder, 'a') } };
    const place = { userId: VICTIM, live, clickhouse, signal: new AbortController().signal };
    return findEverywhere(place).finally(() => clickhouse.close());
  };
  const left = (findings: readonly Finding[]) => findings.filter(({ leftOver }) => leftOver > 0).map(({ place }) => place);

  it('removes a user under load everywhere, proves it, and says what logs hold until their retention', async () => {
    const { topics } = world.config.kafka;
    const instance = await world.start('a');
    await instance.untilRunning();
    load = new Load(world).start({ perSecond: 100, users: 50 });
    // The last is refused by the model: a dead letter, which belongs to the user all the same.
    await world.produce(actionsOf(VICTIM, 60));
    await world.produce([{ ...actionsOf(VICTIM, 1)[0]!, eventId: 'refused', entity: 'nowhere:1' }]);
    const clickhouse = await connect(world.config.clickhouse);
    const rows = async (table: string) => {
      const sql = `SELECT count() AS n FROM ${table} WHERE user_id = '${VICTIM}'`;
      return (await clickhouse.rows<{ n: number }>(sql))[0]!.n;
    };
    await until(async () => (await rows('scores')) > 0 && (await rows('dead_letters')) === 1, 30_000);
    await clickhouse.command(`INSERT INTO scores (run_id, user_id, version) VALUES ('a backfill', '${VICTIM}', 1)`);

    // What lists are compared with was stored when the model began to serve.
    const vectors = await clickhouse.rows<{ n: number }>('SELECT count() AS n FROM entities FINAL');
    expect(vectors[0]!.n).toBe(300);

    const before = left(await verify());
    for (const topic of [changelogOf(world.config.kafka), topics.userEmbeddings]) expect(before).toContain(`topic ${topic}`);
    for (const place of ['state folder', 'actions of run', 'embeddings_current of run', 'dead_letters of run', 'a backfill'])
      expect(before.join('\n')).toContain(place);

    await world.produce(actionsOf(VICTIM, 60, 60));
    const { code, stdout, stderr } = await runCommand(['erase', VICTIM, '--wait', '--verify', '--reason', 'asked', '-c', file]);
    expect(stdout, stderr).toContain('clean: nothing is left that an erasure removes');
    expect(code).toBe(0);
    expect(stdout).toMatch(/by retention, from 20\d\d-/);
    const findings = await verify();
    expect(findings.find(({ place }) => place === `topic ${topics.userActions}`)).toMatchObject({ expiring: 121, later: 0 });
    expect(findings.find(({ place }) => place === `topic ${topics.deadLetters}`)).toMatchObject({ expiring: 1 });
    for (const topic of [topics.userEmbeddings, topics.candidateScores]) {
      const own = (await world.read(topic)).filter(({ key }) => Buffer.from(key!).toString() === VICTIM);
      expect(own.at(-1)?.value).toBe(null);
    }

    // Others lost nothing by it, and the user may come back.
    await load.stop();
    await world.produce(actionsOf(VICTIM, 1, 500));
    await world.untilConsumed(load.actions.length + 122);
    await until(async () => (await rows('embeddings_current')) === 1, 15_000);
    const back = await verify();
    expect(left(back)).toEqual([]);
    expect(back.find(({ place }) => place.startsWith('topic') && place.endsWith('-changelog'))).toMatchObject({ later: 1 });
    const problems = (await world.verify(load.actions)).problems.filter((problem) => !problem.startsWith(VICTIM));
    expect(problems).toEqual([]);
    await clickhouse.close();
    expect(await instance.stop()).toBe(0);
  });

  it('finds a row, a record and a state that were left over, and an erasure that nobody has read', async () => {
    const clickhouse = await connect(world.config.clickhouse);
    await clickhouse.command(
      `INSERT INTO scores (run_id, user_id, version, published_at) VALUES ('${world.config.kafka.applicationId}', '${VICTIM}', 77, '2001-01-01 00:00:00')`,
    );
    await clickhouse.close();
    const producer = world.kafka.producer({ idempotent: true, createPartitioner: statedPartition });
    await producer.connect();
    const { topics } = world.config.kafka;
    const changelog = changelogOf(world.config.kafka);
    const embeddings = await world.read(topics.userEmbeddings);
    const old = embeddings.find(({ key, value }) => Buffer.from(key!).toString() === VICTIM && value !== null)!;
    const partition = partitionOf(VICTIM, 2);
    const timestamp = String(old.timestampMs);
    const key = new UserKeys(VICTIM).key('tokens', 9);
    await producer.send({ topic: changelog, messages: [{ key, value: Buffer.from('left'), partition, timestamp }] });
    await producer.send({
      topic: topics.userEmbeddings,
      messages: [{ key: VICTIM, value: Buffer.from(old.value as Uint8Array), partition, timestamp }],
    });
    await producer.disconnect();
    const places = left(await verify()).join('\n');
    for (const place of [`topic ${changelog}`, `topic ${topics.userEmbeddings}`, 'scores of run'])
      expect(places).toContain(place);
    expect(places.split('\n')).toHaveLength(3);

    const late = await runCommand(['erase', VICTIM, '--wait', '--timeout', '1', '-c', file]);
    expect(late.code).toBe(1);
    expect(late.stderr).toMatch(/KAFKA_FAILED not erased within 1 s: waited for group .*is `run`, or `sink`, up/);
    expect(left(await verify())).toContain(`group ${world.config.kafka.applicationId}`);
  });

  it('without a deployment, removes a user from every run of a store, and refuses where there is none', async () => {
    const alone = join(world.folder, 'alone.yaml');
    await writeFile(alone, stringify({ bundle: 'none', clickhouse: world.config.clickhouse }));
    const clickhouse = await connect(world.config.clickhouse);
    await clickhouse.command(
      `INSERT INTO quality (run_id, user_id) VALUES ('r1', '${USER}'), ('r2', '${USER}'), ('r2', 'other')`,
    );
    expect((await runCommand(['erase', USER, '--verify', '-c', alone])).code).toBe(1);
    expect((await runCommand(['erase', USER, '--wait', '--verify', '-c', alone])).code).toBe(0);
    expect(await clickhouse.rows("SELECT user_id FROM quality WHERE run_id IN ('r1', 'r2')")).toEqual([{ user_id: 'other' }]);
    await clickhouse.close();
    const nowhere = await runCommand(['erase', USER, '-c', alone, '--set', `clickhouse.path=${join(world.folder, 'nothing')}`]);
    expect(nowhere.code).toBe(2);
    expect(nowhere.stderr).toContain('nowhere to erase from');
  });
});

const actionsOf = (userId: string, events: number, from = 0): UserAction[] =>
  liveEvents({ events, users: 1, from, late: 0, seed: 9 }).map((action) => ({
    ...action,
    userId,
    eventId: `${userId}-${action.eventId}`,
  }));
