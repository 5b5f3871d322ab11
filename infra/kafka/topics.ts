/** The topics of a deployment: what `topics create` makes, and what a start checks. */
import type { Admin, ITopicConfig, Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { kafkaError } from './kafka-errors.ts';

const DAY_MS = 86_400_000;
/** How long tombstones stay in a compacted topic: a local store older than this is not to be brought up to date from it. */
export const TOMBSTONES_KEPT_MS = 7 * DAY_MS;

/** Room for one output record of any size that we make: an answer to 10,000 candidates with long ids. */
const MAX_OUTPUT_BYTES = 12 * 2 ** 20;

export interface TopicSpec {
  readonly name: string;
  readonly role: keyof KafkaConfig['topics'];
  readonly settings: Readonly<Record<string, string>>;
}

export const changelogOf = ({ applicationId, topics }: KafkaConfig): string => topics.changelog ?? `${applicationId}-changelog`;

/** The topics that are read, in the order in which a partition's turn goes round. */
export const inputTopics = ({ topics }: KafkaConfig): readonly string[] => [
  topics.userActions,
  topics.erasures,
  topics.candidateRequests,
];

export function topicSpecs(config: KafkaConfig): readonly TopicSpec[] {
  const { topics, maxRecordBytes } = config;
  const maxMessageBytes = String(Math.max(MAX_OUTPUT_BYTES, 2 * maxRecordBytes));
  const deleted = (retentionMs: number) => ({ 'cleanup.policy': 'delete', 'retention.ms': String(retentionMs) });
  const compacted = {
    'cleanup.policy': 'compact',
    'delete.retention.ms': String(TOMBSTONES_KEPT_MS),
    'max.message.bytes': maxMessageBytes,
  };
  const spec = (role: TopicSpec['role'], name: string, settings: TopicSpec['settings']): TopicSpec => ({ role, name, settings });
  return [
    spec('userActions', topics.userActions, deleted(7 * DAY_MS)),
    spec('candidateRequests', topics.candidateRequests, deleted(DAY_MS)),
    spec('erasures', topics.erasures, deleted(30 * DAY_MS)),
    spec('userEmbeddings', topics.userEmbeddings, compacted),
    // An answer to a full list is as large as the request, and the scores.
    spec('candidateScores', topics.candidateScores, { ...deleted(DAY_MS), 'max.message.bytes': maxMessageBytes }),
    spec('deadLetters', topics.deadLetters, { ...deleted(30 * DAY_MS), 'max.message.bytes': maxMessageBytes }),
    ...(topics.actionOutcomes === undefined
      ? []
      : [spec('actionOutcomes', topics.actionOutcomes, { ...deleted(7 * DAY_MS), 'max.message.bytes': maxMessageBytes })]),
    ...(topics.entities === undefined ? [] : [spec('entities', topics.entities, compacted)]),
    spec('changelog', changelogOf(config), {
      ...compacted,
      'min.cleanable.dirty.ratio': '0.3',
      'segment.ms': String(DAY_MS),
    }),
  ];
}

export interface TopicState {
  readonly name: string;
  readonly role: TopicSpec['role'];
  /** Absent: there is none. */
  readonly partitions?: number;
  readonly replicas?: number;
  readonly cleanupPolicy?: string;
  /** How long a record stays at least, ms; -1 for ever. A compacted topic has it too, and does not go by it. */
  readonly retentionMs?: number;
}

/** What the broker has of the deployment's topics. */
export async function readTopics(kafka: Kafka, config: KafkaConfig): Promise<readonly TopicState[]> {
  return withAdmin(kafka, 'reading the topics', async (admin) => {
    const specs = topicSpecs(config);
    const names = new Set(await admin.listTopics());
    const present = specs.filter(({ name }) => names.has(name));
    const hidden = specs.find(({ name }) => !names.has(name));
    if (hidden !== undefined) await requireVisible(admin, hidden.name);
    if (present.length === 0) return specs.map(({ name, role }) => ({ name, role }));
    const { topics } = await admin.fetchTopicMetadata({ topics: present.map(({ name }) => name) });
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: present.map(({ name }) => ({ type: 2, name, configNames: ['cleanup.policy', 'retention.ms'] })),
    });
    return specs.map(({ name, role }) => {
      const found = topics.find((topic) => topic.name === name);
      if (found === undefined) return { name, role };
      const entries = resources.find(({ resourceName }) => resourceName === name)?.configEntries ?? [];
      const settingOf = (key: string) => entries.find(({ configName }) => configName === key)?.configValue;
      return {
        name,
        role,
        partitions: found.partitions.length,
        replicas: found.partitions[0]?.replicas.length ?? 0,
        cleanupPolicy: settingOf('cleanup.policy') ?? '?',
        retentionMs: Number(settingOf('retention.ms') ?? -1),
      };
    });
  });
}

