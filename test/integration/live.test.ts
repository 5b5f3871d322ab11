/** The consumer deployment against a real broker, each test named by the promise it holds. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

let bundle: { readonly bundle: Bundle; readonly path: string };
let broker: Awaited<ReturnType<typeof sharedKafka>>;
const worlds: LiveWorld[] = [];

async function newWorld(settings: Record<string, Record<string, unknown> | string> = {}): Promise<LiveWorld> {
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
    const actions = liveEvents({ events: 6_000, users: 150 });
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

  it('no-gap-after-crash: killed under load, another and then the same instance go on', async () => {
    const world = await newWorld();
    const actions = liveEvents({ events: 8_000, users: 150 });
    const first = await world.start('a');
    await first.untilRunning();
    const producing = world.produce(actions, 200);
    await world.untilConsumed(1_500);
    await first.kill();
    await producing;
    await world.start('b');
    await world.untilConsumed(5_000);
    const back = await world.start('a');
    await back.untilRunning();
    await world.untilConsumed(actions.length);
    const { maxDelta, problems } = await world.verify(actions);
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThanOrEqual(1e-4);
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
