/** The rolling digest of a user's tokens: what a KV-cache entry is checked against, and the lineage of an embedding. */

/** Tokens per digest page. The digest after every full page is kept, so that a point of divergence is found page by page. */
export const DIGEST_PAGE = 32;

/** 64 bits in two unsigned 32-bit lanes. */
export interface DigestState {
  readonly high: number;
  readonly low: number;
}

export const EMPTY_DIGEST: DigestState = { high: 0x9e3779b9, low: 0x85ebca6b };

/** Finaliser of MurmurHash3 (Appleby, public domain): every input bit moves every output bit. */
function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Digest after one more token: embedding row `entity` at `timeS` seconds. */
export function digestToken(state: DigestState, entity: number, timeS: number): DigestState {
  const timeLow = timeS >>> 0;
  const timeHigh = Math.floor(timeS / 4294967296) >>> 0;
  const low = mix(Math.imul(state.low, 31) ^ entity ^ Math.imul(timeLow, 0x27d4eb2f));
  const high = mix(Math.imul(state.high, 37) ^ low ^ Math.imul(entity, 0x165667b1) ^ timeLow ^ timeHigh);
  return { high, low };
}

/** Digest of a whole run of tokens, continuing from `state`. */
export function digestTokens(
  entities: Int32Array,
  timesS: Float64Array,
  from = 0,
  to = entities.length,
  state: DigestState = EMPTY_DIGEST,
): DigestState {
  let digest = state;
  for (let i = from; i < to; i++) digest = digestToken(digest, entities[i]!, timesS[i]!);
  return digest;
}

/** Rolling digests after each full page, interleaved high, low: `(2 * floor(n / DIGEST_PAGE),)`. */
export function pageDigests(entities: Int32Array, timesS: Float64Array): Uint32Array {
  const pages = Math.floor(entities.length / DIGEST_PAGE);
  const digests = new Uint32Array(2 * pages);
  let state = EMPTY_DIGEST;
  for (let page = 0; page < pages; page++) {
    state = digestTokens(entities, timesS, page * DIGEST_PAGE, (page + 1) * DIGEST_PAGE, state);
    digests[2 * page] = state.high;
    digests[2 * page + 1] = state.low;
  }
  return digests;
}

/** 16 hexadecimal digits. */
export const digestHex = ({ high, low }: DigestState): string =>
  high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0');
