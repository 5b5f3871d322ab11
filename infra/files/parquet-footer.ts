/** A Parquet file's footer against the file's bytes, before an engine believes what it claims (parquet.thrift of apache/parquet-format). */
import { type FileHandle, open } from 'node:fs/promises';
import { PipelineError } from '../../schemas/errors.ts';
import { sourceUnreadable } from './read-text.ts';
import { walkStruct } from './thrift-compact.ts';

/** Longest footer that is read: a thousand columns in a thousand row groups take about as much. */
const MAX_FOOTER_BYTES = 2 ** 28;
const MAGIC_BYTES = 4;
/** Of the footer's length, and of the magic after it. */
const TAIL_BYTES = 8;

/** Field ids that lead to a number: FileMetaData, then RowGroup, ColumnChunk, ColumnMetaData. */
const SCHEMA = '2';
const CHILDREN = '2.5';
const CHUNK = '4.1';
const CHUNK_FIELDS: Readonly<Record<string, keyof Chunk>> = {
  '4.1.3.5': 'values',
  '4.1.3.7': 'bytes',
  '4.1.3.9': 'data',
  '4.1.3.11': 'dictionary',
};

interface Chunk {
  /** `num_values` */
  values?: bigint;
  /** `total_compressed_size` */
  bytes?: bigint;
  /** `data_page_offset` */
  data?: bigint;
  /** `dictionary_page_offset` */
  dictionary?: bigint;
}

/** @throws PipelineError `SOURCE_UNREADABLE` naming the file and what it claims but does not hold */
export async function checkParquetFooter(path: string): Promise<void> {
  const file = await open(path).catch((cause: unknown) => {
    throw sourceUnreadable(path, cause);
  });
  try {
    const { size } = await file.stat();
    checkFooter(await readFooter(file, size), size);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw sourceUnreadable(path, cause);
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read source file '${path}' as Parquet: ${cause.message}`, { cause });
  } finally {
    await file.close();
  }
}

async function readFooter(file: FileHandle, size: number): Promise<Buffer> {
  if (size < MAGIC_BYTES + TAIL_BYTES) throw new RangeError(`it is ${size} bytes long, and a Parquet file at least 12`);
  const { buffer: tail } = await file.read(Buffer.alloc(TAIL_BYTES), 0, TAIL_BYTES, size - TAIL_BYTES);
  const magic = tail.toString('latin1', 4);
  if (magic === 'PARE') throw new RangeError('its footer is encrypted');
  if (magic !== 'PAR1') throw new RangeError('it does not end with PAR1: it is no Parquet file, or cut off');
  const length = tail.readUInt32LE(0);
  if (length > size - MAGIC_BYTES - TAIL_BYTES)
    throw new RangeError(`its footer claims ${length} bytes, and the file has ${size}`);
  if (length > MAX_FOOTER_BYTES) throw new RangeError(`its footer is ${length} bytes long; at most ${MAX_FOOTER_BYTES} are read`);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - TAIL_BYTES - length);
  if (bytesRead < length) throw new RangeError('it became shorter while it was read');
  return buffer;
}

/** @throws RangeError */
export function checkFooter(footer: Buffer, fileBytes: number): void {
  const end = BigInt(fileBytes - TAIL_BYTES - footer.length);
  let elements = 0n;
  let children = 0n;
  let chunk: Chunk = {};
  let chunks = 0;
  walkStruct(footer, {
    integer: (path, value) => {
      const key = path.join('.');
      const field = CHUNK_FIELDS[key];
      if (field !== undefined) chunk[field] = value;
      else if (key === CHILDREN) {
        if (value < 0n) throw new RangeError(`its schema claims ${value} fields in one`);
        children += value;
      }
    },
    element: (path) => {
      const key = path.join('.');
      if (key === SCHEMA) elements += 1n;
      else if (key === CHUNK) {
        checkChunk(chunk, chunks, end);
        chunks += 1;
        chunk = {};
      }
    },
  });
  // The root is nobody's child.
  if (elements === 0n || children !== elements - 1n)
    throw new RangeError(`its schema has ${elements} elements, and they claim ${children} children`);
}

/** A chunk lies between the magic at the start and the footer. */
function checkChunk({ values = 0n, bytes = 0n, data = 0n, dictionary = 0n }: Chunk, number: number, end: bigint): void {
  if (values < 0n || bytes < 0n) throw new RangeError(`its column chunk ${number} claims ${values} values in ${bytes} bytes`);
  for (const [what, offset] of [
    ['pages', data],
    ['dictionary', dictionary],
  ] as const)
    if (offset < 0n || offset > end)
      throw new RangeError(`the ${what} of its column chunk ${number} are at byte ${offset}, and data ends at ${end}`);
  const start = dictionary > 0n && dictionary < data ? dictionary : data;
  if (start + bytes > end)
    throw new RangeError(`its column chunk ${number} claims ${bytes} bytes from byte ${start} on, and data ends at ${end}`);
}
