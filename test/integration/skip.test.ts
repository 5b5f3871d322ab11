/** A record batch that was damaged on a broker's disk: its partition stands, the others go on, and `skip` passes over it. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, privateKafka, randomName } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

describe.skipIf(!kafkaIsPossible)('a batch that nobody can read', { timeout: 120_000 }, () => {
  let cluster: LocalKafka;
  let world: LiveWorld;
  beforeAll(async () => {
    const [{ bundle, path: bundlePath }, broker] = await Promise.all([liveBundle(), privateKafka()]);
    cluster = broker;
    const settings = { kafka: { partitions: 2 } };
    world = await LiveWorld.create({ broker, name: randomName('skip'), bundlePath, bundle, settings });
  }, 180_000);
  afterAll(async () => {
    await world?.close();
    await cluster?.destroy();
  });

  it('stands with its name while others go on; skipped, it is one dead letter, and nothing else is', async () => {
    const { topics } = world.config.kafka;
    const codec = new AvroCodec();
    const actions = liveEvents({ events: 40, users: 1, late: 0 });
    const producer = world.kafka.producer({ idempotent: true, createPartitioner: statedPartition });
    await producer.connect();
    const send = async (partition: number, from: number, to: number) =>
      producer.send({
        topic: topics.userActions,
        messages: actions.slice(from, to).map((action) => {
          const own = { ...action, userId: `user-${partition}`, eventId: `${partition}-${action.eventId}` };
          return { key: own.userId, value: codec.encode('UserAction', own), partition };
        }),
      });
    for (const [from, to] of [
      [0, 10],
      [10, 15],
      [15, 40],
    ] as const)
      await send(0, from, to);
    await send(1, 0, 40);
    await producer.disconnect();

    const [{ id } = { id: 0 }] = cluster.brokers();
    await cluster.stop();
    damage(logOf(cluster.folder, `${topics.userActions}-0`), 1);
    await cluster.launch([id]);

    const instance = await world.start('a');
    await instance.untilLogged(/a partition stands.*|"msg":"a partition stands/, 30_000);
    await world.untilConsumed(10 + 40);
    expect(instance.log).toMatch(/BATCH_UNREADABLE/);
    expect(instance.log).toMatch(new RegExp(`${topics.userActions}/0: the batch at offset 10 cannot be read: its CRC-32C is`));
    const file = join(world.folder, 'skip.yaml');
    writeFileSync(file, stringify({ ...world.config, state: { ...world.config.state, path: join(world.folder, 'a') } }));
    const skip = (...more: string[]) => runCommand(['skip', '-c', file, '--partition', '0', ...more]);
    expect((await skip('--offset', '10')).stderr).toMatch(/stop every instance first/);
    expect(await instance.stop()).toBe(0);

    expect((await skip('--offset', '12')).stderr).toMatch(
      /--offset 12: .*\/0 stands at offset 10, and only what lies there is skipped/,
    );
    const other = await skip('--offset', '0', '--topic', topics.erasures);
    expect(other.stderr).toMatch(/nothing lies at offset 0/);
    const dry = await skip('--offset', '10');
    expect(dry.stdout, dry.stderr).toMatch(/offsets 10 to 14[\s\S]*SHA-256 [0-9a-f]{64}[\s\S]*CRC-32C[\s\S]*nothing was done/);
    expect(await world.consumed()).toBe(50);
    const done = await skip('--offset', '10', '--execute');
    expect(done.stdout, done.stderr).toMatch(/done/);
    expect((await skip('--offset', '15')).stderr).toMatch(/can be read, up to 40: there is nothing to skip/);

    // With the local store of before, which the changelog brings up to date.
    const again = await world.start('a');
    await world.untilConsumed(80);
    expect(await again.stop()).toBe(0);
    const letters = await world.outputs(topics.deadLetters, 'DeadLetter');
    expect(letters.map(({ value }) => value)).toMatchObject([
      { code: 'BATCH_UNREADABLE', step: 'fetch', position: { topic: topics.userActions, partition: 0, offset: 10 } },
    ]);
    const embeddings = await world.outputs(topics.userEmbeddings, 'UserEmbedding');
    const versions = (user: string) => embeddings.flatMap(({ key, value }) => (key === user ? [value!.version] : []));
    expect(versions('user-0')).toEqual(Array.from({ length: 35 }, (_, i) => i + 1));
    expect(versions('user-1')).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });
});

/** The only segment of a partition. */
function logOf(folder: string, partition: string): string {
  const found = readdirSync(folder, { recursive: true }).find((path) =>
    `${path}`.endsWith(`${partition}/00000000000000000000.log`),
  );
  return join(folder, `${found}`);
}

/** Flips a bit in the last byte of the nth batch of a segment. */
function damage(path: string, nth: number): void {
  const bytes = readFileSync(path);
  let at = 0;
  for (let i = 0; i < nth; i++) at += 12 + bytes.readInt32BE(at + 8);
  bytes[at + 11 + bytes.readInt32BE(at + 8)]! ^= 1;
  writeFileSync(path, bytes);
}
