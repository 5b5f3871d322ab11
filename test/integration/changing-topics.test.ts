/** Topics that are not as a deployment left them: made anew, grown, deleted, cut at the head, made by others; against a real broker. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Admin } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { createTopics, deleteTopic } from '../../infra/kafka/change-topics.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { TopicGuard } from '../../infra/kafka/topic-guard.ts';
import { changelogOf, readTopics, untilLed } from '../../infra/kafka/topics.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';
import { topicsNamed } from '../support/topics-named.ts';

let bundle: { readonly bundle: Bundle; readonly path: string };
let broker: Awaited<ReturnType<typeof sharedKafka>>;
let world: LiveWorld;
let admin: Admin;

const EVENTS = 120;
const compacted = [{ name: 'cleanup.policy', value: 'compact' }];
const make = async (topic: string, numPartitions: number, configEntries: { name: string; value: string }[] = []) => {
  await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false });
  await untilLed(admin, [topic]);
};
const setPolicy = (name: string, value: string) =>
  admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: 2, name, configEntries: [{ name: 'cleanup.policy', value }] }],
  });
const namesLike = async (name: string) => (await admin.listTopics()).filter((topic) => topic.startsWith(name)).sort();

describe.skipIf(!kafkaIsPossible)('topics that change', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    [bundle, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    const name = randomName('changing');
    const { userEmbeddings, ...others } = topicsNamed(name);
    const first = await LiveWorld.create({ broker, name: randomName('none'), bundlePath: bundle.path, bundle: bundle.bundle });
    admin = first.kafka.admin();
    await admin.connect();
    await first.close();
    // As a platform makes them: of the broker's default size.
    for (const topic of Object.values(others)) await make(topic, 2);
    for (const topic of [userEmbeddings, `${name}-changelog`]) await make(topic, 2, compacted);
    const kafka = { partitions: 2, maxRecordBytes: 4 * 2 ** 20 };
    world = await LiveWorld.create({ broker, name, bundlePath: bundle.path, bundle: bundle.bundle, settings: { kafka } });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await admin?.disconnect();
  });

  const configuration = async (kafka: Partial<KafkaConfig> & Record<string, unknown>) => {
    const file = join(world.folder, `${randomName('config')}.yaml`);
    const { partitions: _, ...own } = world.config.kafka;
    await writeFile(file, stringify({ ...world.config, kafka: { ...own, ...kafka } }));
    return file;
  };

  it('topics create takes the count of an input topic that is there, or makes nothing; topics delete takes back', async () => {
    const name = randomName('half');
    const [topics, applicationId] = [topicsNamed(name), name];
    await make(topics.userActions, 6);
    const other = await configuration({ topics, applicationId, partitions: 4 });
    const refused = await runCommand(['topics', 'create', '-c', other]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(
      /-actions has 6 partitions, and kafka\.partitions is 4: nothing was made\. Set kafka\.partitions: 6/,
    );
    expect(await namesLike(name)).toEqual([topics.userActions]);

    await make(topics.deadLetters, 6, compacted);
    const file = await configuration({ topics, applicationId });
    const unfit = await runCommand(['topics', 'create', '-c', file]);
    expect(unfit.code).toBe(2);
    expect(unfit.stderr).toMatch(/nothing was made: .*\n\s*\S+-letters: cleanup\.policy is compact, must be delete/);
    expect(await namesLike(name)).toEqual([topics.userActions, topics.deadLetters]);
    await deleteTopic(admin, topics.deadLetters);

    expect((await runCommand(['topics', 'create', '-c', file])).code).toBe(0);
    const { stdout, code } = await runCommand(['topics', 'list', '-c', file]);
    expect(code).toBe(0);
    expect(stdout).toContain('fit: 6 partitions');
    expect(stdout.match(/│ yes\s*│/g)).toHaveLength(7);

    const dry = await runCommand(['topics', 'delete', '-c', file]);
    expect(dry.stdout).toMatch(new RegExp(`to be deleted: ${name}-embeddings, .*${name}-changelog\nstay: ${name}-actions`));
    expect(await namesLike(name)).toHaveLength(7);
    expect((await runCommand(['topics', 'delete', '-c', file, '--execute'])).code).toBe(0);
    expect(await namesLike(name)).toEqual([topics.userActions, topics.erasures, topics.candidateRequests].sort());
  });

  it('a record that is no dead letter of the default size is cut, and the stream goes on', async () => {
    const { userActions, deadLetters } = world.config.kafka.topics;
    const hostile = new OutputProducer(world.kafka, world.config.kafka);
    await hostile.send(
      0,
      new Map([[userActions, [{ key: randomBytes(150_000), value: Buffer.alloc(850_000, 'not JSON, nor Avro; ') }]]]),
    );
    await hostile.close();
    await world.produce(liveEvents({ events: EVENTS, users: 12 }));
    const instance = await world.start('a');
    await world.untilConsumed(EVENTS + 1);
    const [letter, ...more] = await world.outputs(deadLetters, 'DeadLetter');
    expect(more).toEqual([]);
    expect(letter!.value).toMatchObject({ code: 'RECORD_MALFORMED', position: { topic: userActions, partition: 0, offset: 0 } });
    expect(letter!.value!.originalCut).toEqual({ bytes: 850_000, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect((letter!.value!.original as Uint8Array).length).toBeGreaterThan(700_000);
    expect(instance.log).toMatch(/max\.message\.bytes is 1048588, the largest record that we may write 12582912/);

    const refused = await runCommand(['topics', 'delete', '-c', await configuration({})]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/has 1 member\(s\): stop every instance first/);
    expect(await instance.stop()).toBe(0);
  });

  it('a changelog that lost its head is not restored from; where the local store is whole, it is told', async () => {
    const changelog = changelogOf(world.config.kafka);
    const ends = await admin.fetchTopicOffsets(changelog);
    const partitions = ends.map(({ partition, high }) => ({ partition, offset: String(Number(high) - 4) }));
    // Where ages are deleted too, so may records be by hand: as a platform's default has it.
    await setPolicy(changelog, 'compact,delete');
    const aging = await runCommand(['topics', 'list', '-c', await configuration({})]);
    expect(aging.code).toBe(2);
    expect(aging.stderr).toContain(`${changelog}: cleanup.policy is compact,delete, must be compact`);
    await admin.deleteTopicRecords({ topic: changelog, partitions });
    await setPolicy(changelog, 'compact');
    const fresh = await world.start('new-machine');
    expect(await fresh.ended()).toBe(2);
    expect(fresh.log).toMatch(
      /STATE_LOST.*-changelog\/\d: it holds \d+ records where \d+ were committed; its first \d+ offsets were deleted/,
    );
    expect(fresh.log).toContain('hstu-streams reset --to earliest');

    const whole = await world.start('a');
    await whole.untilRunning();
    expect(whole.log).toContain('the changelog has lost its beginning');
    expect(await whole.stop()).toBe(0);
    const listed = await runCommand(['topics', 'list', '-c', await configuration({})]);
    expect(listed.code).toBe(0);
    expect(listed.stdout).toMatch(/yes, but: \S+-changelog: \d+ offsets before its first record were deleted/);
  });

  it('an input topic that was made anew, and grew past the position, is refused; reset mends it', async () => {
    const { userActions } = world.config.kafka.topics;
    await deleteTopic(admin, userActions);
    await make(userActions, 2);
    const actions = liveEvents({ events: 3 * EVENTS, users: 12 });
    await world.produce(actions);
    const again = await world.start('a');
    expect(await again.ended()).toBe(2);
    expect(again.log).toMatch(
      /TOPICS_INVALID.*-actions\/\d: the topic was deleted and made again \(topic id \S+ then, \S+ now\)/,
    );

    expect((await runCommand(['reset', '-c', await configuration({}), '--execute'])).code).toBe(0);
    const mended = await world.start('new-machine');
    await world.untilConsumed(actions.length);
    expect(await world.verifyState(actions)).toEqual([]);
    expect(await mended.stop()).toBe(0);
  });

  it('partitions that are added while it runs end it, within seconds, with the words of a start', async () => {
    const instance = await world.start('a');
    await instance.untilRunning();
    await admin.createPartitions({ topicPartitions: [{ topic: world.config.kafka.topics.userActions, count: 4 }] });
    expect(await instance.ended(30_000)).toBe(2);
    expect(instance.log).toMatch(/TOPICS_INVALID.*partition counts differ: \S+-actions 4, /s);
    expect(instance.log).not.toContain('TypeError');
    expect(instance.log).not.toContain('Cannot read properties');
    const started = await runCommand(['run', '-c', await configuration({})]);
    expect(started.stderr).toMatch(/TOPICS_INVALID.*partition counts differ: \S+-actions 4, /s);
  });

  it('a topic is watched: made anew or grown it ends the deployment, deleted it is waited for, an output made anew is told', async () => {
    const name = randomName('watched');
    const config: KafkaConfig = {
      ...world.config.kafka,
      applicationId: name,
      topics: { ...topicsNamed(name), entities: `${name}-entities` },
    };
    const told: string[] = [];
    let failed: (error: PipelineError) => void = () => undefined;
    const watched = async (change: () => Promise<unknown>, until: 'failed' | RegExp) => {
      await createTopics(world.kafka, config);
      const failure = new Promise<PipelineError>((resolve) => {
        failed = resolve;
      });
      const guard = new TopicGuard(world.kafka, config, {
        onFailed: (error) => failed(error),
        onNotice: (message, { topic }) => told.push(`${message} ${topic}`),
        intervalMs: 100,
        confirmAfterMs: 50,
      });
      try {
        await guard.open();
        guard.watch();
        await change();
        if (until !== 'failed') {
          await expect.poll(() => told.some((text) => until.test(text)), { timeout: 10_000 }).toBe(true);
          return { error: undefined, asked: await guard.check().catch((error: PipelineError) => error) };
        }
        const error = await failure;
        return { error, asked: await guard.check().catch((thrown: PipelineError) => thrown) };
      } finally {
        await guard.close();
      }
    };
    const anew = async (topic: string, settings: { name: string; value: string }[] = []) => {
      await deleteTopic(admin, topic);
      await make(topic, 2, settings);
    };
    const { topics } = config;
    for (const topic of [topics.erasures, topics.candidateRequests]) {
      const { error, asked } = await watched(() => anew(topic), 'failed');
      expect(error).toMatchObject({
        code: 'TOPICS_INVALID',
        message: expect.stringContaining(`${topic}: the topic was deleted and made again`),
      });
      expect(asked).toMatchObject({ code: 'TOPICS_INVALID' });
    }
    for (const topic of [topics.entities!, changelogOf(config)])
      expect((await watched(() => anew(topic, compacted), 'failed')).error!.message).toContain(
        `${topic}: the topic was deleted and made again`,
      );
    await watched(() => anew(topics.deadLetters), /an output topic was deleted and made again.*-letters$/);

    const gone = await watched(
      () => deleteTopic(admin, topics.erasures),
      /there is no such topic any more; waiting for it \S+-erasures$/,
    );
    expect(gone.asked).toMatchObject({ code: 'KAFKA_FAILED', retriable: true });

    const grown = (topic: string) => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
    const entities = await watched(() => grown(topics.entities!), 'failed');
    expect(entities.error!.message).toMatch(/-entities had 2 partitions at the start and has 3: .*Start again/);
    const all = await watched(async () => {
      for (const { name: topic, role } of await readTopics(world.kafka, config)) if (role !== 'entities') await grown(topic);
    }, 'failed');
    expect(all.error!.message).toMatch(/partitions? (counts differ|at the start)|had 2 partitions at the start and has 3/);
  });

  it('a topic that is made anew while ranges of it are read is not passed off as one', async () => {
    const topic = randomName('ranges');
    await make(topic, 1);
    const producer = new OutputProducer(world.kafka, world.config.kafka);
    const fill = () => producer.send(0, new Map([[topic, Array.from({ length: 3 }, (_, i) => ({ key: `${i}`, value: null }))]]));
    await fill();
    const ranges = await resolveRanges(world.kafka, topic, () => ({}));
    await deleteTopic(admin, topic);
    await make(topic, 1);
    await fill();
    await producer.close();
    const read = async () => {
      for await (const records of readRanges(world.kafka, ranges, { maxBufferedBytes: 2 ** 20 })) expect(records).toHaveLength(3);
    };
    await expect(read()).rejects.toMatchObject({
      code: 'SOURCE_UNREADABLE',
      message: expect.stringMatching(/deleted and made again while it was read/),
    });
  });
});
