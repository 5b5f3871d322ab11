/** Passes over one record batch that cannot be read: into the dead letters, and on, in one transaction. */
import { createHash } from 'node:crypto';
import { requireInactive } from '../infra/kafka/change-topics.ts';
import { deadLetterRecord } from '../infra/kafka/dead-letter-records.ts';
import type { KafkaClient } from '../infra/kafka/kafka-client.ts';
import { type OutgoingRecord, PartitionProducer, roomOf } from '../infra/kafka/partition-producer.ts';
import { readRanges, resolveRanges } from '../infra/kafka/range-reader.ts';
import { readUnreadableBatch, type UnreadableBatch } from '../infra/kafka/raw-batch.ts';
import { committedBy } from '../infra/kafka/request-erasure.ts';
import { changelogOf, inputTopics, readTopics, withAdmin } from '../infra/kafka/topics.ts';
import type { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { repartitionGroup } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';
import { decodePosition, encodePosition, isPosition, POSITION_KEY } from '../schemas/position-record.ts';
import type { StatePosition } from '../schemas/state.ts';
import type { LiveConfig } from './require-kafka.ts';

export interface SkipRequest {
  readonly topic: string;
  readonly partition: number;
  /** Where the partition stands. */
  readonly offset: number;
}

export interface SkipPlan extends SkipRequest, UnreadableBatch {
  /** Of the batch, SHA-256 in hexadecimal. */
  readonly digest: string;
  /** Of the state; undefined for the source of a repartitioning, which has none: where that stands its group says. */
  readonly position: StatePosition | undefined;
}

/**
 * What a skip would do. Nothing that can be read is passed over.
 *
 * @throws PipelineError `CONFIG_INVALID` while an instance runs; for another topic, or another offset than where the state stands; as
 *   `readUnreadableBatch`
 */
export async function planSkip(
  kafka: KafkaClient,
  config: LiveConfig,
  { topic, partition, offset }: SkipRequest,
): Promise<SkipPlan> {
  const { source } = config.kafka.topics;
  const topics = [...(source === undefined ? [] : [source]), ...inputTopics(config.kafka)];
  if (!topics.includes(topic))
    throw new PipelineError('CONFIG_INVALID', `--topic ${topic}: expected an input of the deployment: ${topics.join(', ')}`);
  await withAdmin(kafka, 'looking for running instances', (admin) => requireInactive(admin, config.kafka.applicationId));
  const position = topic === source ? undefined : await positionOf(kafka, config, partition);
  const stands = topic === source ? await repartitionedTo(kafka, config, partition) : position?.inputs[topic];
  if (stands === undefined)
    throw new PipelineError(
      'CONFIG_INVALID',
      `${topic === source ? `group ${groupOf(config).applicationId}` : `${changelogOf(config.kafka)}/${partition}`} holds no position of ${topic}: nothing was committed there yet, and where it begins is set by hstu-streams reset --to-datetime TIME`,
    );
  if (stands !== offset)
    throw new PipelineError(
      'CONFIG_INVALID',
      `--offset ${offset}: ${topic}/${partition} stands at offset ${stands}, and only what lies there is skipped`,
    );
  const batch = await readUnreadableBatch(kafka, { topic, partition }, offset, config.kafka.maxBatchBytes);
  const digest = createHash('sha256').update(batch.bytes).digest('hex');
  return { topic, partition, offset, position, digest, ...batch };
}

/** The dead letter, the state's position where there is one, and the group's offset, in one transaction of the partition's only producer. */
export async function executeSkip(kafka: KafkaClient, config: LiveConfig, codec: AvroCodec, plan: SkipPlan): Promise<void> {
  const { topic, partition, offset, nextOffset, bytes, reason, digest, position } = plan;
  const { deadLetters } = config.kafka.topics;
  const states = await readTopics(kafka, config.kafka);
  const maxBytes = new Map(
    states.flatMap(({ name, maxMessageBytes }) => (maxMessageBytes === undefined ? [] : [[name, maxMessageBytes] as const])),
  );
  const owner = position === undefined ? groupOf(config) : config.kafka;
  const producer = new PartitionProducer(kafka, owner, partition, maxBytes);
  try {
    await producer.open();
    // Whoever was fenced just now may have committed before that.
    const now = position === undefined ? undefined : await positionOf(kafka, config, partition);
    const stands = position === undefined ? await repartitionedTo(kafka, config, partition) : now?.inputs[topic];
    if (now?.stateId !== position?.stateId || stands !== offset)
      throw new PipelineError('CONFIG_INVALID', `${topic}/${partition} stands at ${stands} now: look again`);
    const message = `${bytes.length} bytes with SHA-256 ${digest}, passed over up to offset ${nextOffset}: ${reason}`;
    const letter = {
      position: { topic, partition, offset },
      code: 'BATCH_UNREADABLE',
      step: 'fetch',
      message,
      original: bytes,
    } as const;
    const place = partition % (states.find(({ role }) => role === 'deadLetters')?.partitions ?? 1);
    const letterRecord = { ...deadLetterRecord(codec, letter, roomOf(maxBytes.get(deadLetters))), partition: place };
    const moved = now && { ...now, inputs: { ...now.inputs, [topic]: nextOffset } };
    await producer.commit({
      records: new Map<string, readonly OutgoingRecord[]>([
        [deadLetters, [letterRecord]],
        ...(moved === undefined
          ? []
          : [[changelogOf(config.kafka), [{ key: POSITION_KEY, value: encodePosition(moved) }]] as const]),
      ]),
      inputs: { [topic]: nextOffset },
    });
  } finally {
    await producer.close();
  }
}

/** Of the repartitioning. */
const groupOf = ({ kafka }: LiveConfig) => ({ ...kafka, applicationId: repartitionGroup(kafka.applicationId) });

async function repartitionedTo(kafka: KafkaClient, config: LiveConfig, partition: number): Promise<number | undefined> {
  const { source } = config.kafka.topics;
  return (await committedBy(kafka, groupOf(config).applicationId, [source!])).get(`${partition}/${source}`);
}

/** The last of the changelog. */
async function positionOf(
  kafka: KafkaClient,
  { kafka: config }: LiveConfig,
  partition: number,
): Promise<StatePosition | undefined> {
  const changelog = changelogOf(config);
  const ranges = (await resolveRanges(kafka, changelog, () => ({}))).filter((range) => range.partition === partition);
  if (ranges.length === 0)
    throw new PipelineError('CONFIG_INVALID', `--partition ${partition}: ${changelog} has no such partition`);
  let position: StatePosition | undefined;
  for await (const records of readRanges(kafka, ranges, config))
    for (const { key, value } of records)
      if (key != null && value !== null && isPosition(key))
        position = decodePosition(value as Uint8Array, `partition ${partition}`);
  return position;
}
