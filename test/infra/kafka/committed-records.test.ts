import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { CompressionCodecs, CompressionTypes } from 'kafkajs';
import { compressFrameSync } from 'lz4-napi';
import { describe, expect, it } from 'vitest';
import { keepCommitted } from '../../../infra/kafka/committed-records.ts';
import { registerCodecs } from '../../../infra/kafka/compression.ts';
import { PartitionBuffer } from '../../../infra/kafka/partition-buffer.ts';
import { CODECS, unpack } from '../../../infra/kafka/wire/codecs.ts';
import { crc32c } from '../../../infra/kafka/wire/crc32c.ts';
import { encodeBatch, type WrittenBatch, withChecksum } from '../../support/record-batches.ts';

const MIB = 2 ** 20;
const one = (offset: number, producer = 0, key = Buffer.from(`k${offset}`)): WrittenBatch => ({
  baseOffset: offset,
  producer,
  records: [{ offset, key, value: Buffer.from(`v${offset}`) }],
});
const marker = (offset: number, producer: number, of: 'abort' | 'commit'): WrittenBatch => ({
  baseOffset: offset,
  producer,
  marker: of,
  records: [],
});

async function keep(set: Buffer, { from = 0, aborted = [] as { producer: number; first: number }[], maxBatchBytes = MIB } = {}) {
  const buffer = new PartitionBuffer('t', 0, from);
  const abortedTransactions = aborted.map(({ producer, first }) => ({ producerId: String(producer), firstOffset: first }));
  const fault = await keepCommitted(buffer, { records: set, abortedTransactions, highWatermark: 10_000_000 }, maxBatchBytes);
  return { buffer, fault };
}

async function read(log: readonly WrittenBatch[], aborted: { producer: number; first: number }[] = [], from = 0) {
  const set = Buffer.concat(await Promise.all(log.map(encodeBatch)));
  const { buffer, fault } = await keep(set, { aborted, from });
  expect(fault).toBeUndefined();
  const nextOffset = buffer.position;
  return { offsets: buffer.take(1_000, Number.POSITIVE_INFINITY).map(({ position }) => position.offset), nextOffset };
}

registerCodecs();

describe('committed records', () => {
  it('leave out aborted transactions and markers', async () => {
    const log = [one(0, 1), marker(1, 1, 'abort'), one(2, 1), marker(3, 1, 'commit'), one(4)];
    expect(await read(log, [{ producer: 1, first: 0 }])).toEqual({ offsets: [2, 4], nextOffset: 5 });
  });

  it('leave out two aborted transactions that both began before the first record fetched', async () => {
    const log = [one(10, 2), one(11, 1), marker(12, 2, 'abort'), marker(13, 1, 'abort'), one(14, 2)];
    const aborted = [
      { producer: 1, first: 3 },
      { producer: 2, first: 5 },
    ];
    expect((await read(log, aborted, 10)).offsets).toEqual([14]);
  });

  it('do not end an aborted transaction at a record whose key is four zero bytes', async () => {
    const log = [one(0, 1, Buffer.alloc(4)), one(1, 1), marker(2, 1, 'abort')];
    expect((await read(log, [{ producer: 1, first: 0 }])).offsets).toEqual([]);
  });

  it('begin at the offset asked for, within a batch too, and go on after records that compaction removed', async () => {
    const three = [3, 4, 5].map((offset) => ({ offset, key: null, value: null }));
    const log = [
      { baseOffset: 3, records: three },
      { ...one(7), lastOffset: 9 },
      { baseOffset: 10, lastOffset: 12, records: [] },
    ];
    expect(await read(log, [], 4)).toEqual({ offsets: [4, 5, 7], nextOffset: 13 });
  });
});

