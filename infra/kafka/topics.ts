/** The topics of a deployment: what they are for, how they are to be, and how the brokers have them. */
import type { Admin, Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { kafkaError } from './kafka-errors.ts';
import { TopicMetadataReader } from './topic-metadata.ts';

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

/** Where actions come from: what clients write to. */
export const actionSourceOf = ({ topics }: Pick<KafkaConfig, 'topics'>): string => topics.source ?? topics.userActions;

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
    ...(topics.source === undefined ? [] : [spec('source', topics.source, deleted(7 * DAY_MS))]),
    spec('userActions', topics.userActions, {
      ...deleted(7 * DAY_MS),
      ...(topics.source !== undefined && { 'max.message.bytes': maxMessageBytes }),
    }),
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
  /** As Kafka's tools write it; absent: there is none, or the brokers are of before 2.8. */
  readonly id?: string;
  /** Absent: there is none. */
  readonly partitions?: number;
  readonly replicas?: number;
  readonly cleanupPolicy?: string;
  /** How long a record stays at least, ms; -1 for ever. A compacted topic has it too, and does not go by it. */
  readonly retentionMs?: number;
  /** Largest batch that it takes, bytes. */
  readonly maxMessageBytes?: number;
  /** `CreateTime` or `LogAppendTime`. */
  readonly timestampType?: string;
  /** Of the changelog: offsets before the first, which somebody has deleted; all partitions together. */
  readonly deletedHead?: number;
}

const SETTINGS = ['cleanup.policy', 'retention.ms', 'max.message.bytes', 'message.timestamp.type'] as const;

/** What the broker has of the deployment's topics. @throws PipelineError as `kafkaError` says */
export async function readTopics(kafka: Kafka, config: KafkaConfig): Promise<readonly TopicState[]> {
  const reader = new TopicMetadataReader(kafka);
  try {
    const states = await readTopicsWith(reader, config);
    const changelog = states.find(({ role, partitions }) => role === 'changelog' && partitions !== undefined);
    if (changelog === undefined) return states;
    const firsts = await withAdmin(kafka, `reading the offsets of ${changelog.name}`, (admin) =>
      admin.fetchTopicOffsets(changelog.name),
    );
    const deletedHead = firsts.reduce((sum, { low }) => sum + Number(low), 0);
    return states.map((state) => (state === changelog ? { ...state, deletedHead } : state));
  } finally {
    await reader.close();
  }
}

/** The same without the head of the changelog, by a reader that stays open. */
export async function readTopicsWith(reader: TopicMetadataReader, config: KafkaConfig): Promise<readonly TopicState[]> {
  const specs = topicSpecs(config);
  const found = await reader.topics([...new Set(specs.map(({ name }) => name))]);
  if (found.size === 0) return specs.map(({ name, role }) => ({ name, role }));
  const settings = await reader.settings([...found.keys()], SETTINGS);
  return specs.map(({ name, role }) => {
    const topic = found.get(name);
    if (topic === undefined) return { name, role };
    const settingOf = (key: (typeof SETTINGS)[number]) => settings.get(name)?.get(key);
    return {
      name,
      role,
      ...topic,
      cleanupPolicy: settingOf('cleanup.policy') ?? '?',
      retentionMs: Number(settingOf('retention.ms') ?? -1),
      maxMessageBytes: Number(settingOf('max.message.bytes') ?? Number.NaN),
      timestampType: settingOf('message.timestamp.type') ?? '?',
    };
  });
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
