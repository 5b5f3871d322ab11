/** Sets a deployment back to a chosen place in its inputs, with no state: first as a plan, then in earnest. */
import { rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Admin, Kafka } from 'kafkajs';
import type { Config, KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { KeptPlaces, readErasurePlaces, writeErasurePlaces } from './erasure-places.ts';
import { changelogOf, createTopics, inputTopics, withAdmin } from './topics.ts';

/** Where the inputs are read from after the reset: an end of the log, or the first record at or after a time, ms since the epoch. */
export type ResetTarget = 'earliest' | 'latest' | { readonly timeMs: number };

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
    if (stateFolder !== undefined) await rm(stateFolder, { recursive: true, force: true });
    const kept = new KeptPlaces(config);
    const places = await kept.keep(await readErasurePlaces(kafka, config.kafka));
    if (changelog !== undefined) {
      await admin.deleteTopics({ topics: [changelog] });
      await gone(admin, changelog);
    }
    // Also where one that was cut short has deleted it.
    if (changelog !== undefined || places.size > 0) await createTopics(kafka, config.kafka);
    await writeErasurePlaces(kafka, config.kafka, places);
    await kept.drop();
    for (const topic of new Set(offsets.map((move) => move.topic)))
      await admin.setOffsets({
        groupId: group,
        topic,
        partitions: offsets
          .filter((move) => move.topic === topic)
          .map(({ partition, to }) => ({ partition, offset: String(to) })),
      });
  });
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

export async function requireInactive(admin: Admin, group: string): Promise<void> {
  const { groups } = await admin.describeGroups([group]);
  const members = groups[0]?.members.length ?? 0;
  if (members > 0)
    throw new PipelineError(
      'CONFIG_INVALID',
      `group ${group} has ${members} member(s): stop every instance first (one that was killed counts until kafka.sessionTimeoutMs has passed)`,
    );
}

/** A deleted topic stays listed for a moment; made again too early, it would be deleted as well. */
async function gone(admin: Admin, topic: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (!(await admin.listTopics()).includes(topic)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new PipelineError('KAFKA_FAILED', `${topic} was deleted and is still listed after 10 s`);
}
