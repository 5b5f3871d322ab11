/** Erases a user from a deployment: asks for it, and sees that it is done. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { readOffsets } from '../../infra/clickhouse/feed/feed-offsets.ts';
import { checkTopics } from '../../infra/kafka/check-topics.ts';
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import { type OffsetRange, readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { committedBy, type RequestedErasure, requestErasure } from '../../infra/kafka/request-erasure.ts';
import { readTopics } from '../../infra/kafka/topics.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { repartitionGroup } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { LiveConfig } from '../require-kafka.ts';

export interface ErasureParts {
  readonly kafka: KafkaClient;
  readonly config: LiveConfig;
  readonly userId: string;
  readonly reason: string | undefined;
  /** Whether a record of `user-actions` is of the user. */
  readonly isOfUser: (record: SourceRecord) => boolean;
  /** Awaited with records before they are looked at. */
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  /** What the sink fills; undefined: there is none. */
  readonly clickhouse: ClickHouse | undefined;
  /** Says what is waited for. */
  readonly say: (text: string) => void;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const POLL_MS = 250;
const LIMITS = { maxBufferedBytes: 4 * 2 ** 20, faults: 'given' } as const;

/** Writes the erasure, to every partition. @returns where it stands */
export async function askForErasure({ kafka, config, userId, reason }: ErasureParts): Promise<readonly RequestedErasure[]> {
  const partitions = checkTopics(await readTopics(kafka, config.kafka), config.kafka);
  return requestErasure(kafka, { topic: config.kafka.topics.erasures, partitions }, { userId, reason });
}

/**
 * Erases, and waits until the stream has done it and the sink, where there is one, too.
 *
 * Actions and erasures come by two topics, in no order: where actions of the user had been written and not been read when the
 * erasure was, the user is erased once more after them.
 *
 * @throws PipelineError `KAFKA_FAILED` when it is not done in time, saying who is waited for; Kafka's; `DOMException`
 *   `AbortError` when aborted: the erasure stands in the topic, and is carried out when it is read
 */
export async function eraseAndWait(parts: ErasureParts): Promise<void> {
  const { kafka, config, say } = parts;
  const { erasures, userActions, userEmbeddings } = config.kafka.topics;
  const group = config.kafka.applicationId;
  await untilRepartitioned(parts);
  const embeddingsBefore = await resolveRanges(kafka, userEmbeddings, () => ({}));
  const read = async (asked: readonly RequestedErasure[]) => {
    for (const { partition, offset } of asked)
      await waitFor(
        parts,
        `group ${group} to read ${erasures}/${partition}`,
        offset + 1,
        committed(parts, group, erasures, partition),
      );
  };
  let asked = await askForErasure(parts);
  say(`asked: ${erasures}, all ${asked.length} partitions`);
  const pending = await lastUnread(parts);
  await read(asked);
  for (const { partition, offset } of pending)
    await waitFor(
      parts,
      `group ${group} to read the user's actions in ${userActions}/${partition}`,
      offset + 1,
      committed(parts, group, userActions, partition),
    );
  if (pending.length > 0) {
    asked = await askForErasure(parts);
    say('asked again, after actions that had not been read');
    await read(asked);
  }
  const { clickhouse } = parts;
  if (clickhouse === undefined || (await readOffsets(clickhouse, group)).size === 0) return;
  const stored = (topic: string, partition: number) => async () =>
    (await readOffsets(clickhouse, group)).get(`${partition}/${topic}`)?.nextOffset ?? 0;
  for (const { partition, offset } of asked)
    await waitFor(parts, `the sink to read ${erasures}/${partition}`, offset + 1, stored(erasures, partition));
  for (const { partition, offset } of await lastTombstones(parts, embeddingsBefore))
    await waitFor(parts, `the sink to read ${userEmbeddings}/${partition}`, offset + 1, stored(userEmbeddings, partition));
}

const committed =
  ({ kafka }: ErasureParts, group: string, topic: string, partition: number) =>
  async () =>
    (await committedBy(kafka, group, [topic])).get(`${partition}/${topic}`) ?? 0;

/** What was written before the erasure is to stand before it: it is on its way to the user's partition. */
async function untilRepartitioned(parts: ErasureParts): Promise<void> {
  const { kafka, config } = parts;
  const { source } = config.kafka.topics;
  if (source === undefined) return;
  const group = repartitionGroup(config.kafka.applicationId);
  for (const { partition, from, to } of await resolveRanges(kafka, source, () => ({})))
    if (to > from)
      await waitFor(parts, `group ${group} to read ${source}/${partition}`, to, committed(parts, group, source, partition));
}

/** By partition, the last action of the user that is written and that the stream has not read. */
async function lastUnread({ kafka, config, isOfUser, prepare, signal }: ErasureParts) {
  const { applicationId, topics } = config.kafka;
  const committed = await committedBy(kafka, applicationId, [topics.userActions]);
  const ranges = (await resolveRanges(kafka, topics.userActions, () => ({}))).map((range) => ({
    ...range,
    from: Math.min(range.to, Math.max(range.from, committed.get(`${range.partition}/${range.topic}`) ?? 0)),
  }));
  const last = new Map<number, number>();
  for await (const records of readRanges(kafka, ranges, LIMITS, signal)) {
    await prepare?.(records);
    for (const record of records) if (isOfUser(record)) last.set(record.position.partition, record.position.offset);
  }
  return [...last].map(([partition, offset]) => ({ partition, offset }));
}

/** What the sink takes the user's embeddings and scores by: those that were written after `before` ended. */
async function lastTombstones(
  { kafka, config, userId, signal }: ErasureParts,
  before: readonly OffsetRange[],
): Promise<readonly { readonly partition: number; readonly offset: number }[]> {
  const ends = new Map(before.map(({ partition, to }) => [partition, to]));
  const now = await resolveRanges(kafka, config.kafka.topics.userEmbeddings, () => ({}));
  const ranges = now.map((range) => ({ ...range, from: Math.max(range.from, ends.get(range.partition) ?? 0) }));
  const last = new Map<number, number>();
  for await (const records of readRanges(kafka, ranges, LIMITS, signal))
    for (const { key, value, position } of records)
      if (value === null && key != null && Buffer.from(key).toString() === userId) last.set(position.partition, position.offset);
  return [...last].map(([partition, offset]) => ({ partition, offset }));
}

async function waitFor(
  { timeoutMs, signal, say }: ErasureParts,
  what: string,
  wanted: number,
  position: () => Promise<number>,
): Promise<void> {
  const began = performance.now();
  let told = -1;
  for (;;) {
    const at = await position();
    if (at >= wanted) return;
    if (at !== told) say(`waiting for ${what}: at ${at}, to ${wanted}`);
    told = at;
    if (performance.now() - began > timeoutMs)
      throw new PipelineError(
        'KAFKA_FAILED',
        `not erased within ${timeoutMs / 1000} s: waited for ${what} up to offset ${wanted}, and it is at ${at}; the erasure stands, and is carried out when it is read (is \`run\`, or \`sink\`, up?)`,
      );
    await sleep(POLL_MS, undefined, { signal });
  }
}
