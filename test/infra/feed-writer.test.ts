import { ClickHouseError } from '@clickhouse/client';
import { describe, expect, it } from 'vitest';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { FeedReader } from '../../infra/clickhouse/feed/feed-rows.ts';
import { FeedWriter, type FeedWriterOptions } from '../../infra/clickhouse/feed/feed-writer.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { parseConfig } from '../../schemas/config.ts';

const codec = new AvroCodec();
const { topics } = parseConfig({ bundle: 'none', kafka: { brokers: ['none:1'] } }, 'this test').kafka!;
const reader = new FeedReader({
  runId: 'run',
  topics,
  codec,
  decoder: createRecordDecoder({ topics, minMs: 0, maxFutureMs: 0 }),
  erasureAction: 'erase',
  embeddingHistoryDays: 1,
});

const event = { eventId: 'e', userId: 'u', action: 'view', entity: 'x', eventTimeMs: 1_000 };
const record = (value: Uint8Array | null, offset = 0, topic = topics.userActions) => ({
  position: { topic, partition: 0, offset },
  key: Buffer.from('u'),
  value,
  timestampMs: 2_000,
});
const taken = (...records: ReturnType<typeof record>[]) => [{ topic: topics.userActions, partition: 0, nextOffset: 9, records }];
const action = record(codec.encode('UserAction', event));

/** What was asked of ClickHouse, in order; `answer` may fail it. */
function world(answer: (what: string, n: number) => void, options: Partial<FeedWriterOptions> = {}) {
  const asked: string[] = [];
  const ask = async (what: string) => {
    asked.push(what);
    answer(what, asked.length);
  };
  const clickhouse: ClickHouse = {
    database: 'd',
    where: 'here',
    enginePid: undefined,
    rows: async <T>() => [] as T[],
    command: (sql) => ask(/^DELETE FROM \w+/.exec(sql)![0]),
    insert: (table, _, rows) => (rows.length === 0 ? Promise.resolve() : ask(`${table} ${rows.length}`)),
    bytes: () => Promise.resolve(new Uint8Array()),
    close: () => Promise.resolve(),
  };
  const writer = new FeedWriter(clickhouse, { runId: 'run', reader, retryDelayMs: 1, ...options });
  return { asked, commit: (signal = new AbortController().signal) => writer.commit(taken(action), signal), writer };
}

const fault = (code: string, message: string) => new ClickHouseError({ code, type: 'X', message });

describe('what was taken is stored', () => {
  it('rows first, offsets last', async () => {
    const { asked, commit } = world(() => undefined);
    expect(await commit()).toMatchObject({ rows: 1, unreadable: 0, erasures: 0 });
    expect(asked).toEqual(['actions 1', 'sink_offsets 1']);
  });

  it('again until ClickHouse takes it, telling when it is away and when it is back', async () => {
    const told: string[] = [];
    const { asked, commit } = world(
      (_, n) => {
        if (n <= 3) throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
      },
      { onAway: (_, attempt) => told.push(`away ${attempt}`), onBack: () => told.push('back') },
    );
    await commit();
    expect(asked).toEqual(['actions 1', 'actions 1', 'actions 1', 'actions 1', 'sink_offsets 1']);
    expect(told).toEqual(['away 1', 'away 2', 'away 3', 'back']);
  });

  it('until it is told to stop: the offsets stay where they were', async () => {
    const stop = new AbortController();
    const { asked, commit } = world((_, n) => {
      if (n === 2) stop.abort();
      throw new Error('socket hang up');
    });
    await expect(commit(stop.signal)).rejects.toMatchObject({ name: 'AbortError' });
    expect(asked).toEqual(['actions 1', 'actions 1']);
  });

  it.each([
    ['243', 'Cannot reserve 1.00 MiB, not enough space'],
    ['75', 'Cannot write to file: , errno: 28, strerror: No space left on device'],
  ])('not when its disk is full (%s): a clear error at once', async (code, message) => {
    const { asked, commit } = world(() => {
      throw fault(code, message);
    });
    await expect(commit()).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: expect.stringMatching(/disk is full: make room.*user-actions\/0 up to 9/),
    });
    expect(asked).toHaveLength(1);
  });

  it('not when its tables are at fault', async () => {
    const { asked, commit } = world(() => {
      throw fault('60', 'UNKNOWN_TABLE');
    });
    await expect(commit()).rejects.toMatchObject({ code: 'STORE_FAILED', message: expect.stringContaining('UNKNOWN_TABLE') });
    expect(asked).toHaveLength(1);
  });
});

describe('records become rows', () => {
  it('and what cannot be read is counted, never an error', () => {
    const garbage = [Buffer.of(0, 1, 2), Buffer.of(7), Buffer.alloc(0), null];
    const all = [topics.userActions, topics.userEmbeddings, topics.candidateScores, topics.deadLetters];
    const rows = reader.read(all.flatMap((topic) => garbage.map((value, i) => record(value, i, topic))));
    // Of them, a tombstone is no fault among scores, and is one thing on the topic of embeddings only.
    expect(rows.unreadable).toBe(14);
    expect(rows.cuts).toHaveLength(1);
    expect(Object.values(rows.tables).flat()).toEqual([]);
  });

  it('an erasure is remembered first, then carried out, then the rest is stored', async () => {
    const { asked, writer } = world(() => undefined);
    const erase = record(codec.encode('UserAction', { ...event, action: 'erase' }), 1);
    await writer.commit(taken(action, erase), new AbortController().signal);
    expect(asked).toEqual(['erasures 1', 'DELETE FROM actions', 'DELETE FROM dead_letters', 'actions 1', 'sink_offsets 1']);
  });
});
