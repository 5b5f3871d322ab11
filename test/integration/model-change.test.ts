/** The model of a deployment on a real broker, changed while events flow: by the command, as an operator does. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readToken } from '../../infra/telemetry/model-door.ts';
import { type Bundle, loadBundle, writeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { UserAction } from '../../schemas/action.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { type Instance, LiveWorld } from '../support/live-world.ts';

const shape = { dimension: 16, layers: 2, heads: 2, maxSequenceLength: 40 };

describe.skipIf(!kafkaIsPossible)('a change of the model', { timeout: 90_000 }, () => {
  let world: LiveWorld;
  let instance: Instance;
  let old: Bundle;
  const paths = { old: '', next: '', shorter: '' };

  beforeAll(async () => {
    const [bundle, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    old = bundle.bundle;
    paths.old = bundle.path;
    const settings = { model: { change: { usersPerSecond: 500 }, allowedFolder: '.' } };
    const given = { broker, name: randomName('model'), bundlePath: bundle.path, bundle: bundle.bundle };
    world = await LiveWorld.create({ ...given, settings: settings as never });
    for (const [name, vocabularySize] of [
      ['next', 300],
      ['shorter', 290],
    ] as const) {
      paths[name] = join(world.folder, name);
      await mkdir(paths[name]);
      await writeBundle(paths[name], randomBundle({ ...shape, vocabularySize, seed: 7 }));
    }
    instance = await world.start('a');
    await instance.untilRunning();
  }, 180_000);
  afterAll(async () => {
    await world?.close();
  });

  const port = () => /healthz, readyz, metrics on (\d+)/.exec(instance.log)![1]!;
  const command = (to: string) =>
    runCommand(['model', 'switch', '-c', join(world.folder, 'a.yaml'), '--port', port(), '--to', to]);

  const all: UserAction[] = [];
  async function produce(events: number): Promise<void> {
    const some = liveEvents({ events, users: 40, late: 0, from: all.length });
    all.push(...some);
    await world.produce(some);
  }
  /** Events all the while, and some after it. */
  async function underLoad(work: () => Promise<void>): Promise<void> {
    let over = false;
    const load = (async () => {
      while (!over) {
        await produce(20);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    await work().finally(() => {
      over = true;
    });
    await load;
    await produce(100);
    await world.untilConsumed(all.length);
  }

  it('goes there and back under load, nothing lost or doubled, and is refused where the vocabulary does not fit', async () => {
    const next = await loadBundle(paths.next);
    await produce(400);
    await world.untilConsumed(all.length);
    await underLoad(async () => {
      const { stdout } = await command(paths.next);
      expect(stdout).toMatch(`model ${next.config.name} (${next.digest.slice(0, 16)}) is served`);
    });
    const refused = await command(paths.shorter);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/STATE_INCOMPATIBLE .*\n.*entities: 10 removed \('item:291' of place 291/);
    expect((await fetch(`http://127.0.0.1:${port()}/readyz`)).status).toBe(200);
    // Back: what the configuration names, as curl would ask for it.
    await underLoad(async () => {
      const from = instance.log.length;
      const token = await readToken(join(world.folder, 'a', 'model.token'));
      const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
      const back = await fetch(`http://127.0.0.1:${port()}/model`, { method: 'POST', headers, body: '{}' });
      expect(await back.json()).toMatchObject({ serving: { digest: next.digest }, change: { digest: old.digest } });
      await instance.untilLogged(/change of the model: switched/, 30_000, from);
    });

    const { problems, maxDelta } = await world.verify(all, [next]);
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThan(1e-4);
    const outputs = await world.outputs(world.config.kafka.topics.userEmbeddings, 'UserEmbedding');
    const digests = new Map<number, string[]>();
    for (const { record, value } of outputs) {
      const list = digests.get(record.position.partition) ?? [];
      digests.set(record.position.partition, list);
      if (list.at(-1) !== value!.lineage.modelDigest) list.push(value!.lineage.modelDigest);
    }
    const inTurn = [old.digest, next.digest, old.digest];
    expect([...digests.values()]).toEqual([...digests.values()].map(() => inTurn));
    expect(await instance.stop()).toBe(0);
  });
});
