/** Backfills against the real engine and a real broker: what live published is what replay computes, and a stop costs nothing. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from '../../infra/clickhouse/connect.ts';
import { readErasurePlaces } from '../../infra/kafka/erasure-places.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import type { RangeBounds } from '../../infra/kafka/range-reader.ts';
import { executeReset, planReset } from '../../infra/kafka/reset.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { loadBundle } from '../../models/hstu/bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { parseConfig } from '../../schemas/config.ts';
import { countOf } from '../../schemas/version.ts';
import { loadConfig } from '../../streams/load-config.ts';
import { backfill, verifyStored } from '../../streams/replay/backfill.ts';
import { clickhouseOutput } from '../../streams/replay/clickhouse-output.ts';
import { kafkaOutput } from '../../streams/replay/kafka-output.ts';
import { executePromotion, planPromotion } from '../../streams/replay/promote.ts';
import { fileBackfill, joinedBackfill, kafkaBackfill } from '../../streams/replay/source.ts';
import { storedInRun, storedInTopic } from '../../streams/replay/stored.ts';
import { isVerified } from '../../streams/replay/verify.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

const MOVIELENS = fileURLToPath(new URL('../../examples/movielens/replay.yaml', import.meta.url));

describe('a backfill of files', { timeout: 300_000 }, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hstu-backfill-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('of MovieLens equals its recomputation; stopped and resumed, nothing is missing or doubled', async () => {
    const given = await loadConfig({ file: MOVIELENS });
    const config = {
      ...given,
      state: { ...given.state, path: folder },
      clickhouse: { ...given.clickhouse, path: join(folder, 'ch') },
    };
    const bundle = await loadBundle(config.bundle);
    const clickhouse = await connect(config.clickhouse);
    const output = await clickhouseOutput(config.clickhouse);
    try {
      const stop = new AbortController();
      const options = { config, bundle, output, mode: 'every-event', memoryBytes: 4 * 2 ** 20 } as const;
      const first = await backfill({
        ...options,
        source: fileBackfill(config),
        signal: stop.signal,
        onProgress: ({ phase, done }) => phase === 'encoding' && done > 20_000 && stop.abort(),
      });
      expect(first.interrupted).toBe(true);
      // On two threads: what it gives is held against a recomputation on one.
      const second = await backfill({ ...options, parallel: 2, source: fileBackfill(config) });
      expect(second).toMatchObject({ runId: first.runId, start: first.position, interrupted: false });
      expect(first.embeddings + second.embeddings).toBe(100_836);

      const stored = storedInRun(clickhouse, first.runId);
      const result = await verifyStored({ config, bundle, source: fileBackfill(config), stored, everyVersion: true });
      expect(result).toMatchObject({ users: 610, compared: 100_836, missing: [], extra: [], mismatches: [] });
      expect(result.maxDelta).toBeLessThanOrEqual(1e-5);
    } finally {
      await output.close();
      await clickhouse.close();
    }
  });
});

describe.skipIf(!kafkaIsPossible)('a backfill of Kafka', { timeout: 180_000 }, () => {
  let bundle: { readonly bundle: Bundle; readonly path: string };
  let world: LiveWorld;
  beforeAll(async () => {
    const broker = await sharedKafka();
    bundle = await liveBundle();
    world = await LiveWorld.create({ broker, name: randomName('backfill'), bundlePath: bundle.path, bundle: bundle.bundle });
  }, 180_000);
  afterAll(() => world?.close());

  it('verifies what live published of the same offsets, and sees what it did not', async () => {
    const actions = liveEvents({ events: 4_000, users: 120, late: 0.05 });
    const again = actions.filter((_, i) => i % 50 === 7);
    await world.start('a');
    await world.produce([...actions, ...again]);
    await world.untilConsumed(actions.length + again.length);
    const config = { ...world.config, state: { ...world.config.state, path: world.folder } };
    const stored = await storedInTopic(world.config);
    const common = { config, bundle: bundle.bundle, stored, everyVersion: true };
    const result = await verifyStored({ ...common, source: kafkaBackfill(config, () => ({})) });
    expect(result).toMatchObject({ missing: [], extra: [], mismatches: [] });
    expect(result.compared).toBeGreaterThan(3_500);
    expect(result.maxDelta).toBeLessThanOrEqual(1e-5);
    expect(isVerified(result)).toBe(true);

    const fewer = kafkaBackfill(config, (partition) => (partition === 0 ? { toOffset: 100 } : {}));
    expect((await verifyStored({ ...common, source: fewer })).extraCount).toBeGreaterThan(0);

    const beyond = kafkaBackfill(config, () => ({ toOffset: 1_000_000 }));
    await expect(verifyStored({ ...common, source: beyond })).rejects.toThrow(/is not in the log, which holds the offsets 0 to/);
  });

  it('an erasure that was carried out stays so in every later reading, whatever clocks have said', async () => {
    const odd = await LiveWorld.create({
      broker: await sharedKafka(),
      name: randomName('clocks'),
      bundlePath: bundle.path,
      bundle: bundle.bundle,
      settings: { kafka: { partitions: 1 } },
    });
    const { topics } = odd.config.kafka;
    const config = { ...odd.config, state: { ...odd.config.state, path: odd.folder } };
    const codec = new AvroCodec();
    const producer = odd.kafka.producer({ idempotent: true, createPartitioner: statedPartition });
    const send = (topic: string, key: string, value: Buffer | null, timestampMs: number) =>
      producer.send({ topic, messages: [{ key, value, partition: 0, timestamp: String(Math.round(timestampMs)) }] });
    const [template] = liveEvents({ events: 1, users: 1, late: 0 });
    const act = (userId: string, eventId: string, timestampMs: number) =>
      send(topics.userActions, userId, codec.encode('UserAction', { ...template!, userId, eventId }), timestampMs);
    const alive = async () => {
      const last = new Map((await odd.outputs(topics.userEmbeddings, 'UserEmbedding')).map(({ key, value }) => [key, value]));
      return [...last].flatMap(([key, value]) => (value === null ? [] : [`${key}/${countOf(value.version)}`])).sort();
    };
    const verified = async () => {
      const stored = await storedInTopic(odd.config);
      const source = kafkaBackfill(config, () => ({}));
      return verifyStored({ config, bundle: bundle.bundle, stored, everyVersion: false, source });
    };
    try {
      await producer.connect();
      const live = await odd.start('live');
      await live.untilRunning();
      await act('fast-clock', '1', Date.now() + 50 * 60_000);
      await act('goes', '1', Date.now());
      await act('returns', '1', Date.now());
      await odd.untilConsumed(3);
      for (const userId of ['goes', 'returns']) await send(topics.erasures, userId, null, Date.now());
      await odd.untilConsumed(2, 60_000, topics.erasures);
      // Written after the erasure was carried out, by a clock that is behind: another life, for everybody who reads the log.
      await act('returns', '2', Date.now() - 60_000);
      await odd.untilConsumed(4);
      expect(await live.stop()).toBe(0);
      const expected = ['fast-clock/1', 'returns/1'];
      expect(await alive()).toEqual(expected);
      expect(await verified()).toMatchObject({ users: 2, missing: [], extra: [], mismatches: [] });

      const places = await readErasurePlaces(odd.kafka, config.kafka);
      expect(places.get(0)).toMatchObject([
        { offset: 0, before: 3 },
        { offset: 1, before: 3 },
      ]);
      await executeReset(odd.kafka, config, await planReset(odd.kafka, config, 'earliest'));
      expect(await readErasurePlaces(odd.kafka, config.kafka)).toEqual(places);
      const again = await odd.start('again');
      await odd.untilConsumed(4);
      await odd.untilConsumed(2, 60_000, topics.erasures);
      expect(await again.stop()).toBe(0);
      expect(await alive()).toEqual(expected);

      const output = await kafkaOutput(config);
      const run = await backfill({
        config,
        bundle: bundle.bundle,
        source: kafkaBackfill(config, () => ({})),
        mode: 'state',
        output,
      });
      expect(run.embeddings).toBe(2);
      await executePromotion(config, await planPromotion(config, bundle.bundle, run.runId));
      expect(await readErasurePlaces(odd.kafka, config.kafka)).toEqual(places);
      expect(await alive()).toEqual(expected);
      await output.close();
    } finally {
      await producer.disconnect();
      await odd.close();
    }
  });

  it('an erasure among a backlog takes what stands before it and nothing after, live as in a replay, and where files go before the log', async () => {
    const late = await LiveWorld.create({
      broker: await sharedKafka(),
      name: randomName('erased'),
      bundlePath: bundle.path,
      bundle: bundle.bundle,
      settings: { kafka: { batchEvents: 16, partitions: 2 } },
    });
    try {
      const { topics } = late.config.kafka;
      const actions = liveEvents({ events: 400, users: 6, late: 0 });
      const gone = actions[0]!.userId;
      const at = Date.now() - 60_000;
      // Otherwise, where one partition of a new topic has no leader yet, a retry writes anew what another has taken.
      const producer = late.kafka.producer({ idempotent: true, createPartitioner: statedPartition });
      await producer.connect();
      const codec = new AvroCodec();
      const send = async (of: typeof actions, timestampMs: number) => {
        const messages = of.map((action) => ({
          key: action.userId,
          value: codec.encode('UserAction', action),
          partition: partitionOf(action.userId, 2),
          timestamp: String(timestampMs),
        }));
        await producer.send({ topic: topics.userActions, messages });
      };
      await send(actions.slice(0, 300), at);
      await send(actions.slice(300), at + 1);
      // Of the moment of the actions before it; asked for when all of them were written, and read by no one yet.
      const erasure = { key: gone, value: null, partition: partitionOf(gone, 2), timestamp: String(at) };
      await producer.send({ topic: topics.erasures, messages: [erasure] });
      await producer.disconnect();
      const instance = await late.start('behind');
      await late.untilConsumed(actions.length);
      expect(await instance.stop()).toBe(0);

      const stored = await storedInTopic(late.config);
      const versions = (await stored.ofUsers([gone])).get(gone)!;
      expect(Math.max(...versions.keys())).toBe(actions.slice(300).filter(({ userId }) => userId === gone).length);

      const rows = join(late.folder, 'rows.jsonl');
      await writeFile(
        rows,
        actions
          .slice(0, 250)
          .map((action) => `${JSON.stringify(action)}\n`)
          .join(''),
      );
      const settings = { kafka: late.config.kafka, source: { files: [{ path: rows, format: 'jsonl', mapping: MAPPING }] } };
      const { source } = parseConfig({ bundle: bundle.path, ...settings }, 'this test');
      const config = { ...late.config, source, state: { ...late.config.state, path: late.folder } };
      const common = { config, bundle: bundle.bundle, stored, everyVersion: true };
      const after = (count: number) => (partition: number) => ({
        fromOffset: actions.slice(0, count).filter(({ userId }) => partitionOf(userId, 2) === partition).length,
      });
      for (const source of [kafkaBackfill(config, () => ({})), joinedBackfill(config, after(200))])
        expect(await verifyStored({ ...common, source })).toMatchObject({ users: 6, missing: [], extra: [], mismatches: [] });
      const gap = await verifyStored({ ...common, source: joinedBackfill(config, after(260)) });
      expect(isVerified(gap)).toBe(false);

      const eventsOf = async (bounds: RangeBounds) => {
        let events = 0;
        await kafkaBackfill(config, () => bounds).scan(({ position }) => {
          if (position.topic === topics.userActions) events += 1;
        });
        return events;
      };
      expect([await eventsOf({ toTimeMs: at + 1 }), await eventsOf({ fromTimeMs: at + 1 })]).toEqual([300, 100]);

      // What lies before the range in the log came from the rows: live may go on with it, each user where the log has it.
      const output = await kafkaOutput(config);
      const run = { config, bundle: bundle.bundle, source: joinedBackfill(config, after(200)), mode: 'state', output } as const;
      const { runId } = await backfill(run);
      const embeddings = await late.read(`${late.config.kafka.applicationId}-${runId}-embeddings`);
      expect(embeddings).toHaveLength(6);
      for (const { key, position } of embeddings) expect(position.partition).toBe(partitionOf(Buffer.from(key!).toString(), 2));
      expect((await planPromotion(config, bundle.bundle, runId)).cut).toHaveLength(4);
    } finally {
      await late.close();
    }
  });
});

const MAPPING = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  eventTime: { field: 'eventTimeMs', unit: 'ms' },
};
