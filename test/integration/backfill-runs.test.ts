/** Runs of backfills on a real broker: killed and gone on with, promoted to live, refused, dropped. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { requireReachable } from '../../infra/kafka/promote-run.ts';
import { executeReset, planReset } from '../../infra/kafka/reset.ts';
import { type Bundle, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { StoredState } from '../../schemas/stored-state.ts';
import { countOf, epochOf } from '../../schemas/version.ts';
import { backfill, verifyStored } from '../../streams/replay/backfill.ts';
import { kafkaOutput } from '../../streams/replay/kafka-output.ts';
import { executePromotion, planPromotion } from '../../streams/replay/promote.ts';
import { kafkaBackfill } from '../../streams/replay/source.ts';
import { until } from '../support/clickhouse-store.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld, type Output } from '../support/live-world.ts';
import { aKilledBackfillGivesTheSame } from '../support/promises/backfill.ts';

describe.skipIf(!kafkaIsPossible)('runs of backfills', { timeout: 240_000 }, () => {
  let bundle: { readonly bundle: Bundle; readonly path: string };
  const worlds: LiveWorld[] = [];
  const newWorld = async () => {
    const broker = await sharedKafka();
    const settings = { publish: 'every-batch' };
    const name = randomName('runs');
    const world = await LiveWorld.create({ broker, name, bundlePath: bundle.path, bundle: bundle.bundle, settings });
    worlds.push(world);
    return world;
  };
  beforeAll(async () => {
    bundle = await liveBundle();
  }, 180_000);
  afterAll(() => Promise.all(worlds.map((world) => world.close())));

  it('a run that was killed and gone on with is, record for record, one that nobody disturbed', async () => {
    const world = await newWorld();
    const options = { places: ['kafka'], rounds: 1, events: 8_000, say: () => undefined } as const;
    expect((await aKilledBackfillGivesTheSame(world, options)).problems).toEqual([]);
  });

  it('a run of another model is promoted: live goes on at the cut, with its state and its embeddings, and the erased stay erased', async () => {
    const world = await newWorld();
    const { topics, partitions } = world.config.kafka;
    const actions = liveEvents({ events: 900, users: 40 });
    const gone = { ...actions[0]!, userId: 'gone' };
    await world.produce([...actions.slice(0, 600), gone]);
    const old = await world.start('old');
    await world.untilConsumed(601);
    expect(await old.stop()).toBe(0);
    // Nobody erased it while live ran: only the run knows, and the embedding that is published goes with the cut-over.
    const eraser = new OutputProducer(world.kafka, world.config.kafka);
    await eraser.send(partitionOf('gone', partitions!), new Map([[topics.erasures, [{ key: 'gone', value: null }]]]));
    await eraser.close();

    const path = join(world.folder, 'other-model');
    await writeBundle(
      path,
      randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 40, vocabularySize: 300, seed: 7 }),
    );
    const other = await loadBundle(path);
    const config = { ...world.config, bundle: path, state: { ...world.config.state, path: world.folder } };
    const output = await kafkaOutput(config);
    const source = kafkaBackfill(config, () => ({}));
    const { runId, interrupted } = await backfill({ config, bundle: other, source, mode: 'state', output });
    expect(interrupted).toBe(false);
    await world.produce(actions.slice(600));

    await expect(planPromotion(config, bundle.bundle, runId)).rejects.toThrow(/live would go on with another/);
    const plan = await planPromotion(config, other, runId);
    const beyond = plan.cut.map((range) => ({ ...range, to: 10_000 }));
    await expect(requireReachable(world.kafka, beyond)).rejects.toThrow(/cannot go on at offset 10000, the log holds 0 to \d+/);
    const another = plan.cut.map((range) => ({ ...range, topicId: 'another' }));
    await expect(requireReachable(world.kafka, another)).rejects.toThrow(/deleted and made again since the run was made of it/);
    await expect(requireReachable(world.kafka, plan.cut.slice(1))).rejects.toThrow(/has 4 partitions, the run was made of 3/);
    const before = (await world.outputs(topics.userEmbeddings, 'UserEmbedding')).length;
    const done = await executePromotion(config, plan);
    expect(done.withdrawn).toBe(1);
    // Brokers show what was committed a moment after they have said so.
    const promoted = async () => (await world.outputs(topics.userEmbeddings, 'UserEmbedding')).length - before;
    await until(async () => (await promoted()) === done.embeddings + done.withdrawn, 10_000);
    // Done again, as after a crash on the way, it changes nothing that matters.
    await executePromotion(config, plan);

    // Its folder of state is of before the cut-over, and found out.
    Object.assign(world.config, { bundle: path });
    const next = await world.start('old');
    await world.untilConsumed(901);
    expect(next.log).toContain('another state than the changelog');
    expect(await world.verifyState(actions)).toEqual([]);
    expect(
      await verifyStored({
        config,
        bundle: other,
        source: kafkaBackfill(config, () => ({})),
        stored: await newest(world),
        everyVersion: false,
      }),
    ).toMatchObject({ missing: [], extra: [], mismatches: [] });

    await expect(planPromotion(config, other, runId)).rejects.toThrow(/stop every instance first/);
    await output.drop(runId);
    expect(await output.runs()).toEqual([]);
    await expect(planPromotion(config, other, runId)).rejects.toThrow(/not among the runs in Kafka \(there are none\)/);
  });

  it('a model of fewer entities and another window is promoted, and the one before it again: the deployment starts each time', async () => {
    const world = await newWorld();
    const actions = liveEvents({ events: 300, users: 20 });
    await world.produce(actions);
    const fewer = join(world.folder, 'fewer');
    const small = { dimension: 16, layers: 2, heads: 2, maxSequenceLength: 24, vocabularySize: 290, seed: 5 };
    await writeBundle(fewer, randomBundle(small));
    let from = 0;
    for (const path of [bundle.path, fewer, bundle.path]) {
      const loaded = await loadBundle(path);
      Object.assign(world.config, { bundle: path });
      const config = { ...world.config, state: { ...world.config.state, path: world.folder } };
      if (from > 0) {
        const output = await kafkaOutput(config);
        const source = kafkaBackfill(config, () => ({}));
        const { runId } = await backfill({ config, bundle: loaded, source, mode: 'state', ranks: true, output });
        const placeOf = ({ record: { position } }: Output<'CandidateScores'>) => `${position.partition}/${position.offset}`;
        const before = new Set((await lists(world)).map(placeOf));
        const { lists: published } = await executePromotion(config, await planPromotion(config, loaded, runId));
        // Everybody of whom the model knows something has a list of it, before the next action comes.
        const users = [...(await (await newest(world)).users())];
        const made = (await lists(world)).filter((list) => !before.has(placeOf(list)));
        expect(made.map(({ key }) => key).sort()).toEqual(users.sort());
        expect(new Set(made.map(({ value }) => value?.lineage.modelDigest))).toEqual(new Set([loaded.digest]));
        expect(published).toBe(users.length);
        await output.close();
      }
      // Once with the local store of the model before, once from nothing.
      const instance = await world.start(from < 2 ? 'kept' : 'anew');
      const more = liveEvents({ events: 40, users: 20, from: 1_000 + 40 * from++ });
      actions.push(...more);
      await world.produce(more);
      await world.untilConsumed(actions.length);
      expect(await instance.stop()).toBe(0);
      const source = kafkaBackfill(config, () => ({}));
      expect(
        await verifyStored({ config, bundle: loaded, source, stored: await newest(world), everyVersion: false }),
      ).toMatchObject({ missing: [], extra: [], mismatches: [] });
    }
    // Whoever keeps the highest version has the newest: of each user versions only grow, whichever model counts, and through a reset.
    await growing(world);
    expect(await newestEpoch(world)).toBe(2);
    const config = { ...world.config, state: { ...world.config.state, path: world.folder } };
    await executeReset(world.kafka, config, await planReset(world.kafka, config, 'earliest'));
    const again = await world.start('reset');
    await world.untilConsumed(actions.length);
    expect(await again.stop()).toBe(0);
    await growing(world);
    expect(await newestEpoch(world)).toBe(3);
  });
});

/** By user, in the order in which they were published. */
async function versionsOf(world: LiveWorld): Promise<Map<string, number[]>> {
  const versions = new Map<string, number[]>();
  for (const { key, value } of await world.outputs(world.config.kafka.topics.userEmbeddings, 'UserEmbedding'))
    if (value !== null) versions.set(key, [...(versions.get(key) ?? []), value.version]);
  return versions;
}

const newestEpoch = async (world: LiveWorld): Promise<number> =>
  Math.max(...[...(await versionsOf(world)).values()].map((versions) => epochOf(versions.at(-1)!)));

async function growing(world: LiveWorld): Promise<void> {
  for (const [user, versions] of await versionsOf(world))
    expect(versions, user).toEqual([...new Set(versions)].sort((a, b) => a - b));
}

const lists = (world: LiveWorld) => world.outputs(world.config.kafka.topics.candidateScores, 'CandidateScores');

/** The embedding that each user has now. */
async function newest(world: LiveWorld) {
  const users = new Map<string, Map<number, StoredState>>();
  for (const { key, value } of await world.outputs(world.config.kafka.topics.userEmbeddings, 'UserEmbedding')) {
    users.delete(key);
    if (value === null) continue;
    const { version, queryTimeMs, lineage, embedding } = value;
    users.set(key, new Map([[countOf(version), { ...lineage, queryTimeMs, embedding: Float32Array.from(embedding) }]]));
  }
  return { ofUsers: () => Promise.resolve(users), users: () => Promise.resolve(users.keys()) };
}
