/** Some MovieLens users, replayed, and the same again as a live run: what the named queries are asked about, and its rows as they are. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { storeEntityVectors } from '../../infra/clickhouse/entity-vectors.ts';
import { FeedReader } from '../../infra/clickhouse/feed/feed-rows.ts';
import { FeedWriter } from '../../infra/clickhouse/feed/feed-writer.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { parseConfig } from '../../schemas/config.ts';
import { entityVectorsOf } from '../../streams/entity-vectors-of.ts';
import { loadConfig } from '../../streams/load-config.ts';
import { replay } from '../../streams/replay.ts';
import { embeddedIn } from './clickhouse-store.ts';

/** Who came back on many days. */
const USERS = ['115', '29', '491'];
export const LIVE = 'live';

export interface Event {
  readonly userId: string;
  readonly eventId: string;
  readonly action: string;
  readonly entity: string;
  readonly atMs: number;
  readonly partition: number;
  readonly offset: number;
  readonly disposition: 'appended' | 'inserted' | 'late' | 'duplicate';
  readonly publishedMs: number;
  /** Undefined for a user's first. */
  readonly rank: number | undefined;
  readonly priorEvents: number;
}

export interface Published {
  readonly userId: string;
  readonly version: number;
  readonly embedding: readonly number[];
  readonly atMs: number;
  readonly publishedMs: number;
  readonly latencyMs: number;
  readonly rowsComputed: number;
  readonly outcome: string;
  readonly partition: number;
  readonly entities: readonly string[];
}

export interface QueryWorld {
  readonly clickhouse: ClickHouse;
  readonly bundle: Bundle;
  readonly events: readonly Event[];
  readonly published: readonly Published[];
  /** Gives records to the live run. */
  readonly feed: (records: readonly SourceRecord[]) => Promise<void>;
  readonly close: () => Promise<void>;
}

type Row = Readonly<Record<string, never>>;
const msOf = (text: string): number => Date.parse(`${text.replace(' ', 'T')}Z`);

