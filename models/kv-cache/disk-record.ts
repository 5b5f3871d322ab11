/** How a user's rows and what they were computed from lie in one run of bytes: times, page digests, tokens, then the rows as given. */
import { DIGEST_PAGE } from '../../schemas/sequence-digest.ts';
import type { CachedRows } from './cached-rows.ts';

type Tokens = Pick<CachedRows, 'timesS' | 'pageDigests' | 'entities'>;

export const packedBytes = ({ length }: CachedRows, rows: readonly ArrayBufferView[]): number =>
  rowsAt(length) + rows.reduce((sum, { byteLength }) => sum + byteLength, 0);

/**
 * @param rows whole numbers of 4 bytes
 * @param data as many bytes as the record has
 */
export function packRecord(held: CachedRows, rows: readonly ArrayBufferView[], data: Uint8Array): void {
  const { timesS, pageDigests, entities } = tokensIn(data, held.length);
  timesS.set(held.timesS.subarray(0, timesS.length));
  pageDigests.set(held.pageDigests.subarray(0, pageDigests.length));
  entities.set(held.entities.subarray(0, entities.length));
  let at = rowsAt(held.length);
  for (const { buffer, byteOffset, byteLength } of rows) {
    data.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += byteLength;
  }
}

/** @param length rows held, as of the packed record. Views of the bytes, not copies. */
export function unpackRecord(data: Uint8Array, length: number): Tokens & { readonly rows: Uint8Array } {
  return { ...tokensIn(data, length), rows: data.subarray(rowsAt(length)) };
}

function tokensIn({ buffer, byteOffset }: Uint8Array, length: number): Tokens {
  const digests = digestsOf(length);
  return {
    timesS: new Float64Array(buffer, byteOffset, length),
    pageDigests: new Uint32Array(buffer, byteOffset + 8 * length, digests),
    entities: new Int32Array(buffer, byteOffset + 8 * length + 4 * digests, length),
  };
}

/** Of whole pages, two numbers each. */
const digestsOf = (length: number): number => 2 * Math.floor(length / DIGEST_PAGE);

/** Aligned for any numbers. */
const rowsAt = (length: number): number => 8 * Math.ceil((12 * length + 4 * digestsOf(length)) / 8);
