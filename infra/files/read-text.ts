/** A file as text, chunk by chunk: every fault of the file itself becomes one error that names the path and the reason. */
import type { Hash } from 'node:crypto';
import { createReadStream, type ReadStream } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { createGunzip } from 'node:zlib';
import { PipelineError } from '../../schemas/errors.ts';
import { ZstdDecoder } from '../compression/zstd-decoder.ts';

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
  const { code, message } = cause as NodeJS.ErrnoException;
  return new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}': ${REASONS[code ?? ''] ?? message}`, {
    cause,
  });
}

/** The file's bytes, streamed; of a name that ends in `.gz` or `.zst`, unpacked piece by piece. @throws PipelineError `SOURCE_UNREADABLE` */
export async function* readBytes(path: string): AsyncGenerator<Buffer> {
  try {
    const file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
    if (path.endsWith('.gz')) yield* gunzipped(file);
    else if (path.endsWith('.zst')) yield* unzstd(file);
    else for await (const chunk of file) yield chunk as Buffer;
  } catch (cause) {
    throw sourceUnreadable(path, cause);
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
 * The file decoded as UTF-8 (bytes that are not become U+FFFD), without a byte-order mark.
 *
 * @param hash is given every byte on the way
 * @throws PipelineError `SOURCE_UNREADABLE`
 */
export async function* readText(path: string, hash?: Hash): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8');
  let atStart = true;
  for await (const bytes of readBytes(path)) {
    hash?.update(bytes);
    let text = decoder.write(bytes);
    if (text === '') continue;
    if (atStart && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    atStart = false;
    yield text;
  }
  yield decoder.end();
}
