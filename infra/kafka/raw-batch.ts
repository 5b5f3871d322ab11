/** One record batch as it lies in a log, for whoever has to pass it over. */
import type { Kafka } from 'kafkajs';
import { PipelineError } from '../../schemas/errors.ts';
import { keepCommitted } from './committed-records.ts';
import { kafkaError } from './kafka-errors.ts';
import { type Cluster, openCluster, READ_COMMITTED } from './kafkajs-internals.ts';
import { PartitionBuffer } from './partition-buffer.ts';
import type { TopicPartition } from './partition-fetcher.ts';
import { type FetchedPartition, fetchRaw, protocolError } from './wire/fetch.ts';

/** A batch that cannot be read. */
export interface UnreadableBatch {
  /** All that came of it: as long as its header says, where that can be. */
  readonly bytes: Buffer;
  /** Where the batch behind it begins, by its header; the brokers know a batch there, or the end of the log. */
  readonly nextOffset: number;
  /** Why it cannot be read. */
  readonly reason: string;
}

const LENGTH_AT = 8;
const AFTER_LENGTH = 12;
const LAST_OFFSET_DELTA_AT = 23;
const HEADER_BYTES = 61;
const FETCH_BYTES = 2 ** 18;

/**
 * The batch that a reader from `offset` on meets first.
 *
 * @throws PipelineError Kafka's; `CONFIG_INVALID` where it can be read, or nothing lies there, or its header does not tell where it ends
 */
export async function readUnreadableBatch(
  kafka: Kafka,
  at: TopicPartition,
  offset: number,
  maxBatchBytes: number,
): Promise<UnreadableBatch> {
  const cluster = openCluster(kafka);
  const where = `${at.topic}/${at.partition}`;
  try {
    await cluster.connect();
    await cluster.addMultipleTargetTopics([at.topic]);
    const found = await fetchAt(cluster, at, offset);
    if (found.records.length === 0)
      throw refusal(`${where}: nothing lies at offset ${offset}, the log ends at ${found.highWatermark}`);
    const buffer = new PartitionBuffer(at.topic, at.partition, offset);
    const fault = await keepCommitted(buffer, found, maxBatchBytes);
    if (buffer.position > offset || fault === undefined)
      throw refusal(`${where}: what lies at offset ${offset} can be read, up to ${buffer.position}: there is nothing to skip`);
    const bytes = wholeOf(found.records);
    const baseOffset = Number(bytes.readBigInt64BE(0));
    const nextOffset = baseOffset + bytes.readInt32BE(LAST_OFFSET_DELTA_AT) + 1;
    await requireBoundary(cluster, at, offset, nextOffset, found.highWatermark);
    return { bytes, nextOffset, reason: fault.message };
  } catch (thrown) {
    throw kafkaError(thrown, `reading ${where} at offset ${offset}`);
  } finally {
    await cluster.disconnect().catch(() => undefined);
  }
}

/** What the brokers send from the header's end on is another batch, or nothing: else the header lies. */
async function requireBoundary(
  cluster: Cluster,
  at: TopicPartition,
  offset: number,
  nextOffset: number,
  highWatermark: number,
): Promise<void> {
  const isWithin = nextOffset > offset && nextOffset <= highWatermark;
  const behind = isWithin ? await fetchAt(cluster, at, nextOffset) : undefined;
  if (behind !== undefined && (behind.records.length < HEADER_BYTES || Number(behind.records.readBigInt64BE(0)) >= nextOffset))
    return;
  throw refusal(
    `${at.topic}/${at.partition}: the header of the batch at offset ${offset} says that the next begins at ${nextOffset}, where none does ` +
      `(the log ends at ${highWatermark}): where to go on has to be told by hand, hstu-streams reset --to-datetime TIME`,
  );
}

function wholeOf(records: Buffer): Buffer {
  if (records.length < HEADER_BYTES) throw refusal(`of the batch ${records.length} bytes came, which is no header`);
  const end = AFTER_LENGTH + records.readInt32BE(LENGTH_AT);
  return end >= HEADER_BYTES && end <= records.length ? records.subarray(0, end) : records;
}

async function fetchAt(cluster: Cluster, { topic, partition }: TopicPartition, offset: number): Promise<FetchedPartition> {
  const leader = Object.keys(cluster.findLeaderForPartitions(topic, [partition]))[0];
  if (leader === undefined) throw new PipelineError('KAFKA_FAILED', `${topic}/${partition} has no leader`);
  const broker = await cluster.findBroker({ nodeId: leader });
  const [answer] = await fetchRaw(broker, {
    isolationLevel: READ_COMMITTED,
    maxWaitTime: 500,
    minBytes: 1,
    maxBytes: FETCH_BYTES,
    topics: [{ topic, partitions: [{ partition, fetchOffset: String(offset), maxBytes: FETCH_BYTES }] }],
  });
  if (answer!.errorCode !== 0) throw protocolError(answer!.errorCode);
  return answer!;
}

const refusal = (message: string): PipelineError => new PipelineError('CONFIG_INVALID', message);
