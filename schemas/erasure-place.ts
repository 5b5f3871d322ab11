/**
 * Where an erasure stands among the actions of its partition, as a record of the state.
 *
 * Producers' clocks decide nothing that was decided: whoever reads an erasure first says at which offset of the actions it stands, in the
 * commit that carries it out, and every later reading of the log goes by that (docs/decisions/016-an-erasure-has-one-place.md).
 */
import { RESERVED_KEY_PREFIX, type StateChange } from './state.ts';

export interface ErasurePlace {
  /** Of the erasure's record. */
  readonly offset: number;
  /** Of the erasure's record, ms since the epoch: at the same offset of a topic made anew stands another. */
  readonly timestampMs: number;
  /** The first action that the erasure does not take, an offset of the actions in the same partition. */
  readonly before: number;
}

const PREFIX = Buffer.concat([Uint8Array.of(RESERVED_KEY_PREFIX), Buffer.from('erasure/')]);

/** First and last key that a place can have, in the order of bytes. */
export const PLACE_KEYS = { first: PREFIX, last: Buffer.concat([PREFIX, Buffer.alloc(8, 0xff)]) } as const;

/** Unsigned 64 bits, big end first: the order of bytes is that of offsets. */
export function placeKey(offset: number): Uint8Array {
  const key = Buffer.allocUnsafeSlow(PREFIX.length + 8);
  key.set(PREFIX);
  key.writeBigUInt64BE(BigInt(offset), PREFIX.length);
  return key;
}

export const placeRecord = ({ offset, timestampMs, before }: ErasurePlace): StateChange => ({
  key: placeKey(offset),
  value: Buffer.from(JSON.stringify({ before, timestampMs })),
});

/** The offset of the erasure that a key is of; undefined for every other key. */
export function placedOffset(key: Uint8Array | null | undefined): number | undefined {
  if (key == null || key.length !== PREFIX.length + 8 || !PREFIX.equals(key.subarray(0, PREFIX.length))) return undefined;
  return Number(Buffer.from(key.buffer, key.byteOffset, key.byteLength).readBigUInt64BE(PREFIX.length));
}

/** Undefined for records that say no place, removed ones among them. */
export function decodePlace(key: Uint8Array | null | undefined, value: Uint8Array | null | undefined): ErasurePlace | undefined {
  const offset = placedOffset(key);
  if (offset === undefined || value == null) return undefined;
  const { before, timestampMs } = JSON.parse(Buffer.from(value).toString()) as Omit<ErasurePlace, 'offset'>;
  return { offset, before, timestampMs };
}
