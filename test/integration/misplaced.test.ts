/** Records that lie anywhere, written by Java's console producer: processed where they lie and told, or moved to their users' partitions. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { withAdmin } from '../../infra/kafka/topics.ts';
import type { UserAction } from '../../schemas/action.ts';
import { until } from '../support/clickhouse-store.ts';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';
import { produceByJava } from '../support/outside/java-tools.ts';
import { settle } from '../support/promises/promise.ts';

describe.skipIf(!kafkaIsPossible)('records that do not lie on their user’s partition', { timeout: 120_000 }, () => {
  const worlds: LiveWorld[] = [];
  afterAll(() => Promise.all(worlds.map((world) => world.close())));

  const worldWith = async (name: string, kafka: Readonly<Record<string, unknown>>) => {
    const [{ bundle, path }, broker] = await Promise.all([liveBundle(), sharedKafka()]);
    const settings = { kafka: { valueFormat: 'json', partitions: 3, ...kafka } };
    const world = await LiveWorld.create({ broker, name: randomName(name), bundlePath: path, bundle, settings });
    worlds.push(world);
    const file = join(world.folder, 'a-copy.yaml');
    await writeFile(file, stringify({ ...world.config, state: { ...world.config.state, path: join(world.folder, 'a') } }));
    return { world, file, broker: broker.bootstrapServers[0]! };
  };

  it('are moved there once each, through a kill -9, whatever they are keyed by; every embedding equals its full encode', async () => {
    const { world, file, broker } = await worldWith('moved', { misplaced: 'repartition' });
    const { source, userActions, deadLetters } = world.config.kafka.topics;
    // The source has another number of partitions than the users have.
    await withAdmin(world.kafka, 'growing the source', (admin) =>
      admin.createPartitions({ topicPartitions: [{ topic: source!, count: 5 }] }),
    );
    const actions = liveEvents({ events: 1_500, users: 60 });
    const bySession = actions.slice(0, 700).map((action, i) => `session-${i % 97}\t${JSON.stringify(action)}`);
    await produceByJava(broker, source!, bySession, true);
    const first = await world.start('a');
    await until(async () => (await world.consumed()) > 100, 30_000).catch((error) => {
      throw new Error(first.log, { cause: error });
    });
    await first.kill();
    await produceByJava(
      broker,
      source!,
      [...actions.slice(700).map((action) => JSON.stringify(action)), '{"userId": "nobody"}'],
      false,
    );
    const second = await world.start('a');
    await world.untilConsumed(1_501);
    const moved = await world.read(userActions);
    // Of a user's records in several partitions the order is that in which they were moved.
    const inOrder = moved.filter(({ key }) => key !== null).map(({ value }) => JSON.parse(String(value)) as UserAction);
    const { problems } = await settle(world, inOrder);
    expect(problems).toEqual([]);
    expect(new Set(inOrder.map(({ eventId }) => eventId))).toEqual(new Set(actions.map(({ eventId }) => eventId)));

    const users = moved.filter(({ key }) => key !== null).map(({ key, position }) => [String(key), position.partition] as const);
    expect(users).toHaveLength(1_500);
    for (const [userId, partition] of users) expect(partition).toBe(partitionOf(userId, 3));
    expect(new Set(moved.map(({ value }) => String(value))).size).toBe(1_501);
    expect(await world.read(deadLetters)).toHaveLength(1);
    const metrics = (await second.ask('/metrics')).body;
    expect(metrics).toMatch(new RegExp(`hstu_consumer_lag_records\\{topic="${source}",partition="4"\\} 0`));

    const { code, stdout, stderr } = await runCommand(['erase', 'user-0', '--wait', '--verify', '-c', file]);
    expect(code, stdout + stderr).toBe(0);
    expect(stdout).toMatch(new RegExp(`topic ${source}[^\\n]*by retention`));
    expect(await second.stop()).toBe(0);
  });

  it('are counted and told, by `doctor` as well; an erasure finds the user wherever it lies', async () => {
    const { world, file, broker } = await worldWith('told', {});
    const { userActions } = world.config.kafka.topics;
    const ofTwin = (i: number): UserAction => ({
      eventId: `t${i}`,
      userId: 'twin',
      action: 'view',
      entity: `item:${1 + i}`,
      eventTimeMs: 1_700_000_000_000 + i * 1_000,
    });
    const lines = Array.from({ length: 60 }, (_, i) => `session-${i}\t${JSON.stringify(ofTwin(i))}`);
    const elsewhere = lines.filter((line) => partitionOf(line.split('\t')[0]!, 3) !== partitionOf('twin', 3)).length;
    await produceByJava(broker, userActions, lines, true);
    const instance = await world.start('a');
    await world.untilConsumed(60);
    const metrics = (await instance.ask('/metrics')).body;
    expect(metrics).toMatch(new RegExp(`hstu_misplaced_records_total\\{topic="${userActions}"\\} ${elsewhere}`));
    await instance.untilLogged(/"belongs":\d[^\n]*does not lie on its user's partition/);

    const doctor = await runCommand(['doctor', '-c', file]);
    expect(doctor.stdout).toMatch(new RegExp(`✗ records[\\s\\S]*${elsewhere} of the newest 60 of [\\s\\S]*of user 'twin'`));

    expect((await runCommand(['erase', 'twin', '--verify', '-c', file])).stdout).toContain('LEFT in');
    const erased = await runCommand(['erase', 'twin', '--wait', '--verify', '-c', file]);
    expect(erased.stdout, erased.stderr).toContain('clean: nothing is left');
    expect(erased.code).toBe(0);
    expect(await instance.stop()).toBe(0);
  });
});
