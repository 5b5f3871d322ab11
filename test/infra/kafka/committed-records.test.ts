import { describe, expect, it } from 'vitest';
import { committedRecords } from '../../../infra/kafka/committed-records.ts';
import type { RawRecord } from '../../../infra/kafka/kafkajs-internals.ts';

interface Written {
  readonly offset: number;
  readonly producer: number;
  readonly marker?: 'abort' | 'commit';
  readonly key?: Buffer;
  readonly lastOfBatch?: number;
}

const record = ({ offset, producer, marker, key = Buffer.from(`k${offset}`), lastOfBatch = offset }: Written): RawRecord => ({
  offset: String(offset),
  timestamp: '1700000000000',
  key: marker === undefined ? key : Buffer.from([0, 0, 0, marker === 'abort' ? 0 : 1]),
  value: Buffer.from(`v${offset}`),
  headers: {},
  isControlRecord: marker !== undefined,
  batchContext: {
    firstOffset: String(offset),
    lastOffsetDelta: lastOfBatch - offset,
    producerId: String(producer),
    inTransaction: producer > 0,
  },
});

const read = (records: readonly Written[], aborted: readonly { producer: number; first: number }[], from = 0) => {
  const { records: kept, nextOffset } = committedRecords(
    't',
    {
      partition: 0,
      highWatermark: '100',
      lastStableOffset: '100',
      abortedTransactions: aborted.map(({ producer, first }) => ({ producerId: String(producer), firstOffset: String(first) })),
      messages: records.map(record),
    },
    from,
  );
  return { offsets: kept.map(({ position }) => position.offset), nextOffset };
};

describe('committed records', () => {
  it('leave out aborted transactions and markers', () => {
    const log: Written[] = [
      { offset: 0, producer: 1 },
      { offset: 1, producer: 1, marker: 'abort' },
      { offset: 2, producer: 1 },
      { offset: 3, producer: 1, marker: 'commit' },
      { offset: 4, producer: 0 },
    ];
    expect(read(log, [{ producer: 1, first: 0 }])).toEqual({ offsets: [2, 4], nextOffset: 5 });
  });

  it('leave out two aborted transactions that both began before the first record fetched', () => {
    const log: Written[] = [
      { offset: 10, producer: 2 },
      { offset: 11, producer: 1 },
      { offset: 12, producer: 2, marker: 'abort' },
      { offset: 13, producer: 1, marker: 'abort' },
      { offset: 14, producer: 2 },
    ];
    const aborted = [
      { producer: 1, first: 3 },
      { producer: 2, first: 5 },
    ];
    expect(read(log, aborted, 10).offsets).toEqual([14]);
  });

  it('do not end an aborted transaction at a record whose key is four zero bytes', () => {
    const log: Written[] = [
      { offset: 0, producer: 1, key: Buffer.alloc(4) },
      { offset: 1, producer: 1 },
      { offset: 2, producer: 1, marker: 'abort' },
    ];
    expect(read(log, [{ producer: 1, first: 0 }]).offsets).toEqual([]);
  });

  it('begin at the offset asked for, and go on after records that compaction removed', () => {
    expect(
      read(
        [
          { offset: 3, producer: 0 },
          { offset: 5, producer: 0, lastOfBatch: 9 },
        ],
        [],
        4,
      ),
    ).toEqual({
      offsets: [5],
      nextOffset: 10,
    });
  });
});
