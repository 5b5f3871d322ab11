/** A file as text, chunk by chunk: every fault of the file itself becomes one error that names the path and the reason. */
import type { Hash } from 'node:crypto';
import { createReadStream, type ReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';
import { createGunzip } from 'node:zlib';
import { PipelineError } from '../../schemas/errors.ts';
import { ZstdDecoder } from '../compression/zstd-decoder.ts';
import { notText, packingOf, utf16Of } from './first-bytes.ts';

const CHUNK_BYTES = 1_048_576;

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a folder',
  EACCES: 'no permission to read it',
  EPERM: 'no permission to read it',
  ENOTDIR: 'a part of its path is a file, not a folder',
};

/** `SOURCE_UNREADABLE` for whatever the file system said. */
export function sourceUnreadable(path: string, cause: unknown): PipelineError {
  if (cause instanceof PipelineError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  return new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}': ${REASONS[code ?? ''] ?? message}`, {
    cause,
  });
}

/** The file's bytes, streamed; what begins as gzip or zstd does is unpacked piece by piece. @throws PipelineError `SOURCE_UNREADABLE` */
export async function* readBytes(path: string): AsyncGenerator<Buffer> {
  try {
    const packing = packingOf(await firstBytes(path));
    const file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
    if (packing === 'gzip') yield* gunzipped(file);
    else if (packing === 'zstd') yield* unzstd(file);
    else for await (const chunk of file) yield chunk as Buffer;
  } catch (cause) {
    throw sourceUnreadable(path, cause);
  }
}

async function firstBytes(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    // What is no ordinary file is not to be read twice.
    if (!(await file.stat()).isFile()) return Buffer.alloc(0);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function* gunzipped(file: ReadStream): AsyncGenerator<Buffer> {
  const unpacked = createGunzip({ chunkSize: CHUNK_BYTES });
  file.on('error', (error) => unpacked.destroy(error)).pipe(unpacked);
  try {
    for await (const chunk of unpacked) yield chunk as Buffer;
  } finally {
    file.destroy();
  }
}

async function* unzstd(file: ReadStream): AsyncGenerator<Buffer> {
  const decoder = await ZstdDecoder.open();
  try {
    for await (const chunk of file) yield* decoder.push(chunk as Buffer);
    decoder.end();
  } finally {
    decoder.close();
    file.destroy();
  }
}

/**
 * The file as text, without a byte-order mark: UTF-8, UTF-16 where the mark says so, or as `encoding` says. Bytes that are no text become
 * U+FFFD. A lone carriage return ends a line where no other character does.
 *
 * @param hash is given every byte on the way
 * @param encoding a label of the Encoding Standard, `windows-1252`. @default by the first bytes
 * @throws PipelineError `SOURCE_UNREADABLE`, also for what is no text
 */
export async function* readText(path: string, hash?: Hash, encoding?: string): AsyncGenerator<string> {
  let decode: Decode | undefined;
  let atStart = true;
  let bareReturns = false;
  for await (const bytes of readBytes(path)) {
    hash?.update(bytes);
    decode ??= decoderFor(path, bytes, encoding);
    let text = decode(bytes, true);
    if (text === '') continue;
    if (atStart && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    if (atStart) bareReturns = text.includes('\r') && !text.includes('\n');
    atStart = false;
    yield bareReturns ? text.replaceAll('\r', '\n') : text;
  }
  if (decode !== undefined) yield decode(undefined, false);
}

type Decode = (bytes: Buffer | undefined, more: boolean) => string;

function decoderFor(path: string, first: Buffer, encoding: string | undefined): Decode {
  const other = notText(first);
  if (other !== undefined) throw new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}': it is ${other}`);
  const wide = utf16Of(first);
  if (encoding === undefined && wide !== undefined && !wide.marked)
    throw new PipelineError(
      'SOURCE_UNREADABLE',
      `cannot read source file '${path}': it looks like UTF-16 without a byte-order mark; if so, set its encoding: ${wide.encoding}`,
    );
  const label = encoding ?? wide?.encoding ?? 'utf-8';
  if (/^utf-?8$/i.test(label)) {
    // Many times as fast.
    const decoder = new StringDecoder('utf8');
    return (bytes) => (bytes === undefined ? decoder.end() : decoder.write(bytes));
  }
  const decoder = new TextDecoder(label, { ignoreBOM: true });
  return (bytes, stream) => decoder.decode(bytes, { stream });
}
