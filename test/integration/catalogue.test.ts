/** A catalogue that grows while an instance runs, on a real broker: by the command, and by whatever else writes to the topic. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { EntityProducer } from '../../infra/kafka/entity-producer.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { TopicFollower } from '../../infra/kafka/topic-follower.ts';
import { untilLed, withAdmin } from '../../infra/kafka/topics.ts';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { parseConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { AppliedCatalogue } from '../../streams/live/live-catalogue.ts';
import { type OpenLive, openLive } from '../../streams/live/open-live.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';
import { topicsNamed } from '../support/topics-named.ts';

const V = 300;
const content = (x: number) => Float32Array.of(x, Math.sin(x), 1);

describe.skipIf(!kafkaIsPossible)('the entities topic', { timeout: 60_000 }, () => {
  let world: LiveWorld;
  let bundle: Bundle;
  let topic: string;
  let entities: EntityProducer;
  const stops: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    const small = { dimension: 16, layers: 2, heads: 2, maxSequenceLength: 40, vocabularySize: V };
    const [written, broker] = await Promise.all([
      liveBundle(randomBundle({ ...small, content: { dimension: 3 } })),
      sharedKafka(),
    ]);
    bundle = written.bundle;
    const name = randomName('catalogue');
    topic = `${name}-entities`;
    const settings = {
      scores: { topK: 400, seenFilter: false },
      kafka: { topics: { ...topicsNamed(name), entities: topic } },
    };
    const given = { broker, name, bundlePath: written.path, bundle };
    const kafka = kafkaClient(parseConfig({ bundle: 'none', kafka: broker.connection() }, 'this test').kafka!);
    // Of another number of partitions than the topics of users.
    await withAdmin(kafka, 'making a topic', async (admin) => {
      const configEntries = [{ name: 'cleanup.policy', value: 'compact' }];
      await admin.createTopics({ topics: [{ topic, numPartitions: 3, configEntries }], waitForLeaders: false });
      await untilLed(admin, [topic]);
    });
    world = await LiveWorld.create({ ...given, settings: settings as never });
    entities = await EntityProducer.open(world.kafka, world.config.kafka, topic, new AvroCodec());
  }, 180_000);
  afterAll(async () => {
    await Promise.all(stops.map((stop) => stop()));
    await entities?.close();
    await world?.close();
  });

  async function start() {
    const applied: AppliedCatalogue[] = [];
    const rejected: string[] = [];
    const stopping = new AbortController();
    const live: OpenLive = await openLive({
      config: { ...world.config, state: { ...world.config.state, path: join(world.folder, 'a') } },
      bundle: await loadBundle(world.config.bundle),
      catalogueObserver: {
        onApplied: (catalogue) => applied.push(catalogue),
        onRejected: (_, reason) => rejected.push(reason),
      },
    });
    const running = live.run(stopping.signal).finally(() => live.close());
    const stop = () => (stopping.abort(), running);
    stops.push(stop);
    const untilAdded = (added: number, retired = 0) =>
      expect.poll(() => applied.at(-1), { timeout: 20_000 }).toMatchObject({ added, retired });
    return { applied, rejected, stop, untilAdded };
  }

  let events = 0;
  /** Entities of the list that comes with one more event. */
  async function listed(): Promise<ReadonlySet<string>> {
    await world.produce(liveEvents({ events: 1, users: 1, late: 0, from: events }));
    await world.untilConsumed(++events, 20_000);
    const lists = await world.outputs(world.config.kafka.topics.candidateScores, 'CandidateScores');
    const last = lists.find(({ value }) => value!.version === events)!;
    return new Set(last.value!.candidates.map(({ entity }) => entity));
  }

  it('adds, takes back and retires entities of a running instance, which reads them again at its next start', async () => {
    const file = join(world.folder, 'entities.csv');
    await writeFile(file, 'entity,retired,content.0,content.1,content.2\nitem:first,,1,2,3\nitem:1,true,,,\nitem:bad,,1,x,3\n');
    const config = join(world.folder, 'config.yaml');
    await writeFile(config, stringify(world.config));
    const produced = await runCommand(['produce', '-c', config, '--entities', file]);
    expect(produced.stdout).toMatch(/produced 2 entities to .*-entities in .*; 1 faulty lines were left out \(.*line 4: content/);

    const first = await start();
    expect(first.applied).toMatchObject([{ offered: V, added: 1, retired: 1 }]);
    const before = await listed();
    expect([before.size, before.has('item:first'), before.has('item:1')]).toEqual([V, true, false]);
    // What is not there before it is said: the control of what follows.
    expect(before.has('item:new')).toBe(false);

    await entities.send([
      { entity: 'item:wide', content: Float32Array.of(1, 2) },
      { entity: 'item:new', content: content(2) },
      { entity: 'item:other', content: content(3) },
    ]);
    await first.untilAdded(3, 1);
    const grown = await listed();
    expect([grown.size, grown.has('item:new'), grown.has('item:other'), grown.has('item:wide')]).toEqual([
      V + 2,
      true,
      true,
      false,
    ]);
    expect(first.rejected).toEqual(['content-dimension']);

    await entities.send([
      { entity: 'item:new', retired: true },
      { entity: 'item:1', removed: true },
    ]);
    await first.untilAdded(2, 0);
    const shrunk = await listed();
    expect([shrunk.size, shrunk.has('item:new'), shrunk.has('item:1')]).toEqual([V + 2, false, true]);
    const { digest } = first.applied.at(-1)!;
    await first.stop();

    const again = await world.start('a');
    await again.untilRunning();
    expect(again.log).toMatch(new RegExp(`"digest":"${digest}".*lists are made of another catalogue`));
    expect(again.log).toMatch(/"reason":"content-dimension".*a record of the entities topic changes nothing/);
    expect(await listed()).toEqual(shrunk);
    const port = /healthz, readyz, metrics on (\d+)/.exec(again.log)![1]!;
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    for (const series of [
      'entities{state="added"} 2',
      'rejects_total{reason="content-dimension"} 1',
      'lag_records{partition="2"} 0',
    ])
      expect(metrics).toContain(`hstu_catalogue_${series}`);
    expect(await again.stop()).toBe(0);
    const { problems, maxDelta } = await world.verify(liveEventsUpTo(events));
    expect(problems).toEqual([]);
    expect(maxDelta).toBeLessThan(1e-4);
  });

  it('is read on after a fault, nothing left out or given in another order', async () => {
    const read: string[] = [];
    const troubles: string[] = [];
    let faults = 2;
    const follower = new TopicFollower(world.kafka, {
      topic,
      maxBufferedBytes: 2 ** 20,
      onRecords: async (records) => {
        // As where the schema registry does not answer.
        if (faults-- > 0) throw new PipelineError('KAFKA_UNAVAILABLE', 'no answer');
        for (const { position, key } of records) read.push(`${position.partition}/${position.offset} ${Buffer.from(key!)}`);
      },
      onTrouble: ({ message }) => troubles.push(message),
      onFailed: (error) => troubles.push(error.message),
    });
    await follower.open();
    const inOrder = (await world.read(topic, 3)).map(
      ({ position, key }) => `${position.partition}/${position.offset} ${Buffer.from(key!)}`,
    );
    const of = (partition: number) => (one: string) => one.startsWith(`${partition}/`);
    for (const partition of [0, 1, 2]) expect(read.filter(of(partition))).toEqual(inOrder.filter(of(partition)));
    expect(read.length).toBeGreaterThanOrEqual(7);
    expect(troubles).toEqual(['no answer', 'no answer']);
    const ends = [0, 1, 2].map((partition) => [partition, inOrder.filter(of(partition)).length] as const);
    expect([...follower.positions]).toEqual(ends);
    expect(follower.standing).toEqual([]);
    await follower.close();
  });
});

const liveEventsUpTo = (events: number) =>
  Array.from({ length: events }, (_, from) => liveEvents({ events: 1, users: 1, late: 0, from })).flat();
