/** Faults of brokers: of three, one that leads an input and an output partition is killed under load. */
import type { LocalKafka } from '../../../infra/kafka/broker/local-kafka.ts';
import { changelogOf } from '../../../infra/kafka/topics.ts';
import type { LiveWorld } from '../live-world.ts';
import { Load, type Say, type Shown, settle, sleep } from './promise.ts';

export interface LeaderOptions {
  readonly cluster: LocalKafka;
  readonly rounds: number;
  readonly say: Say;
}

/** The world has replication 3. Produced, processed and committed through the loss of a leader, and its return. */
export async function theLossOfALeaderLosesNothing(world: LiveWorld, { cluster, rounds, say }: LeaderOptions): Promise<Shown> {
  const instances = await Promise.all([world.start('a'), world.start('b')]);
  await Promise.all(instances.map((instance) => instance.untilRunning(60_000)));
  const load = new Load(world).start({ perSecond: 300, users: 200 });
  const killed: string[] = [];
  for (let round = 0; round < rounds; round++) {
    await sleep(3_000);
    const broker = await leaderOf(world);
    say(`round ${round + 1} of ${rounds}: kill -9 of broker ${broker}`);
    await cluster.kill(broker);
    killed.push(String(broker));
    await sleep(12_000);
    say(`round ${round + 1} of ${rounds}: broker ${broker} comes back`);
    await cluster.restart(broker);
    await sleep(5_000);
  }
  const shown = await settle(world, await load.stop(), 180_000);
  const recovered = instances.filter(({ log }) => log.includes('going on from the last commit')).length;
  return {
    facts: { 'brokers killed': killed.join(', '), 'instances that recovered': recovered, ...shown.facts },
    problems: shown.problems,
  };
}

/** A broker that leads partitions of the input, of the embeddings and of the changelog, more than the others do. */
async function leaderOf(world: LiveWorld): Promise<number> {
  const { kafka } = world.config;
  const admin = world.kafka.admin();
  await admin.connect();
  try {
    const { topics } = await admin.fetchTopicMetadata({
      topics: [kafka.topics.userActions, kafka.topics.userEmbeddings, changelogOf(kafka)],
    });
    const leads = new Map<number, Set<string>>();
    for (const { name, partitions } of topics)
      for (const { leader } of partitions) leads.set(leader, (leads.get(leader) ?? new Set()).add(name));
    return [...leads].sort(([, a], [, b]) => b.size - a.size)[0]![0];
  } finally {
    await admin.disconnect();
  }
}
