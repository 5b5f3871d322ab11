/** What the world outside does to a deployment: other clients' bytes, a network, topics, clocks and machines that fail. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle } from '../support/live-bundle.ts';
import { LiveWorld, type LiveWorldOptions } from '../support/live-world.ts';
import { readByJava } from '../support/outside/java-tools.ts';
import * as network from '../support/promises/outside/network.ts';
import { anEarlierStateIsGoneOnWith, earlierBundle, earlierSettings } from '../support/promises/outside/upgrade.ts';
import type { Shown } from '../support/promises/promise.ts';

const say = () => undefined;

describe.skipIf(!kafkaIsPossible)('the world outside', { timeout: 120_000 }, () => {
  let bundle: { readonly bundle: Bundle; readonly path: string };
  let broker: string;
  let cluster: Awaited<ReturnType<typeof sharedKafka>>;

  beforeAll(async () => {
    [bundle, cluster] = await Promise.all([liveBundle(), sharedKafka()]);
    broker = cluster.bootstrapServers[0]!;
  }, 180_000);

  const worlds: LiveWorld[] = [];
  afterAll(() => Promise.all(worlds.map((world) => world.close())));
  const newWorld = async (more: Partial<LiveWorldOptions> = {}) => {
    const world = await LiveWorld.create({
      broker: cluster,
      name: randomName('outside'),
      bundlePath: bundle.path,
      bundle: bundle.bundle,
      ...more,
    });
    worlds.push(world);
    return world;
  };
  const byJava = (topic: string) => readByJava(broker, topic);
  const holds = async (shown: Promise<Shown>) => expect((await shown).problems).toEqual([]);

  it('a-cut-network-costs-retries-only', async () => {
    const world = await newWorld({ reader: byJava });
    await holds(network.aCutNetworkCostsRetriesOnly(world, { broker, share: 0.05, events: 2_000, starts: 2, minShare: 0, say }));
  });

  it('a-flipped-bit-is-never-committed', async () => {
    const world = await newWorld({ settings: { kafka: { compression: 'none' } } });
    await holds(network.aFlippedBitIsNeverCommitted(world, { broker, say }));
  });

  it('a-late-end-of-a-transaction-ends-no-other', async () => {
    const world = await newWorld({ settings: { kafka: { partitions: 1 } } });
    await holds(network.aLateEndOfATransactionEndsNoOther(world, { broker, seconds: 4, holdMs: 2_000, say }));
  });

  it('a-broker-that-is-away-is-said', async () => {
    await holds(network.aBrokerThatIsAwayIsSaid(await newWorld(), { broker, say }));
  });

  it.each([true, false])('an-earlier-state-is-gone-on-with, its local store there: %s', async (withStore) => {
    const { bundle, path: bundlePath } = await earlierBundle();
    await holds(anEarlierStateIsGoneOnWith(await newWorld({ bundle, bundlePath, settings: earlierSettings }), { withStore }));
  });
});