/** A topic that is not listed may be there, for others: an ACL is missing then, not the topic. */
async function requireVisible(admin: Admin, name: string): Promise<void> {
  try {
    await admin.fetchTopicMetadata({ topics: [name] });
  } catch (thrown) {
    const error = kafkaError(thrown, `looking up ${name}`);
    if (error.code === 'KAFKA_AUTHORIZATION') throw error;
  }
}

/** Makes the topics that are missing. Returns their names. */
export async function createTopics(kafka: Kafka, config: KafkaConfig): Promise<readonly string[]> {
  const states = await readTopics(kafka, config);
  const missing = topicSpecs(config).filter(({ name }) => states.find((state) => state.name === name)?.partitions === undefined);
  if (missing.length === 0) return [];
  await withAdmin(kafka, 'creating the topics', async (admin) => {
    const topics = missing.map(
      ({ name, settings }): ITopicConfig => ({
        topic: name,
        numPartitions: config.partitions,
        replicationFactor: config.replicationFactor,
        configEntries: Object.entries(settings).map(([key, value]) => ({ name: key, value })),
      }),
    );
    // Waited for by ourselves: kafkajs gives up on a broker that has not heard of a topic yet.
    await admin.createTopics({ topics, waitForLeaders: false });
    await untilLed(
      admin,
      missing.map(({ name }) => name),
    );
  });
  return missing.map(({ name }) => name);
}

/** Waits until every partition has a leader. */
export async function untilLed(admin: Admin, names: readonly string[]): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const { topics } = await admin.fetchTopicMetadata({ topics: [...names] });
      if (topics.every(({ partitions }) => partitions.length > 0 && partitions.every(({ leader }) => leader >= 0))) return;
    } catch (thrown) {
      if (attempt >= 50) throw thrown;
    }
    if (attempt >= 50) throw new PipelineError('KAFKA_FAILED', `${names.join(', ')}: made, and still without leaders after 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/**
 * Checks that the topics are there, with equal partition counts (but `entities`, which holds no users), and that those which
 * must be compacted are.
 *
 * @returns the partition count
 * @throws PipelineError `TOPICS_INVALID` listing every problem
 */
export function checkTopics(states: readonly TopicState[], config: KafkaConfig): number {
  const problems: string[] = [];
  const missing = states.filter(({ partitions }) => partitions === undefined).map(({ name }) => name);
  if (missing.length > 0) problems.push(`missing: ${missing.join(', ')} (make them: hstu-streams topics create)`);
  const ofUsers = states.filter(({ role }) => role !== 'entities');
  const counts = new Set(ofUsers.flatMap(({ partitions }) => partitions ?? []));
  if (counts.size > 1) {
    const list = ofUsers.map(({ name, partitions }) => `${name} ${partitions ?? '-'}`).join(', ');
    problems.push(
      `partition counts differ: ${list}; a user's actions, requests, state and outputs share a partition number, so they must be equal`,
    );
  }
  for (const spec of topicSpecs(config)) {
    const found = states.find(({ name }) => name === spec.name)?.cleanupPolicy;
    const wanted = spec.settings['cleanup.policy']!;
    if (spec.role === 'changelog' || spec.role === 'userEmbeddings' || spec.role === 'entities')
      if (found !== undefined && !found.includes(wanted))
        problems.push(`${spec.name}: cleanup.policy is ${found}, must be ${wanted} (state would be deleted with its age)`);
  }
  if (problems.length > 0) throw new PipelineError('TOPICS_INVALID', ['the topics are not fit:', ...problems].join('\n  '));
  return [...counts][0]!;
}

/** Says of a coordinator or a leader that it is being elected, reads its log, or does not know yet that it is one: it passes. */
const LOADING = /COORDINATOR|GROUP_LOAD_IN_PROGRESS|NOT_LEADER|LEADER_NOT_AVAILABLE/;
const LOADING_TRIES = 40;

/**
 * Runs `use` with a connected admin client, and closes it; again, while a coordinator or a leader is not ready to answer.
 *
 * @throws PipelineError as `kafkaError` says
 */
export async function withAdmin<T>(kafka: Kafka, what: string, use: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = kafka.admin();
  try {
    await admin.connect();
    for (let attempt = 1; ; attempt++) {
      try {
        return await use(admin);
      } catch (thrown) {
        const { type, cause } = thrown as { readonly type?: string; readonly cause?: { readonly type?: string } };
        if (attempt >= LOADING_TRIES || !LOADING.test(type ?? cause?.type ?? '')) throw thrown;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
  } catch (thrown) {
    throw kafkaError(thrown, what);
  } finally {
    await admin.disconnect().catch(() => undefined);
  }
}
