/** How far the sink has come in each topic partition, kept beside the rows themselves. */
import type { ClickHouse } from '../clickhouse.ts';
import { timeText } from '../output-rows.ts';

export interface FeedOffset {
  readonly topic: string;
  readonly partition: number;
  /** Where the next record is to be found. */
  readonly nextOffset: number;
  /** Of the topic that it counts in; absent where that is not known. */
  readonly topicId?: string;
}

/** By `partition/topic`; a topic partition of which nothing was stored is left out. */
export async function readOffsets(clickhouse: ClickHouse, runId: string): Promise<ReadonlyMap<string, FeedOffset>> {
  const rows = await clickhouse.rows<{ topic: string; partition: number; newest: number; id: string }>(
    `SELECT topic, partition, max(next_offset) AS newest, argMax(topic_id, next_offset) AS id
     FROM sink_offsets WHERE run_id = {runId:String} GROUP BY topic, partition`,
    { runId },
  );
  return new Map(
    rows.map(({ topic, partition, newest, id }) => [
      `${partition}/${topic}`,
      { topic, partition, nextOffset: newest, ...(id !== '' && { topicId: id }) },
    ]),
  );
}

export async function writeOffsets(clickhouse: ClickHouse, runId: string, offsets: readonly FeedOffset[]): Promise<void> {
  const now = timeText(Date.now());
  await clickhouse.insert(
    'sink_offsets',
    ['run_id', 'topic', 'partition', 'next_offset', 'updated_at', 'topic_id'],
    offsets.map(({ topic, partition, nextOffset, topicId = '' }) =>
      JSON.stringify([runId, topic, partition, nextOffset, now, topicId]),
    ),
  );
}

export interface FeedHealth extends FeedOffset {
  /** Records of the topic that are not stored. */
  readonly lag: number;
}

/** Tells where the sink stands, for whoever asks ClickHouse. */
export async function writeHealth(
  clickhouse: ClickHouse,
  runId: string,
  instance: string,
  health: readonly FeedHealth[],
): Promise<void> {
  const now = timeText(Date.now());
  await clickhouse.insert(
    'health',
    ['run_id', 'topic', 'partition', 'at', 'next_offset', 'lag', 'instance'],
    health.map(({ topic, partition, nextOffset, lag }) =>
      JSON.stringify([runId, topic, partition, now, nextOffset, lag, instance]),
    ),
  );
}
