/** Makes the topics of a deployment, and takes back what was made: nothing is changed where not all of it can be. */
import type { Admin, ITopicConfig, Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { judgeTopics, topicsInvalid } from './check-topics.ts';
import { kafkaError } from './kafka-errors.ts';
import { inputTopics, readTopics, type TopicState, topicSpecs, untilLed, withAdmin } from './topics.ts';

/** Where there is no topic to take it from. */
const DEFAULT_PARTITIONS = 4;

/**
 * Makes the topics that are missing, with as many partitions as those that are there.
 *
 * @returns their names
 * @throws PipelineError `TOPICS_INVALID`, with nothing made, where those that are there do not fit each other or `kafka.partitions`
 */
export async function createTopics(kafka: Kafka, config: KafkaConfig): Promise<readonly string[]> {
  const states = await readTopics(kafka, config);
  const problems = judgeTopics(
    states.filter(({ partitions }) => partitions !== undefined),
    config,
  ).filter(({ stops }) => stops);
  if (problems.length > 0) {
    const error = topicsInvalid(problems);
    throw new PipelineError('TOPICS_INVALID', `nothing was made: ${error.message}`);
  }
  return makeMissing(kafka, config, states);
}

/** The same whatever those that are there are like. */
export async function makeMissing(kafka: Kafka, config: KafkaConfig, known?: readonly TopicState[]): Promise<readonly string[]> {
  const states = known ?? (await readTopics(kafka, config));
  const numPartitions = partitionsFor(states, config);
  const missing = topicSpecs(config).filter(({ name }) => states.find((state) => state.name === name)?.partitions === undefined);
  if (missing.length === 0) return [];
  const names = missing.map(({ name }) => name);
  await withAdmin(kafka, 'creating the topics', async (admin) => {
    const topics = missing.map(
      ({ name, settings }): ITopicConfig => ({
        topic: name,
        numPartitions,
        replicationFactor: config.replicationFactor,
        configEntries: Object.entries(settings).map(([key, value]) => ({ name: key, value })),
      }),
    );
    // Asked first: of several topics the broker makes those that it may, and refuses the others.
    await withReason(() => admin.createTopics({ topics, validateOnly: true, waitForLeaders: false }));
    // Waited for by ourselves: kafkajs gives up on a broker that has not heard of a topic yet.
    await withReason(() => admin.createTopics({ topics, waitForLeaders: false }));
    await untilLed(admin, names);
  });
  return names;
}

/**
 * The partition count of topics that are made beside those that there are.
 *
 * @throws PipelineError `TOPICS_INVALID` where `kafka.partitions` says another
 */
export function partitionsFor(states: readonly TopicState[], config: KafkaConfig): number {
  const there = states.find(({ role, partitions }) => role !== 'entities' && role !== 'source' && partitions !== undefined);
  const source = states.find(({ role }) => role === 'source');
  if (there === undefined) return config.partitions ?? source?.partitions ?? DEFAULT_PARTITIONS;
  if (config.partitions !== undefined && config.partitions !== there.partitions)
    throw new PipelineError(
      'TOPICS_INVALID',
      `${there.name} has ${there.partitions} partitions, and kafka.partitions is ${config.partitions}: nothing was made. Set kafka.partitions: ${there.partitions}, or leave it out: all topics get as many as those that are there`,
    );
  return there.partitions!;
}

export interface TopicsDeletion {
  /** Names, in the order in which they go: the changelog last. */
  readonly topics: readonly string[];
  /** Input topics that are there and stay: others write into them. */
  readonly kept: readonly string[];
}

/**
 * What a deletion would take: what only this deployment writes, its changelog with it; input topics where `inputs` says so.
 *
 * @throws PipelineError `CONFIG_INVALID` while an instance of the deployment, or its sink, runs
 */
export async function planDeletion(
  kafka: Kafka,
  config: KafkaConfig,
  groups: readonly string[],
  { inputs }: { readonly inputs: boolean },
): Promise<TopicsDeletion> {
  const there = (await readTopics(kafka, config)).filter(({ partitions }) => partitions !== undefined);
  const { source, userActions, entities } = config.topics;
  const given = new Set([source, ...inputTopics(config), entities]);
  if (source !== undefined) given.delete(userActions);
  await withAdmin(kafka, 'looking who reads the topics', async (admin) => {
    for (const group of groups) await requireInactive(admin, group);
  });
  const kept = inputs ? [] : there.filter(({ name }) => given.has(name)).map(({ name }) => name);
  return { topics: there.map(({ name }) => name).filter((name) => !kept.includes(name)), kept };
}

export async function executeDeletion(
  kafka: Kafka,
  groups: readonly string[],
  { topics }: Pick<TopicsDeletion, 'topics'>,
): Promise<void> {
  await withAdmin(kafka, 'deleting the topics', async (admin) => {
    for (const group of groups) await requireInactive(admin, group);
    for (const topic of topics) await deleteTopic(admin, topic);
  });
}

/** A deleted topic stays listed for a moment; made again too early, it would be deleted as well. */
export async function deleteTopic(admin: Admin, topic: string): Promise<void> {
  await admin.deleteTopics({ topics: [topic] });
  for (let attempt = 0; attempt < 100; attempt++) {
    if (!(await admin.listTopics()).includes(topic)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new PipelineError('KAFKA_FAILED', `${topic} was deleted and is still listed after 10 s`);
}

/** @throws PipelineError `CONFIG_INVALID` while it has members */
export async function requireInactive(admin: Admin, group: string): Promise<void> {
  const { groups } = await admin.describeGroups([group]);
  const members = groups[0]?.members.length ?? 0;
  if (members > 0)
    throw new PipelineError(
      'CONFIG_INVALID',
      `group ${group} has ${members} member(s): stop every instance first (one that was killed counts until kafka.sessionTimeoutMs has passed)`,
    );
}

/** kafkajs says of a refused creation only that it was refused; the topics' own errors say why. */
async function withReason<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (thrown) {
    const { name, errors } = thrown as { readonly name?: string; readonly errors?: readonly { type?: string; topic?: string }[] };
    if (name !== 'KafkaJSAggregateError') throw thrown;
    const error = kafkaError(thrown, 'creating the topics');
    if (!error.retriable) throw error;
    const refused = (errors ?? []).map(({ topic, type }) => `${topic} ${type}`).join(', ');
    throw new PipelineError('KAFKA_REFUSED', `${error.message} (nothing was made: ${refused})`, { cause: thrown });
  }
}
