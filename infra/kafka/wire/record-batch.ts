/**
 * Record batches, message format v2: the header with its checksum, and the records of a batch one after another.
 *
 * Format: kafka.apache.org/documentation, "Record Batch".
 */
import { BatchFault } from './batch-fault.ts';
import { CODECS, type Codec } from './codecs.ts';
import { crc32c } from './crc32c.ts';

/** Before the first record. */
const HEADER_BYTES = 61;
/** Offset and length, which `length` does not count. */
const LENGTH_FROM = 12;
const MAGIC_AT = 16;
const CRC_AT = 17;
const ATTRIBUTES_AT = 21;
const MAGIC = 2;

export interface BatchHeader {
  readonly baseOffset: number;
  /** Where the next batch begins: compacted records and markers count. */
  readonly nextOffset: number;
  readonly codec: Codec;
  readonly isTransactional: boolean;
  readonly isControl: boolean;
  /** As Kafka's answers name it: a decimal number. */
  readonly producerId: string;
  readonly baseTimestampMs: number;
  /** Of every record, where the broker sets the time; else each has its own. */
  readonly appendTimeMs: number | undefined;
  readonly count: number;
}

/** A batch as it was sent. */
export interface RawBatch {
  readonly header: BatchHeader;
  /** All of it, for whoever keeps or names it. */
  readonly bytes: Buffer;
  /** Its records, as the codec packed them. */
  readonly records: Buffer;
}

/** One record; bytes are views of the batch's. */
export interface WireRecord {
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

/** Where a batch that cannot be used begins and ends, as far as its header can be trusted. */
export interface BatchPlace {
  readonly baseOffset: number;
  readonly nextOffset: number;
}

/**
 * The next batch of a record set.
 *
 * @returns undefined where no whole batch is left: a broker cuts off what does not fit into its answer
 * @throws BatchFault `corrupted` for a checksum that differs or a length that cannot be; `unsupported` for an older format
 */
export function readBatch(set: Buffer, at: number): RawBatch | undefined {
  if (set.length - at < HEADER_BYTES) {
    // Of what is shorter than a header, the format stands where it always stands.
    if (set.length - at > MAGIC_AT && set[at + MAGIC_AT]! < MAGIC) throw oldFormat(set[at + MAGIC_AT]!);
    return undefined;
  }
  const magic = set[at + MAGIC_AT]!;
  if (magic < MAGIC) throw oldFormat(magic);
  if (magic > MAGIC) throw new BatchFault('corrupted', `a batch of format ${magic}; there are 0 to 2`);
  const length = set.readInt32BE(at + 8);
  const end = at + LENGTH_FROM + length;
  if (length < HEADER_BYTES - LENGTH_FROM) throw new BatchFault('corrupted', `a batch of ${length} bytes`);
  if (end > set.length) return undefined;
  const bytes = set.subarray(at, end);
  const [said, found] = [bytes.readUInt32BE(CRC_AT), crc32c(bytes.subarray(ATTRIBUTES_AT))];
  if (said !== found) throw new BatchFault('corrupted', `its CRC-32C is ${hex(found)}, and the batch says ${hex(said)}`);
  const attributes = bytes.readInt16BE(ATTRIBUTES_AT);
  const codec = CODECS[attributes & 7];
  if (codec === undefined)
    throw new BatchFault('unsupported', `its codec is number ${attributes & 7}; known are ${CODECS.join(', ')}`);
  const baseOffset = longAt(bytes, 0);
  const maxTimestampMs = longAt(bytes, 35);
  const count = bytes.readInt32BE(57);
  if (count < 0) throw new BatchFault('malformed', `a batch of ${count} records`);
  const header: BatchHeader = {
    baseOffset,
    nextOffset: baseOffset + bytes.readInt32BE(23) + 1,
    codec,
    isTransactional: (attributes & 16) !== 0,
    isControl: (attributes & 32) !== 0,
    producerId: String(bytes.readBigInt64BE(43)),
    baseTimestampMs: longAt(bytes, 27),
    appendTimeMs: attributes & 8 ? maxTimestampMs : undefined,
    count,
  };
  return { header, bytes, records: bytes.subarray(HEADER_BYTES) };
}

/** Reads the records of a batch one by one, from its unpacked bytes. */
export class RecordReader {
  readonly #header: BatchHeader;
  readonly #bytes: Buffer;
  #at = 0;
  #left: number;

  constructor(header: BatchHeader, unpacked: Buffer) {
    this.#header = header;
    this.#bytes = unpacked;
    this.#left = header.count;
  }

  /** Records that were not read yet. */
  get left(): number {
    return this.#left;
  }

  /** What it holds on to, bytes. */
  get byteLength(): number {
    return this.#bytes.length;
  }

  /** @throws BatchFault `malformed` for lengths that cannot be */
  next(): WireRecord {
    const length = this.#varint();
    const end = this.#at + length;
    if (length < 0 || end > this.#bytes.length) throw this.#malformed(`a length of ${length}`);
    // Attributes: none is in use.
    this.#at += 1;
    const timestampDelta = this.#varint();
    const offset = this.#header.baseOffset + this.#varint();
    const key = this.#field(end);
    const value = this.#field(end);
    if (offset < this.#header.baseOffset || offset >= this.#header.nextOffset)
      throw this.#malformed(`offset ${offset}, outside of its batch`);
    // Headers are skipped: the record's length knows where they end.
    this.#at = end;
    this.#left -= 1;
    return { offset, timestampMs: this.#header.appendTimeMs ?? this.#header.baseTimestampMs + timestampDelta, key, value };
  }

  #field(end: number): Buffer | null {
    const length = this.#varint();
    if (length < 0) return null;
    const from = this.#at;
    if (from + length > end) throw this.#malformed(`a key or value of ${length} bytes`);
    this.#at = from + length;
    return this.#bytes.subarray(from, this.#at);
  }

  /** Zigzag, of up to 64 bits; exact up to 2^53. */
  #varint(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.#at++];
    if (byte === undefined) throw this.#malformed('no end');
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 0x7f;
    let scale = 128;
    for (let i = 0; i < 9; i++) {
      byte = bytes[this.#at++];
      if (byte === undefined) throw this.#malformed('no end');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
      scale *= 128;
    }
    throw this.#malformed('a number of more than 64 bits');
  }

  #malformed(what: string): BatchFault {
    return new BatchFault('malformed', `record ${this.#header.count - this.#left + 1} of ${this.#header.count} has ${what}`);
  }
}

/** Type of a control record that ends a transaction: the second 16 bits of its key (Kafka's `ControlRecordType`). */
const ABORT = 0;

export const isAbort = ({ key }: WireRecord): boolean => key !== null && key.length >= 4 && key.readInt16BE(2) === ABORT;

/** A signed number of 64 bits; exact up to 2^53. */
const longAt = (bytes: Buffer, at: number): number => bytes.readInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);

const hex = (value: number): string => value.toString(16).padStart(8, '0');

const oldFormat = (magic: number) =>
  new BatchFault(
    'unsupported',
    `a batch of format ${magic}, of before Kafka 0.11; brokers convert it no more: copy the topic with a current client`,
  );
