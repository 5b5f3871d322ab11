/** Reads stated ranges of partitions, once, outside any group: what a backfill reads, and what nobody's offsets move by. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { PartitionFetcher } from './partition-fetcher.ts';
import { readTopicMetadata } from './topic-metadata.ts';
import { withAdmin } from './topics.ts';

/** Records `from … to-1` of a partition. */
export interface OffsetRange {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  /** Of the topic; absent where the brokers do not tell. */
  readonly topicId?: string;
}

/** Where a range begins and ends: offsets, or times in ms since the epoch; neither for the log's own ends. */
export interface RangeBounds {
  readonly fromOffset?: number | undefined;
  readonly toOffset?: number | undefined;
  readonly fromTimeMs?: number | undefined;
  readonly toTimeMs?: number | undefined;
}

/**
 * The ranges of all partitions of a topic.
 *
 * @throws PipelineError `CONFIG_INVALID` for an offset that the log does not have, with what it has
 */
export async function resolveRanges(
  kafka: Kafka,
  topic: string,
  boundsOf: (partition: number) => RangeBounds,
): Promise<OffsetRange[]> {
  const topicId = (await readTopicMetadata(kafka, [topic])).get(topic)?.id;
  return withAdmin(kafka, `reading the offsets of ${topic}`, async (admin) => {
    const logs = await admin.fetchTopicOffsets(topic);
    const atTime = async (timeMs: number | undefined, partition: number) => {
      if (timeMs === undefined) return undefined;
      const found = (await admin.fetchTopicOffsetsByTimestamp(topic, timeMs)).find((one) => one.partition === partition);
      return found === undefined || Number(found.offset) < 0 ? undefined : Number(found.offset);
    };
    const ranges: OffsetRange[] = [];
    for (const { partition, low, high } of logs.sort((a, b) => a.partition - b.partition)) {
      const bounds = boundsOf(partition);
      const [first, end] = [Number(low), Number(high)];
      const from =
        bounds.fromOffset ?? (bounds.fromTimeMs === undefined ? first : ((await atTime(bounds.fromTimeMs, partition)) ?? end));
      const to = bounds.toOffset ?? (await atTime(bounds.toTimeMs, partition)) ?? end;
      if (from < first || to > end || from > to)
        throw new PipelineError(
          'CONFIG_INVALID',
          `${topic}/${partition}: the range ${from} to ${to} is not in the log, which holds the offsets ${first} to ${end}`,
        );
      ranges.push({ topic, partition, from, to, ...(topicId !== undefined && { topicId }) });
    }
    return ranges;
  });
}

export interface ReadLimits {
  /** Fetched and not yet given, a partition, bytes. */
  readonly maxBufferedBytes: number;
  /** Largest batch, unpacked, bytes. @default as `PartitionFetcher` */
  readonly maxBatchBytes?: number;
  /** Of a larger batch: a record with its `fault`, for whoever looks at that; or an error. @default 'refused' */
  readonly faults?: 'given' | 'refused';
}

/**
 * The committed records of the ranges, each partition in its order.
 *
 * @throws PipelineError Kafka's; `BATCH_UNREADABLE`; `SOURCE_UNREADABLE` where retention deletes a part of a range before it is read, a
 *   batch is too large, or the topic is made anew under the reading
 */
export async function* readRanges(
  kafka: Kafka,
  ranges: readonly OffsetRange[],
  { maxBufferedBytes, maxBatchBytes, faults = 'refused' }: ReadLimits,
  signal?: AbortSignal,
): AsyncGenerator<readonly SourceRecord[]> {
  let wake: () => void = () => undefined;
  let failure: PipelineError | undefined;
  const fail = (error: PipelineError) => {
    failure ??= error;
    wake();
  };
  const fetcher = new PartitionFetcher(kafka, {
    maxBufferedBytes,
    maxBatchBytes,
    onData: () => wake(),
    onError: fail,
    onStanding: ({ code, reason }) => {
      if (code === 'BATCH_UNREADABLE') fail(new PipelineError(code, reason));
    },
    onSkipped: ({ topic, partition }, from, to) =>
      fail(
        new PipelineError(
          'SOURCE_UNREADABLE',
          `${topic}/${partition}: offsets ${from} to ${to} were deleted while they were to be read`,
        ),
      ),
  });
  const open = ranges.filter(({ from, to }) => from < to);
  const stop = () => wake();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    if (open.length > 0) await fetcher.connect([...new Set(open.map(({ topic }) => topic))]);
    for (const range of open) fetcher.assign(range, range.from);
    while (open.length > 0) {
      if (failure !== undefined) throw failure;
      signal?.throwIfAborted();
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      let taken = false;
      for (const range of [...open]) {
        const { records, nextOffset } = fetcher.take(range, 10_000);
        const wanted = records.filter(({ position }) => position.offset < range.to);
        const refused = faults === 'refused' ? wanted.find(({ fault }) => fault !== undefined) : undefined;
        if (refused !== undefined) throw unusable(refused);
        if (wanted.length > 0) yield wanted;
        taken ||= records.length > 0;
        if (nextOffset < range.to) continue;
        fetcher.unassign(range);
        open.splice(open.indexOf(range), 1);
      }
      if (!taken && open.length > 0) await woken;
    }
    if (ranges.some(({ from, to }) => from < to)) await requireSameTopics(kafka, ranges);
  } finally {
    signal?.removeEventListener('abort', stop);
    await fetcher.close();
  }
}

const unusable = ({ position: { topic, partition }, fault }: SourceRecord): PipelineError =>
  new PipelineError('SOURCE_UNREADABLE', `${topic}/${partition}: ${fault!.message}`);

/** @throws PipelineError `SOURCE_UNREADABLE` where a topic is not the one whose ranges these are */
async function requireSameTopics(kafka: Kafka, ranges: readonly OffsetRange[]): Promise<void> {
  const known = new Map(ranges.flatMap(({ topic, topicId }) => (topicId === undefined ? [] : [[topic, topicId] as const])));
  if (known.size === 0) return;
  const found = await readTopicMetadata(kafka, [...known.keys()]);
  for (const [topic, topicId] of known) {
    const id = found.get(topic)?.id;
    if (id !== topicId)
      throw new PipelineError(
        'SOURCE_UNREADABLE',
        `${topic}: the topic was deleted${id === undefined ? '' : ' and made again'} while it was read (topic id ${topicId} before, ${id ?? 'none'} now): what was read is of both; begin again`,
      );
  }
}
