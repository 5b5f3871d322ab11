/** Sets a deployment back to a chosen place in its inputs, with no state: first as a plan, then in earnest. */
import { rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Admin, Kafka } from 'kafkajs';
import type { Config, KafkaConfig } from '../../schemas/config.ts';
import { RESET_KEY } from '../../schemas/state.ts';
import { MAX_EPOCH } from '../../schemas/version.ts';
import { deleteTopic, makeMissing, partitionsFor, requireInactive } from './change-topics.ts';
import { KeptPlaces, readKept, writeErasurePlaces } from './erasure-places.ts';
import { setGroupOffsets } from './group-offsets.ts';
import { PartitionProducer } from './partition-producer.ts';
import { changelogOf, inputTopics, readTopics, withAdmin } from './topics.ts';

/** Where the inputs are read from after the reset: an end of the log, or the first record at or after a time, ms since the epoch. */
export type ResetTarget = 'earliest' | 'latest' | { readonly timeMs: number };

/** Partitions whose producers are opened together. */
const MARKS_AT_ONCE = 16;

export interface OffsetMove {
  readonly topic: string;
  readonly partition: number;
  /** Absent: nothing was committed. */
  readonly from?: number;
  readonly to: number;
}

export interface ResetPlan {
  readonly group: string;
  readonly offsets: readonly OffsetMove[];
  /** Deleted and made again, empty; absent: there is none. */
  readonly changelog?: string;
  /** Local state on this machine, removed; absent: there is none. */
  readonly stateFolder?: string;
}

/**
 * What a reset would do. Outputs that were published stay.
 *
 * @throws PipelineError `CONFIG_INVALID` while an instance of the deployment runs
 */
export async function planReset(
  kafka: Kafka,
  config: Config & { readonly kafka: KafkaConfig },
  target: ResetTarget,
): Promise<ResetPlan> {
  const group = config.kafka.applicationId;
  return withAdmin(kafka, 'planning the reset', async (admin) => {
    await requireInactive(admin, group);
    const names = new Set(await admin.listTopics());
    const topics = inputTopics(config.kafka).filter((topic) => names.has(topic));
    const committed = await admin.fetchOffsets({ groupId: group, topics: [...topics] });
    const offsets: OffsetMove[] = [];
    for (const topic of topics) {
      const before = committed.find((entry) => entry.topic === topic)?.partitions ?? [];
      for (const { partition, to } of await targetsOf(admin, topic, target)) {
        const from = Number(before.find((entry) => entry.partition === partition)?.offset ?? -1);
        offsets.push({ topic, partition, to, ...(from >= 0 && { from }) });
      }
    }
    const changelog = changelogOf(config.kafka);
    const stateFolder = resolve(join(config.state.path, group));
    const hasState = await stat(stateFolder).then(Boolean, () => false);
    return { group, offsets, ...(names.has(changelog) && { changelog }), ...(hasState && { stateFolder }) };
  });
}

/**
 * Carries a plan out: state first, offsets last, so that a reset that was cut short is done again by doing it again. Where erasures stand
 * among the actions stays: a user who was erased does not come back by it.
 */
export async function executeReset(
  kafka: Kafka,
  config: Config & { readonly kafka: KafkaConfig },
  { group, offsets, changelog, stateFolder }: ResetPlan,
): Promise<void> {
  await withAdmin(kafka, 'resetting', async (admin) => {
    await requireInactive(admin, group);
    // What cannot be made again is not deleted.
    const partitions = partitionsFor(await readTopics(kafka, config.kafka), config.kafka);
    if (stateFolder !== undefined) await rm(stateFolder, { recursive: true, force: true });
    const kept = new KeptPlaces(config);
    const { places, epochs } = await kept.keep(await readKept(kafka, config.kafka));
    if (changelog !== undefined) await deleteTopic(admin, changelog);
    await makeMissing(kafka, config.kafka);
    await writeErasurePlaces(kafka, config.kafka, places);
    await markReset(kafka, config.kafka, partitions, epochs);
    await kept.drop();
    await setGroupOffsets(kafka, group, offsets);
  });
}

/** Says in every partition of the changelog that it begins without state on purpose. */
async function markReset(
  kafka: Kafka,
  config: KafkaConfig,
  partitions: number,
  epochs: ReadonlyMap<number, number>,
): Promise<void> {
  const mark = async (partition: number) => {
    // What is published after it has versions above all that was before.
    const before = epochs.get(partition);
    const epoch = before === undefined ? 0 : Math.min(MAX_EPOCH, before + 1);
    const record = { key: RESET_KEY, value: Buffer.from(JSON.stringify({ atMs: Date.now(), epoch })) };
    const producer = new PartitionProducer(kafka, config, partition);
    try {
      await producer.open();
      await producer.commitParts((send) => send(changelogOf(config), [record]), {});
    } finally {
      await producer.close();
    }
  };
  for (let from = 0; from < partitions; from += MARKS_AT_ONCE)
    await Promise.all(Array.from({ length: Math.min(MARKS_AT_ONCE, partitions - from) }, (_, i) => mark(from + i)));
}

async function targetsOf(admin: Admin, topic: string, target: ResetTarget): Promise<{ partition: number; to: number }[]> {
  const now = await admin.fetchTopicOffsets(topic);
  if (typeof target === 'string')
    return now.map(({ partition, low, high }) => ({ partition, to: Number(target === 'earliest' ? low : high) }));
  const at = await admin.fetchTopicOffsetsByTimestamp(topic, target.timeMs);
  return at.map(({ partition, offset }) => ({
    partition,
    // No record is as young as that: the end of the log.
    to: Number(offset) >= 0 ? Number(offset) : Number(now.find((entry) => entry.partition === partition)!.high),
  }));
}
