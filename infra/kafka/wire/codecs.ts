/** Unpacks the records of a batch, none of it before it is known that they fit. */
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { decompressFrameSync } from 'lz4-napi';
import { ZstdDecoder, ZstdFault } from '../../compression/zstd-decoder.ts';
import { BatchFault } from './batch-fault.ts';
import { lz4Size } from './lz4-size.ts';
import { unpackSnappy } from './snappy.ts';

/** By the last three bits of a batch's attributes. */
export const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
export type Codec = (typeof CODECS)[number];

/**
 * @param maxBytes that may come out
 * @throws BatchFault `too-large` above that, with no more than about that having been held; `malformed` for what is not of the codec
 */
export async function unpack(codec: Codec, bytes: Buffer, maxBytes: number): Promise<Buffer> {
  switch (codec) {
    case 'none':
      return bytes;
    case 'gzip':
      return unpackGzip(bytes, maxBytes);
    case 'snappy':
      return unpackSnappy(bytes, maxBytes);
    case 'lz4':
      return unpackLz4(bytes, maxBytes);
    case 'zstd':
      return unpackZstd(bytes, maxBytes);
  }
}

const unzip = promisify(gunzip);

async function unpackGzip(bytes: Buffer, maxBytes: number): Promise<Buffer> {
  try {
    return await unzip(bytes, { maxOutputLength: maxBytes });
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge('gzip', maxBytes);
    throw new BatchFault('malformed', `gzip: ${message}`);
  }
}

function unpackLz4(bytes: Buffer, maxBytes: number): Buffer {
  if (lz4Size(bytes, maxBytes) > maxBytes) throw tooLarge('lz4', maxBytes);
  try {
    return decompressFrameSync(bytes);
  } catch (thrown) {
    throw new BatchFault('malformed', `lz4: ${(thrown as Error).message}`);
  }
}

/** Its context is dear to make. Used from beginning to end within one turn of the event loop. */
let decoder: ZstdDecoder | undefined;

async function unpackZstd(bytes: Buffer, maxBytes: number): Promise<Buffer> {
  const zstd = decoder ?? (await ZstdDecoder.open());
  decoder = zstd;
  try {
    const parts: Buffer[] = [];
    let size = 0;
    for (const part of zstd.push(bytes)) {
      size += part.length;
      if (size > maxBytes) throw tooLarge('zstd', maxBytes);
      parts.push(part);
    }
    zstd.end();
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts, size);
  } catch (thrown) {
    // It stands in the middle of a frame.
    zstd.close();
    decoder = undefined;
    throw thrown instanceof ZstdFault ? new BatchFault('malformed', `zstd: ${thrown.message}`) : thrown;
  }
}

const tooLarge = (codec: Codec, maxBytes: number) =>
  new BatchFault('too-large', `${codec} unpacks to more than ${maxBytes} bytes`);
