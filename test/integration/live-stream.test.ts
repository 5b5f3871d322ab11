/** An instance in this process: what happens to it at moments that no signal from outside can hit. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { LiveObserver } from '../../streams/live/live-stream.ts';
import { type OpenLive, openLive } from '../../streams/live/open-live.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

describe.skipIf(!kafkaIsPossible)('live stream', { timeout: 60_000 }, () => {
  let bundle: { readonly bundle: Bundle; readonly path: string };
  let broker: Awaited<ReturnType<typeof sharedKafka>>;
  let world: LiveWorld;
  let another: LiveWorld;
  const stopping = new AbortController();
  const running: Promise<void>[] = [];

  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    world = await LiveWorld.create({ broker, name: randomName('inner'), bundlePath: bundle.path, bundle: bundle.bundle });
  }, 180_000);
  afterAll(async () => {
    stopping.abort();
    await Promise.allSettled(running);
    await world?.close();
    await another?.close();
  });

  async function start(name: string, observer: (live: () => OpenLive) => LiveObserver): Promise<OpenLive> {
    const state = { ...world.config.state, path: join(world.folder, name) };
    const live: OpenLive = await openLive({
      config: { ...world.config, state },
      bundle: bundle.bundle,
      observer: observer(() => live),
    });
    running.push(live.run(stopping.signal).finally(() => live.close()));
    return live;
  }

  it('reads on after its reading failed while the group was rebalancing', async () => {
    const recovered: string[] = [];
    let assignments = 0;
    await start('a', (live) => ({
      onAssigned: (partitions) => {
        if (++assignments === 1) return;
        // As the fetcher does where no broker has answered for a minute.
        for (const partition of partitions) for (const topic of live().topics) live().fetcher.unassign({ topic, partition });
        live().stream.fail(new PipelineError('KAFKA_FAILED', 'fetching: no broker answers'));
      },
      onRecovering: ({ message }) => recovered.push(message),
    }));
    const first = liveEvents({ events: 300, users: 30 });
    await world.produce(first);
    await world.untilConsumed(first.length);
    await start('b', () => ({}));
    await expect.poll(() => assignments, { timeout: 20_000 }).toBeGreaterThan(1);
    const more = liveEvents({ events: 300, users: 30, from: 300 });
    await world.produce(more);
    await world.untilConsumed(600, 20_000);
    expect((await world.verify([...first, ...more])).problems).toEqual([]);
    expect(recovered).toContain('fetching: no broker answers');
  });

  it('loses nothing that came after it began at the latest, also where it is killed before its first commit', async () => {
    const settings = { kafka: { startFrom: 'latest' } };
    const { bundle: loaded, path: bundlePath } = bundle;
    another = await LiveWorld.create({ broker, name: randomName('latest'), bundlePath, bundle: loaded, settings });
    await another.produce(liveEvents({ events: 50, users: 10 }));
    const first = await another.start('a');
    await first.untilRunning();
    await first.kill();
    const after = liveEvents({ events: 50, users: 10, seed: 2, from: 1_000 });
    await another.produce(after);
    await another.start('b');
    await another.untilConsumed(100, 30_000);
    expect((await another.verify(after)).problems).toEqual([]);
  });
});
