/** Topics that somebody changes under a deployment: made anew, grown, emptied. Each is refused with its name, and nothing is lost unseen. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import kafkajs, { type Admin } from 'kafkajs';
import { changelogOf, topicSpecs, withAdmin } from '../../../../infra/kafka/topics.ts';
import { patiently } from '../../../../streams/patience.ts';
import { liveEvents } from '../../live-bundle.ts';
import type { Instance, LiveWorld } from '../../live-world.ts';
import { type Shown, sleep } from '../promise.ts';
import { until } from './until.ts';

/** Of 200 records all were processed; of the topic that was made again, with more of them, none may be passed over. */
export async function aTopicMadeAnewIsRefused(world: LiveWorld, { running }: { readonly running: boolean }): Promise<Shown> {
  const { userActions } = world.config.kafka.topics;
  let instance = await world.start('a');
  await instance.untilRunning();
  await world.produce(liveEvents({ events: 200, users: 20 }));
  await world.untilConsumed(200);
  if (!running) await instance.stop();
  await administer(world, async (admin) => {
    await admin.deleteTopics({ topics: [userActions] });
    await sleep(1_000);
    await admin.createTopics({ topics: [{ topic: userActions, numPartitions: world.config.kafka.partitions! }] });
  });
  await world.produce(liveEvents({ events: 350, users: 20, from: 200 }));
  if (!running) instance = await world.start('a');
  const problems = await refusal(instance, 'TOPICS_INVALID', userActions);
  const consumed = await world.consumed();
  // With the topic the group's offsets are gone: what it has now, it has of the new one.
  if (consumed > 0) problems.push(`${consumed} records of the new topic are committed as consumed`);
  return { facts: { exit: String(await instance.ended()) }, problems };
}

/** Partitions added to the input alone, under a running instance: said within seconds. */
export async function aTopicThatGrewIsRefused(world: LiveWorld): Promise<Shown> {
  const { topics, partitions } = world.config.kafka;
  const instance = await world.start('a');
  await instance.untilRunning();
  await administer(world, (admin) =>
    admin.createPartitions({ topicPartitions: [{ topic: topics.userActions, count: partitions! + 2 }] }),
  );
  const began = performance.now();
  const problems = await refusal(instance, 'TOPICS_INVALID', topics.userActions);
  return { facts: { 'refused after, s': Math.round((performance.now() - began) / 1000) }, problems };
}

/** All but the last records of the changelog are deleted, as retention would; a new machine has no state of its own. */
export async function aChangelogWithoutItsHeadIsRefused(world: LiveWorld): Promise<Shown> {
  const topic = changelogOf(world.config.kafka);
  const before = await world.start('a');
  await before.untilRunning();
  await world.produce(liveEvents({ events: 520, users: 200 }));
  await world.untilConsumed(520);
  await before.stop();
  await rm(join(world.folder, 'a'), { recursive: true });
  await administer(world, async (admin) => {
    const ends = await admin.fetchTopicOffsets(topic);
    const partitions = ends.map(({ partition, high }) => ({ partition, offset: String(Math.max(0, Number(high) - 3)) }));
    // Of a topic that is only compacted, brokers delete nothing: somebody has had it otherwise for a while.
    await setPolicy(admin, world, topic, 'compact,delete');
    await admin.deleteTopicRecords({ topic, partitions });
    await setPolicy(admin, world, topic, 'compact');
  });
  await world.produce(liveEvents({ events: 100, users: 200, from: 520 }));
  const instance = await world.start('a');
  const problems = await refusal(instance, 'STATE_LOST', topic);
  const consumed = await world.consumed();
  if (consumed > 520) problems.push(`${consumed - 520} records were processed by a state that is not whole`);
  return { facts: { consumed }, problems };
}

/** All other settings of the topic stay as they are to be. */
async function setPolicy(admin: Admin, world: LiveWorld, topic: string, policy: string): Promise<void> {
  const settings = topicSpecs(world.config.kafka).find(({ name }) => name === topic)!.settings;
  const configEntries = Object.entries({ ...settings, 'cleanup.policy': policy }).map(([name, value]) => ({ name, value }));
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configEntries }],
  });
}

/** It says the code and the topic's name, and ends with 2. */
async function refusal(instance: Instance, code: string, topic: string): Promise<string[]> {
  const said = new RegExp(`${code}[^\\n]*${topic}`);
  const told = await until(20_000, async () => (said.test(instance.log) ? true : undefined));
  if (told === undefined) return [`it did not say ${said} within 20 s:\n${instance.log.slice(-3_000)}`];
  if (!(await instance.endsWithin(10_000))) return [`it has failed, and does not end:\n${instance.log.slice(-1_500)}`];
  const exit = await instance.ended();
  return exit === 2 ? [] : [`it ended with ${exit}, not 2`];
}

/** Again, where a broker is not ready for it: what is changed here is the same the second time. */
const administer = <T>(world: LiveWorld, change: (admin: Admin) => Promise<T>): Promise<T> =>
  patiently(() => withAdmin(world.kafka, 'changing the topics', change), { attempts: 5 });
