/** Record batches as another encoder writes them: kafkajs' own, with what it does not write (markers, gaps) put in behind. */
import { createRequire } from 'node:module';
import type { CompressionTypes } from 'kafkajs';

const require = createRequire(import.meta.url);
type Encoded = { readonly buffer: Buffer };
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0/index.js') as {
  readonly RecordBatch: (batch: Record<string, unknown>) => Promise<Encoded>;
};
const encodeRecord = require('kafkajs/src/protocol/recordBatch/record/v0/index.js') as (
  record: Record<string, unknown>,
) => Encoded;
const crc32C = require('kafkajs/src/protocol/recordBatch/crc32C/index.js') as (bytes: Buffer) => number;

export interface WrittenBatch {
  readonly baseOffset: number;
  /** @default that of the last record */
  readonly lastOffset?: number;
  readonly records: readonly {
    readonly offset: number;
    readonly key: Buffer | null;
    readonly value: Buffer | null;
    readonly timestampMs?: number;
    readonly headers?: Readonly<Record<string, Buffer>>;
  }[];
  /** 0: no transaction. @default 0 */
  readonly producer?: number;
  readonly compression?: CompressionTypes;
  readonly marker?: 'abort' | 'commit';
}

const FIRST_MS = 1_700_000_000_000;

export async function encodeBatch(batch: WrittenBatch): Promise<Buffer> {
  const { baseOffset, records: given, producer = 0, compression = 0, marker } = batch;
  const key = marker === undefined ? undefined : Buffer.from([0, 0, 0, marker === 'abort' ? 0 : 1]);
  const records = key === undefined ? given : [{ offset: baseOffset, key, value: Buffer.alloc(6), timestampMs: FIRST_MS }];
  const lastOffset = batch.lastOffset ?? records.at(-1)?.offset ?? baseOffset;
  const { buffer } = await RecordBatch({
    compression,
    firstOffset: BigInt(baseOffset),
    firstTimestamp: FIRST_MS,
    maxTimestamp: records.reduce((max, { timestampMs = FIRST_MS }) => Math.max(max, timestampMs), FIRST_MS),
    lastOffsetDelta: lastOffset - baseOffset,
    transactional: producer > 0,
    producerId: BigInt(producer === 0 ? -1 : producer),
    records: records.map(({ offset, key: own, value, timestampMs = FIRST_MS, ...more }) =>
      encodeRecord({
        offsetDelta: offset - baseOffset,
        timestampDelta: timestampMs - FIRST_MS,
        key: own,
        value,
        headers: 'headers' in more ? more.headers : {},
      }),
    ),
  });
  const bytes = Buffer.from(buffer);
  if (marker !== undefined) bytes[22]! |= 32;
  return withChecksum(bytes);
}

/** The batch with the checksum of what it holds now. */
export function withChecksum(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32C(bytes.subarray(21)) >>> 0, 17);
  return bytes;
}
