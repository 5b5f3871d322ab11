/** The consumer deployment against a real broker, each test named by the promise it holds. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld, type LiveWorldOptions } from '../support/live-world.ts';
import { erasuresAndActionsAreCommittedInOneOrder } from '../support/promises/erasures.ts';
import * as instances from '../support/promises/instances.ts';
import type { Shown } from '../support/promises/promise.ts';
import { spoiltRecordsBecomeDeadLetters } from '../support/promises/records.ts';
import { startSchemaRegistryStub } from '../support/schema-registry-stub.ts';

let bundle: { readonly bundle: Bundle; readonly path: string };
let broker: Awaited<ReturnType<typeof sharedKafka>>;
const worlds: LiveWorld[] = [];

async function newWorld(settings: LiveWorldOptions['settings'] = {}): Promise<LiveWorld> {
  const world = await LiveWorld.create({
    broker,
    name: randomName('live'),
    bundlePath: bundle.path,
    bundle: bundle.bundle,
    settings,
  });
  worlds.push(world);
  return world;
}

describe.skipIf(!kafkaIsPossible)('live', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), sharedKafka()]);
  }, 180_000);
  afterAll(async () => {
    await Promise.all(worlds.map((world) => world.close()));
  });

  it('equals-a-full-encode-and-publishes-every-version-once, two instances', async () => {
    const world = await newWorld();
    const actions = liveEvents({ events: 3_000, users: 150 });
    await Promise.all([world.start('a'), world.start('b')]);
    await world.produce(actions);
    await world.untilConsumed(actions.length);
    const { users, maxDelta, problems } = await world.verify(actions);
    expect(problems).toEqual([]);
    expect(users).toBeGreaterThan(100);
    // The eyes are open: one event more or less than was consumed is seen.
    expect((await world.verify(actions.slice(1))).problems).not.toEqual([]);
    expect(maxDelta).toBeLessThanOrEqual(1e-4);
  });

  const rounds = { rounds: 1, say: () => undefined };
  it.each<[string, (world: LiveWorld) => Promise<Shown>, LiveWorldOptions['settings']?]>([
    ['no-gap-after-kill-9', (world) => instances.nothingLostOrDoubledAfterKill9(world, rounds)],
    ['no-gap-by-rebalances', (world) => instances.nothingLostOrDoubledByRebalances(world, rounds)],
    ['state-survives-the-loss-of-the-store', instances.stateSurvivesTheLossOfTheStore],
    ['a-damaged-store-is-rebuilt', instances.aDamagedStoreIsFoundAndRebuilt],
    ['a-zombie-is-fenced', instances.aZombieIsFenced],
    [
      'spoilt-records-become-dead-letters',
      (world) => spoiltRecordsBecomeDeadLetters(world, { spoilt: 2_500, huge: 8, say: () => undefined }),
      { kafka: { maxRecordBytes: 65_536 } },
    ],
    [
      'erasures-and-actions-are-committed-in-one-order',
      (world) => erasuresAndActionsAreCommittedInOneOrder(world, { events: 3_000, users: 40 }),
      { kafka: { maxInFlightBatches: 8, batchEvents: 8 } },
    ],
    [
      'nothing-is-lost-at-least-once',
      (world) => instances.nothingLostOrDoubledAfterKill9(world, rounds),
      { kafka: { delivery: 'at-least-once' } },
    ],
  ])('%s', async (_name, show, settings) => {
    const { problems } = await show(await newWorld(settings));
    expect(problems).toEqual([]);
  });

  it("writes-and-reads-by-a-registry: ids are the registry's, an unknown one is a dead letter", async () => {
    const stub = await startSchemaRegistryStub();
    const world = await newWorld({ kafka: { schemaRegistry: { url: stub.url } } });
    const { topics } = world.config.kafka;
    const registry = new SchemaRegistry({ url: stub.url });
    await registry.register({ UserAction: topics.userActions });
    const codec = new AvroCodec({ schemas: registry });
    const actions = liveEvents({ events: 300, users: 30 });
    const values = actions.map((action) => ({ key: action.userId, value: codec.encode('UserAction', action) }));
    const unknown = Buffer.from(values[0]!.value);
    unknown.writeUInt32BE(4_242, 1);
    const producer = world.kafka.producer({ idempotent: true });
    await producer.connect();
    await producer.send({ topic: topics.userActions, messages: [...values, { key: 'k', value: unknown }] });
    await producer.disconnect();
    const instance = await world.start('a');
    await world.untilConsumed(actions.length + 1);
    const [first] = await world.read(topics.userEmbeddings);
    const id = Buffer.from(first!.value as Uint8Array).readUInt32BE(1);
    expect(JSON.parse(stub.byId.get(id)!.schema)).toMatchObject({ name: 'UserEmbedding' });
    await registry.ensure([id]);
    expect(codec.decode('UserEmbedding', first!.value as Uint8Array)).toMatchObject({ version: 1 });
    expect(await world.verifyState(actions)).toEqual([]);
    expect(instance.log).toContain('no schema of id 4242 is known');
    await stub.close();
  });

  it('redelivers-nothing-after-clean-drain: SIGTERM commits what was read and exits with 0', async () => {
    const world = await newWorld();
    const actions = liveEvents({ events: 4_000, users: 100 });
    const first = await world.start('a');
    await first.untilRunning();
    const producing = world.produce(actions, 100);
    await world.untilConsumed(800);
    expect(await first.stop()).toBe(0);
    expect(first.log).toContain('"state":"STOPPED"');
    await producing;
    const second = await world.start('a');
    await world.untilConsumed(actions.length);
    expect(second.log).not.toContain('restored from the changelog');
    const { problems } = await world.verify(actions);
    expect(problems).toEqual([]);
  });
});
