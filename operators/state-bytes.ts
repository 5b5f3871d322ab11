/** Bytes of a record: small numbers short, ids against the id before, and a checksum over all of it. */
import * as zlib from 'node:zlib';
import { PipelineError } from '../schemas/errors.ts';
import { describeKey, isWellFormed } from './state-keys.ts';

/** First byte of every record. */
const FORMAT_VERSION = 1;
const CHECKSUM_BYTES = 4;

/** Begins an id that has no UTF-8, written as UTF-16; no UTF-8 contains this byte. */
const UTF16_MARK = 0xff;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});

/** CRC-32 for Node before 20.15, which has none. */
export function tableCrc32(bytes: Uint8Array, value = 0): number {
  let c = ~value;
  for (const byte of bytes) c = CRC_TABLE[(c ^ byte) & 0xff]! ^ (c >>> 8);
  return ~c >>> 0;
}

const crc32: (bytes: Uint8Array, value?: number) => number = zlib.crc32 ?? tableCrc32;

/** Over the key as well: a record under another's key is as wrong as one with other bytes. */
const checksum = (key: Uint8Array, body: Uint8Array): number => crc32(body, crc32(key));

export const corrupted = (key: Uint8Array, what: string, cause?: unknown): PipelineError =>
  new PipelineError('STATE_CORRUPTED', `state record ${describeKey(key)} ${what}`, { cause });

const idBytes = (id: string): Uint8Array =>
  isWellFormed(id) ? Buffer.from(id) : Buffer.concat([Uint8Array.of(UTF16_MARK), Buffer.from(id, 'utf16le')]);

const idText = (bytes: Buffer): string =>
  bytes[0] === UTF16_MARK ? bytes.subarray(1).toString('utf16le') : bytes.toString('utf8');

const NO_BYTES = new Uint8Array(0);

/** Writes one record after another into the same memory. */
export class RecordWriter {
  #bytes = Buffer.allocUnsafeSlow(4096);
  #length = 0;
  #previousId: Uint8Array = NO_BYTES;

  begin(): void {
    this.#bytes[0] = FORMAT_VERSION;
    this.#length = 1;
    this.#previousId = NO_BYTES;
  }

  /** The record; a copy. */
  end(key: Uint8Array): Uint8Array {
    const record = Buffer.allocUnsafeSlow(this.#length + CHECKSUM_BYTES);
    record.set(this.#bytes.subarray(0, this.#length));
    record.writeUInt32LE(checksum(key, record.subarray(0, this.#length)), this.#length);
    return record;
  }

  /** An integer, `0 ≤ value ≤ 2^53`. */
  varint(value: number): void {
    this.#reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#length++] = rest;
  }

  /** An integer, `|value| < 2^52`. */
  signed(value: number): void {
    this.varint(value >= 0 ? 2 * value : -2 * value - 1);
  }

  uint32(value: number): void {
    this.#reserve(4);
    this.#length = this.#bytes.writeUInt32LE(value, this.#length);
  }

  float64(value: number): void {
    this.#reserve(8);
    this.#length = this.#bytes.writeDoubleLE(value, this.#length);
  }

  /** How many bytes it shares with the id before, how many follow, and those. */
  id(id: string): void {
    const bytes = idBytes(id);
    const previous = this.#previousId;
    let shared = 0;
    while (shared < previous.length && shared < bytes.length && previous[shared] === bytes[shared]) shared++;
    this.varint(shared);
    this.varint(bytes.length - shared);
    this.#reserve(bytes.length - shared);
    this.#bytes.set(shared === 0 ? bytes : bytes.subarray(shared), this.#length);
    this.#length += bytes.length - shared;
    this.#previousId = bytes;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(2 * (this.#length + bytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}

/** Reads what a `RecordWriter` wrote. Keeps no view of the record in what it returns. */
export class RecordReader {
  readonly #bytes: Buffer;
  #at = 1;
  #previousId: Buffer = Buffer.alloc(0);

  /**
   * @throws PipelineError `STATE_CORRUPTED` unless these are the bytes that were written under this key
   * @throws PipelineError `STATE_INCOMPATIBLE` if another version of the program wrote them
   */
  constructor(key: Uint8Array, record: Uint8Array) {
    const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
    const end = bytes.length - CHECKSUM_BYTES;
    if (end < 1) throw corrupted(key, `has ${bytes.length} bytes: too few`);
    this.#bytes = bytes.subarray(0, end);
    if (bytes.readUInt32LE(end) !== checksum(key, this.#bytes)) throw corrupted(key, 'does not have the bytes that were written');
    if (bytes[0] !== FORMAT_VERSION)
      throw new PipelineError(
        'STATE_INCOMPATIBLE',
        `state record ${describeKey(key)} has format ${bytes[0]} (readable: ${FORMAT_VERSION}): reset the state, or run the version that wrote it`,
      );
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#bytes.readUInt8(this.#at++);
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 0x80;
    }
  }

  signed(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  uint32(): number {
    this.#at += 4;
    return this.#bytes.readUInt32LE(this.#at - 4);
  }

  float64(): number {
    this.#at += 8;
    return this.#bytes.readDoubleLE(this.#at - 8);
  }

  id(): string {
    const shared = this.varint();
    const length = this.varint();
    const own = this.#bytes.subarray(this.#at, this.#at + length);
    if (own.length < length || shared > this.#previousId.length) throw new RangeError('an id ends outside its record');
    this.#at += length;
    this.#previousId = shared === 0 ? own : Buffer.concat([this.#previousId.subarray(0, shared), own]);
    return idText(this.#previousId);
  }

  /** @throws RangeError unless the record ends here */
  end(): void {
    if (this.#at !== this.#bytes.length) throw new RangeError('a record is longer than what it holds');
  }
}
