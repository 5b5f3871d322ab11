/** The safetensors file format: an 8-byte little-endian header length, a JSON header, the raw tensors. */
import { parseBoundedJson } from '../../schemas/bounded-json.ts';
import { PipelineError } from '../../schemas/errors.ts';

export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
export type TensorMap = ReadonlyMap<string, Tensor>;

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

const HEADER_LIMIT_BYTES = 100 * 1024 * 1024;
export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/**
 * Reads every tensor of a file. Only 32-bit floats are accepted: a silent conversion would change the model.
 *
 * @param origin file name, for the messages
 * @throws PipelineError `BUNDLE_INVALID` that lists every tensor at fault
 */
export function readSafetensors(bytes: Uint8Array, origin: string): TensorMap {
  const refuse = (problem: string): never => {
    throw new PipelineError('BUNDLE_INVALID', `${origin}: ${problem}`);
  };
  if (bytes.byteLength < 8) refuse(`truncated: ${bytes.byteLength} bytes, a safetensors file has at least 8`);
  const headerLength = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (8 + headerLength > bytes.byteLength)
    refuse(`truncated or not a safetensors file: header of ${headerLength} bytes in a file of ${bytes.byteLength}`);
  if (headerLength > HEADER_LIMIT_BYTES) refuse(`header of ${headerLength} bytes; at most ${HEADER_LIMIT_BYTES} are read`);
  let header: Record<string, HeaderEntry>;
  try {
    header = parseBoundedJson(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength))) as Record<string, HeaderEntry>;
  } catch (cause) {
    const what = cause instanceof RangeError ? cause.message : 'not JSON';
    throw new PipelineError('BUNDLE_INVALID', `${origin}: the header is ${what}`, { cause });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) refuse('the header is not an object');
  const body = bytes.subarray(8 + headerLength);
  const problems: string[] = [];
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const problem = entryProblem(entry, body.byteLength);
    if (problem !== undefined) problems.push(`tensor ${name}: ${problem}`);
    else tensors.set(name, { shape: entry.shape, data: floats(body, entry.data_offsets) });
  }
  if (problems.length > 0) refuse(problems.join('; '));
  return tensors;
}

function entryProblem(entry: HeaderEntry, bodyBytes: number): string | undefined {
  if (!Array.isArray(entry?.shape) || !Array.isArray(entry.data_offsets)) return 'header entry without shape or data_offsets';
  if (entry.dtype !== 'F32') return `dtype ${entry.dtype}, allowed: F32`;
  if (!entry.shape.every((size) => Number.isInteger(size) && size >= 0)) return `impossible shape ${JSON.stringify(entry.shape)}`;
  const [start, end] = entry.data_offsets;
  if (!(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && end >= start))
    return `impossible offsets ${start}..${end}`;
  if (end > bodyBytes) return `truncated: needs bytes up to ${end}, the file holds ${bodyBytes}`;
  const expected = 4 * sizeOf(entry.shape);
  return end - start === expected ? undefined : `shape [${entry.shape}] needs ${expected} bytes, has ${end - start}`;
}

/** A copy, since a tensor may start at an odd offset of the file. */
function floats(body: Uint8Array, [start, end]: readonly [number, number]): Float32Array {
  const copy = new Uint8Array(end - start);
  copy.set(body.subarray(start, end));
  return new Float32Array(copy.buffer);
}

/** The bytes of a file that holds `tensors`, in name order. */
export function writeSafetensors(tensors: TensorMap): Uint8Array {
  const names = [...tensors.keys()].sort();
  const header: Record<string, HeaderEntry> = {};
  let offset = 0;
  for (const name of names) {
    const { shape, data } = tensors.get(name)!;
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(8 + padded + offset);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.fill(0x20, 8, 8 + padded);
  out.set(json, 8);
  let at = 8 + padded;
  for (const name of names) {
    const { data } = tensors.get(name)!;
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return out;
}