describe('a batch', () => {
  const records = fc.array(
    fc.record({
      key: fc.option(fc.uint8Array({ maxLength: 20 })),
      value: fc.option(fc.uint8Array({ maxLength: 400 })),
      timestampMs: fc.integer({ min: 0, max: 2 ** 42 }),
      gap: fc.integer({ min: 1, max: 3 }),
    }),
    { minLength: 1, maxLength: 40 },
  );

  it.each(CODECS)('is read as another encoder wrote it: %s', async (codec) => {
    await fc.assert(
      fc.asyncProperty(records, fc.integer({ min: 0, max: 2 ** 40 }), async (given, baseOffset) => {
        let offset = baseOffset - 1;
        const written = given.map(({ key, value, timestampMs, gap }) => {
          offset += gap;
          const bytes = (of: Uint8Array | null) => (of === null ? null : Buffer.from(of));
          return { offset, key: bytes(key), value: bytes(value), timestampMs, headers: { h: Buffer.from('x') } };
        });
        const compression = CODECS.indexOf(codec) as CompressionTypes;
        const set = await encodeBatch({ baseOffset, records: written, compression });
        const buffer = new PartitionBuffer('t', 3, baseOffset);
        const fetched = { records: set, abortedTransactions: [], highWatermark: Number.MAX_SAFE_INTEGER };
        expect(await keepCommitted(buffer, fetched, MIB)).toBeUndefined();
        expect(buffer.position).toBe(offset + 1);
        const taken = buffer.take(1_000, Number.POSITIVE_INFINITY);
        expect(taken).toEqual(
          written.map(({ headers: _, offset: at, ...record }) => ({
            ...record,
            position: { topic: 't', partition: 3, offset: at },
          })),
        );
        expect(buffer.bytes).toBe(0);
      }),
      { numRuns: 30 },
    );
  });

  it('of which a bit was changed is a fault, wherever the checksum or the format can tell', async () => {
    const good = await encodeBatch({ ...one(5), records: [...one(5).records, ...one(6).records] });
    const follows = await encodeBatch(one(7));
    for (let bit = 0; bit < 8 * good.length; bit++) {
      // The broker sets offset and leader epoch: they are in no checksum, Java's client takes them as they come.
      if (bit < 64 || (bit >= 96 && bit < 128)) continue;
      const set = Buffer.concat([good, follows]);
      set[bit >> 3]! ^= 1 << (bit & 7);
      const { buffer, fault } = await keep(set, { from: 5 });
      // A length that was made longer than the answer is a batch that was cut off: nothing is given.
      expect(buffer.count, `bit ${bit}`).toBe(0);
      expect(buffer.position).toBe(5);
      if (fault !== undefined) expect(fault).toMatchObject({ code: 'BATCH_UNREADABLE', retriable: true });
      else expect(bit).toBeGreaterThanOrEqual(64);
    }
  });

  it('that is cut off is left for the next fetch; what came before it is given', async () => {
    const set = Buffer.concat([await encodeBatch(one(0)), await encodeBatch(one(1))]);
    const half = set.length / 2;
    for (let end = 0; end <= set.length; end++) {
      const { buffer, fault } = await keep(set.subarray(0, end));
      expect(fault).toBeUndefined();
      expect(buffer.position).toBe(end < half ? 0 : end < set.length ? 1 : 2);
    }
  });

  it('of random bytes is a fault or nothing, at once, and never a record', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: -1, max: 2 }), async (bytes, magic) => {
        const set = Buffer.from(bytes);
        if (magic >= 0 && set.length > 16) set[16] = magic;
        const { buffer } = await keep(set);
        expect(buffer.count).toBe(0);
      }),
    );
  });

  it('whose checksum is right and whose records are not, is malformed: nothing of it is given', async () => {
    const good = await encodeBatch({
      baseOffset: 0,
      records: [0, 1, 2].map((offset) => ({ offset, key: null, value: Buffer.alloc(9) })),
    });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 57, max: good.length - 1 }), fc.integer({ min: 0, max: 255 }), async (at, byte) => {
        const set = Buffer.from(good);
        set[at] = byte;
        const { buffer, fault } = await keep(withChecksum(set));
        if (fault === undefined) expect(buffer.position).toBe(3);
        else expect([buffer.count, buffer.position]).toEqual([0, 0]);
      }),
      { numRuns: 300 },
    );
    const { fault } = await keep(withChecksum(Buffer.concat([good.subarray(0, 61), randomBytes(good.length - 61)])));
    expect(fault?.message).toMatch(/^t\/0: the batch at offset 0 cannot be read: record \d of 3 has /);
  });

  it('of an older format says so', async () => {
    const old = Buffer.alloc(40);
    old[16] = 1;
    expect((await keep(old)).fault?.message).toMatch(/a batch of format 1, of before Kafka 0\.11/);
  });

  it('of hundreds of thousands of records is given a part at a time, and takes no more memory than its bytes meanwhile', async () => {
    const count = 300_000;
    const records = Array.from({ length: count }, (_, offset) => ({ offset, key: null, value: Buffer.from('{}') }));
    const set = await encodeBatch({ baseOffset: 0, records, compression: CompressionTypes.GZIP });
    const { buffer, fault } = await keep(set, { maxBatchBytes: 8 * MIB });
    expect(fault).toBeUndefined();
    expect(buffer.count).toBe(count);
    expect(buffer.bytes).toBeLessThan(8 * MIB);
    expect(buffer.isMade).toBe(false);
    expect(buffer.records.length).toBeLessThan(10_000);
    let next = 0;
    while (buffer.count > 0)
      for (const { position } of buffer.take(10_000, Number.POSITIVE_INFINITY)) expect(position.offset === next++).toBe(true);
    expect(next).toBe(count);
    expect(buffer.bytes).toBe(0);
  });

  it.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'that unpacks to more than is allowed leaves a record that says so: %s',
    async (codec) => {
      const compression = CODECS.indexOf(codec) as CompressionTypes;
      const bomb = {
        baseOffset: 4,
        compression,
        records: [{ offset: 4, key: null, value: Buffer.alloc(3 * MIB, ' ') }],
        lastOffset: 6,
      };
      const set = Buffer.concat([await encodeBatch(one(3)), await encodeBatch(bomb), await encodeBatch(one(7))]);
      const { buffer, fault } = await keep(set, { from: 3 });
      expect(fault).toBeUndefined();
      const [before, said, after] = buffer.take(10, Number.POSITIVE_INFINITY);
      expect([before!.position.offset, after!.position.offset, buffer.position]).toEqual([3, 7, 8]);
      expect(said).toMatchObject({ position: { offset: 4 }, value: null, fault: { code: 'RECORD_TOO_LARGE' } });
      expect(said!.fault!.message).toMatch(
        /^the batch of offsets 4 to 6, \d+ bytes with SHA-256 [0-9a-f]{64}: .*kafka\.maxBatchBytes allows 1048576$/,
      );
    },
  );
});

