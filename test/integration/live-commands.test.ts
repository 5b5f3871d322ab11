/** The commands around a deployment, against a real broker: topics, produce, reset, and what a start refuses. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

let bundle: { readonly bundle: Bundle; readonly path: string };
let broker: Awaited<ReturnType<typeof sharedKafka>>;
let world: LiveWorld;

describe.skipIf(!kafkaIsPossible)('commands of a deployment', { timeout: 90_000 }, () => {
  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    world = await LiveWorld.create({ broker, name: randomName('commands'), bundlePath: bundle.path, bundle: bundle.bundle });
  }, 180_000);
  afterAll(() => world?.close());

  /** The world's configuration, and changes to its kafka section, as a file. */
  const configuration = async (kafka: Record<string, unknown> = {}, state = 'commands') => {
    const file = join(world.folder, `${randomName('config')}.yaml`);
    const settings = { ...world.config, state: { path: join(world.folder, state) }, kafka: { ...world.config.kafka, ...kafka } };
    await writeFile(file, stringify(settings));
    return file;
  };

  it('topics create makes what is missing, once, and topics list finds it fit', async () => {
    const topics = { ...world.config.kafka.topics, entities: randomName('entities') };
    const file = await configuration({ applicationId: randomName('app'), topics });
    const first = await runCommand(['topics', 'create', '-c', file]);
    expect(first.stdout).toMatch(/made entities-\w+, app-\w+-changelog$/m);
    expect((await runCommand(['topics', 'create', '-c', file])).stdout).toContain('all topics are there already');
    const { stdout, code } = await runCommand(['topics', 'list', '-c', file]);
    expect(code).toBe(0);
    expect(stdout).toContain('fit: 4 partitions');
    expect(stdout).toMatch(/entities-\w+\s*│\s*entities\s*│\s*4\s*│\s*1\s*│\s*compact/);
    expect(stdout).toMatch(/changelog\s*│\s*changelog\s*│\s*4\s*│\s*1\s*│\s*compact/);
  });

  it('a start refuses topics of unequal partition counts, missing ones, and a catalogue that is not compacted, naming all', async () => {
    const odd = randomName('odd');
    const admin = world.kafka.admin();
    await admin.connect();
    const aging = randomName('aging');
    await admin.createTopics({
      topics: [
        { topic: odd, numPartitions: 3 },
        { topic: aging, numPartitions: 1 },
      ],
    });
    await admin.disconnect();
    const missing = randomName('missing');
    const file = await configuration({
      topics: { ...world.config.kafka.topics, erasures: odd, deadLetters: missing, entities: aging },
    });
    const { code, stderr } = await runCommand(['run', '-c', file]);
    expect(code).toBe(2);
    expect(stderr).toContain(`missing: ${missing} (make them: hstu-streams topics create)`);
    expect(stderr).toMatch(new RegExp(`partition counts differ: .*${odd} 3`));
    expect(stderr).toContain(`${aging}: cleanup.policy is delete, must be compact`);
    // A catalogue holds no users: its partitions are its own.
    expect(stderr).not.toContain(`${aging} 1`);
  });

  it('a start without a broker says so, and what starts one', async () => {
    const file = await configuration({ brokers: ['127.0.0.1:9'] });
    const { code, stderr } = await runCommand(['topics', 'list', '-c', file]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/KAFKA_UNAVAILABLE .*hstu-streams up/);
  });

  it('a state of other settings is refused, listing what differs', async () => {
    const actions = liveEvents({ events: 200, users: 20 });
    await world.produce(actions);
    const instance = await world.start('a');
    await world.untilConsumed(actions.length);
    expect(await instance.stop()).toBe(0);
    const file = await configuration({}, 'a');
    const { code, stderr } = await runCommand(['run', '-c', file, '--set', 'sequence.seenLimit=7']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/STATE_INCOMPATIBLE .*\n\s*sequence.seenLimit: was 4096, is 7\n.*hstu-streams reset/);
  });

  it('reset shows what it would do, refuses while an instance runs, does it when told, and all is processed anew', async () => {
    const file = await configuration({}, 'a');
    const running = await world.start('b');
    await running.untilRunning();
    const refused = await runCommand(['reset', '-c', file]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/has 1 member\(s\): stop every instance first/);
    expect(await running.stop()).toBe(0);

    const dry = await runCommand(['reset', '-c', file]);
    expect(dry.stdout).toContain('nothing was done: this was a dry run');
    const before = await world.consumed();
    expect(before).toBeGreaterThanOrEqual(200);
    const done = await runCommand(['reset', '-c', file, '--execute']);
    expect(done.stderr).toBe('');
    expect(done.stdout).toContain('done');
    expect(await world.consumed()).toBe(0);

    // Instance b has a store of before the reset: it must not be taken for one of now.
    const again = await world.start('b');
    await world.untilConsumed(200);
    expect(again.log).toContain('the local store is restored from the changelog');
    expect(await world.verifyState(liveEvents({ events: 200, users: 20 }))).toEqual([]);
    expect(await again.stop()).toBe(0);
  });
});