export async function queryWorld(): Promise<QueryWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-queries-'));
  const config = await loadConfig({ file: 'examples/movielens/replay.yaml' });
  const [ratings] = config.source!.files;
  const [head, ...lines] = (await readFile(ratings!.path, 'utf8')).split('\n');
  const path = join(folder, 'ratings.csv');
  await writeFile(path, [head, ...lines.filter((line) => USERS.includes(line.split(',')[0]!))].join('\n'));
  const { clickhouse, bundle, runId } = await replay({
    config: {
      ...config,
      source: { ...config.source!, files: [{ ...ratings!, path }] },
      clickhouse: embeddedIn(join(folder, 'store')),
    },
  });
  await storeEntityVectors(clickhouse, entityVectorsOf(bundle));
  const rowsOf = (table: string) =>
    clickhouse.rows<Row>(`SELECT * FROM ${table} FINAL WHERE run_id = {runId:String} ORDER BY topic, partition, offset`, {
      runId,
    });
  const [actions, embeddings, scores, quality] = await Promise.all(['actions', 'embeddings', 'scores', 'quality'].map(rowsOf));
  const rankOf = new Map(quality!.map((row) => [row['offset'], row]));
  const partitionOf = (userId: string) => USERS.indexOf(userId) % 2;
  const publishedMs = (atMs: number, offset: number) => atMs + 30 + ((offset * 17) % 400);

  const events = actions!.map((row, n): Event => {
    const { user_id: userId, offset } = row as unknown as { user_id: string; offset: number };
    const ranked = rankOf.get(offset as never);
    const atMs = msOf(row['event_time']!);
    return {
      userId,
      eventId: row['event_id']!,
      action: row['action']!,
      entity: row['entity']!,
      atMs,
      partition: partitionOf(userId),
      offset,
      // MovieLens has neither; a live stream would.
      disposition: n % 13 === 5 ? 'duplicate' : n % 17 === 3 ? 'late' : n % 11 === 2 ? 'inserted' : 'appended',
      publishedMs: publishedMs(atMs, offset),
      rank: ranked?.['rank'],
      priorEvents: ranked?.['prior_events'] ?? 0,
    };
  });
  const published = embeddings!.map((row, i): Published => {
    const atMs = msOf(row['last_event_time']!);
    return {
      userId: row['user_id']!,
      version: row['version']!,
      embedding: row['embedding']!,
      atMs,
      publishedMs: publishedMs(atMs, row['offset']!),
      latencyMs: 1 + (i % 37),
      rowsComputed: row['rows_computed']!,
      outcome: row['outcome']!,
      partition: partitionOf(row['user_id']!),
      entities: scores![i]!['entities']!,
    };
  });

  const codec = new AvroCodec();
  const { kafka } = parseConfig(
    { bundle: 'none', kafka: { brokers: ['none:1'], topics: { actionOutcomes: 'outcomes' } } },
    'this test',
  );
  const { topics } = kafka!;
  const reader = new FeedReader({
    runId: LIVE,
    topics,
    codec,
    decoder: createRecordDecoder({ topics, minMs: 0, maxFutureMs: 0 }),
    erasureAction: 'erase',
    embeddingHistoryDays: 36_500,
  });
  const writer = new FeedWriter(clickhouse, { runId: LIVE, reader });
  const feed = async (records: readonly SourceRecord[]) => {
    await writer.commit([{ topic: 'all', partition: 0, nextOffset: records.length, records }], new AbortController().signal);
  };
  const modelDigest = bundle.digest;
  const sequenceDigest = '0123456789abcdef';
  const record = (
    topic: string,
    { partition, offset }: { partition: number; offset: number },
    value: Uint8Array,
    timestampMs: number,
  ) => ({
    position: { topic, partition, offset },
    key: null,
    value,
    timestampMs,
  });
  await feed(
    events.flatMap((event) => {
      const { userId, eventId, action, entity, atMs: eventTimeMs, disposition, rank, priorEvents } = event;
      const position = { topic: topics.userActions, partition: event.partition, offset: event.offset };
      const ranked = rank === undefined ? {} : { ranked: { rank, priorEvents, sequenceDigest, modelDigest } };
      const user = { userId, eventId, action, entity, eventTimeMs };
      return [
        record(topics.userActions, event, codec.encode('UserAction', user), event.atMs),
        record(
          topics.actionOutcomes!,
          event,
          codec.encode('ActionOutcome', { ...user, disposition, position, ...ranked }),
          event.publishedMs,
        ),
      ];
    }),
  );
  await feed(
    published.flatMap((one, i) => {
      const offset: number = embeddings![i]!['offset']!;
      const { userId, version, atMs, latencyMs, rowsComputed, partition } = one;
      const lineage = { topic: topics.userActions, partition, offset, sequenceDigest, modelDigest };
      const candidates = one.entities.map((entity, k) => ({ entity, score: -k }));
      const embedding = {
        userId,
        version,
        embedding: Float32Array.from(one.embedding),
        sequenceLength: embeddings![i]!['sequence_length']!,
        lastEventTimeMs: atMs,
        queryTimeMs: atMs,
        lineage,
        computedAtMs: one.publishedMs,
        latencyMs,
        rowsComputed,
        outcome: one.outcome as 'hit',
      };
      const best = codec.encode('CandidateScores', { userId, version, candidates, lineage, computedAtMs: one.publishedMs });
      return [
        record(topics.userEmbeddings, { partition, offset }, codec.encode('UserEmbedding', embedding), one.publishedMs),
        record(topics.candidateScores, { partition, offset }, best, one.publishedMs),
      ];
    }),
  );
  return {
    clickhouse,
    bundle,
    events,
    published,
    feed,
    close: async () => {
      await clickhouse.close();
      await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    },
  };
}