const zstd = CompressionCodecs[CompressionTypes.ZSTD] as () => { compress(of: { buffer: Buffer }): Promise<Buffer> };

describe('what a batch unpacks to', () => {
  const PACKED = {
    gzip: async (bytes: Buffer) => gzipSync(bytes),
    lz4: async (bytes: Buffer) => compressFrameSync(bytes),
    zstd: (bytes: Buffer) => zstd().compress({ buffer: bytes }),
  };

  it.each(['gzip', 'lz4', 'zstd'] as const)('is bounded to the byte: %s', async (codec) => {
    const bytes = Buffer.concat([Buffer.alloc(300_000, 'ab'), randomBytes(200_000)]);
    const packed = await PACKED[codec](bytes);
    expect((await unpack(codec, packed, bytes.length)).equals(bytes)).toBe(true);
    await expect(unpack(codec, packed, bytes.length - 1)).rejects.toMatchObject({ kind: 'too-large' });
  });

  it.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'of bytes that are none of it is malformed or too large, and the next is read all the same: %s',
    async (codec) => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
          await unpack(codec, Buffer.from(bytes), 10_000).then(
            (unpacked) => expect(unpacked.length).toBeLessThanOrEqual(10_000),
            (fault) => expect(fault).toMatchObject({ name: 'BatchFault' }),
          );
        }),
      );
      if (codec !== 'snappy')
        expect((await unpack(codec, await PACKED[codec](Buffer.from('well')), 100)).toString()).toBe('well');
    },
  );

  it('snappy says its length first: a lie is found before there is room for it', async () => {
    const lie = Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
    await expect(unpack('snappy', lie, MIB)).rejects.toMatchObject({ kind: 'too-large' });
  });
});

it('CRC-32C is that of RFC 3720', () => {
  // Appendix B.4.
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i)))).toBe(0x46dd794e);
  expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i)))).toBe(0x113fdb5c);
});
