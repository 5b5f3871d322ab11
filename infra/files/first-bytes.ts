/** What a file is by its first bytes, whatever its name says. */

export type Packing = 'gzip' | 'zstd';

const MAGIC: readonly (readonly [bytes: readonly number[], packing: Packing])[] = [
  [[0x1f, 0x8b], 'gzip'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'zstd'],
];

/** What is no text, and how it is read instead. */
const NO_TEXT: readonly (readonly [bytes: readonly number[], what: string])[] = [
  [[0x50, 0x41, 0x52, 0x31], 'a Parquet file: format: parquet'],
  [[0x4f, 0x62, 0x6a, 0x01], 'an Avro file: format: avro'],
  [[0x4f, 0x52, 0x43], 'an ORC file, which is not read: write it as Parquet'],
  [[0x50, 0x4b, 0x03, 0x04], 'a zip archive, which is not read: unpack it, or use gzip or zstd'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], 'packed with xz, which is not read: use gzip or zstd'],
  [[0x04, 0x22, 0x4d, 0x18], 'packed with lz4, which is not read: use gzip or zstd'],
];

const begins = (bytes: Uint8Array, magic: readonly number[]): boolean => magic.every((byte, i) => bytes[i] === byte);

export const packingOf = (bytes: Uint8Array): Packing | undefined => MAGIC.find(([magic]) => begins(bytes, magic))?.[1];

/** Behind `BZh` and a digit. */
const BZIP2_BLOCK = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const LOOKED_AT = 64;

/** Text has no such byte; a header of columns may begin with the letters of a format. */
const hasControl = (bytes: Uint8Array): boolean =>
  bytes.subarray(0, LOOKED_AT).some((byte) => byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);

/** Undefined for what may be text. */
export function notText(bytes: Uint8Array): string | undefined {
  if (begins(bytes, [0x42, 0x5a, 0x68]) && begins(bytes.subarray(4), BZIP2_BLOCK))
    return 'packed with bzip2, which is not read: use gzip or zstd';
  return hasControl(bytes) ? NO_TEXT.find(([magic]) => begins(bytes, magic))?.[1] : undefined;
}

/** By a byte-order mark, or the zeros that Latin letters have in UTF-16; undefined for one byte a letter. */
export function utf16Of(bytes: Uint8Array): { readonly encoding: 'utf-16le' | 'utf-16be'; readonly marked: boolean } | undefined {
  const [a, b, c, d] = bytes;
  if (a === 0xff && b === 0xfe) return { encoding: 'utf-16le', marked: true };
  if (a === 0xfe && b === 0xff) return { encoding: 'utf-16be', marked: true };
  if (bytes.length < 4) return undefined;
  if (a !== 0 && b === 0 && c !== 0 && d === 0) return { encoding: 'utf-16le', marked: false };
  if (a === 0 && b !== 0 && c === 0 && d !== 0) return { encoding: 'utf-16be', marked: false };
  return undefined;
}
