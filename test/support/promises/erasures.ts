/** Erasures come on a topic of their own, beside the actions of the same partition. */
import { partitionOf } from '../../../infra/kafka/keyed-producer.ts';
import { liveEvents } from '../live-bundle.ts';
import type { LiveWorld } from '../live-world.ts';
import type { Shown } from './promise.ts';
import { sleep } from './promise.ts';

/**
 * Users are erased while their actions flow. Which of the two comes first is nobody's promise; that they are committed in the
 * order in which they were applied is: after a tombstone a user's versions begin at 1, and they never skip one.
 */
export async function erasuresAndActionsAreCommittedInOneOrder(
  world: LiveWorld,
  { events, users }: { readonly events: number; readonly users: number },
): Promise<Shown> {
  const { topics, partitions } = world.config.kafka;
  const instance = await world.start('a');
  await instance.untilRunning();
  const producer = world.kafka.producer({ idempotent: true });
  await producer.connect();
  let producing = true;
  let erasures = 0;
  const erasing = (async () => {
    for (; producing; erasures++) {
      const key = `user-${erasures % users}`;
      const partition = partitionOf(key, partitions!);
      await producer.send({ topic: topics.erasures, messages: [{ key, value: null, partition }] });
      await sleep(3);
    }
  })();
  await world.produce(liveEvents({ events, users, late: 0 }), 20);
  producing = false;
  await erasing;
  await producer.disconnect();
  await world.untilConsumed(events);

  const problems: string[] = [];
  const version = new Map<string, number>();
  let tombstones = 0;
  for (const { key, value } of await world.outputs(topics.userEmbeddings, 'UserEmbedding')) {
    const before = version.get(key) ?? 0;
    if (value === null) tombstones++;
    else if (value.version !== before + 1) problems.push(`${key}: version ${value.version} after ${before}`);
    version.set(key, value === null ? 0 : value.version);
  }
  if (tombstones === 0) problems.push('nobody was erased');
  if (instance.log.includes('going on from the last commit')) problems.push(`it had to recover:\n${instance.log.slice(-3000)}`);
  return { facts: { events, erasures, tombstones }, problems };
}
