/** The keys of a user's records: in the changelog, where they say what replaces what, and in the local store. */
import { createHash } from 'node:crypto';
import { RESERVED_KEY_PREFIX } from '../schemas/state.ts';

/** First byte of a user's keys: how the id is written. */
const ID_AS = { utf8: 0x01, utf16: 0x02, sha256: 0x03 } as const;

/** Longer ids are hashed: local stores limit the length of a key. */
const MAX_ID_BYTES = 1024;

export const RECORD_KINDS = { head: 0x01, tokens: 0x02, kept: 0x03, seen: 0x04 } as const;
export type RecordKind = keyof typeof RECORD_KINDS;

/** Kind and page number. */
const SUFFIX_BYTES = 5;

/** Half of a surrogate pair has no UTF-8: two such strings would become one. */
const LONE_SURROGATE = /\p{Surrogate}/u;
export const isWellFormed = (text: string): boolean => !LONE_SURROGATE.test(text);

/**
 * Makes the keys of one user: id, kind, page number. Of two users, or two records of one, no two keys are equal: the end
 * has a fixed length, and ids that are hashed differ in SHA-256.
 */
export class UserKeys {
  readonly #prefix: Buffer;
  /** The id itself is not in the key: the head record must hold it. */
  readonly hashed: boolean;

  constructor(userId: string) {
    const wellFormed = isWellFormed(userId);
    const id = Buffer.from(userId, wellFormed ? 'utf8' : 'utf16le');
    this.hashed = id.length > MAX_ID_BYTES;
    const as = this.hashed ? ID_AS.sha256 : wellFormed ? ID_AS.utf8 : ID_AS.utf16;
    const written = this.hashed
      ? createHash('sha256')
          .update(wellFormed ? 'utf8' : 'utf16')
          .update(id)
          .digest()
      : id;
    this.#prefix = Buffer.concat([Uint8Array.of(as), written]);
  }

  /** First and last key that the user's records can have, in the order of bytes; others' keys may lie between. */
  get range(): { readonly first: Buffer; readonly last: Buffer } {
    return { first: this.#prefix, last: Buffer.concat([this.#prefix, Buffer.alloc(SUFFIX_BYTES, 0xff)]) };
  }

  /** Whether a key is one of this user's. */
  owns(key: Uint8Array): boolean {
    return key.length === this.#prefix.length + SUFFIX_BYTES && this.#prefix.equals(key.subarray(0, this.#prefix.length));
  }

  /** `page` is an unsigned 32-bit number; a head has none. */
  key(kind: RecordKind, page = 0): Buffer {
    const key = Buffer.allocUnsafeSlow(this.#prefix.length + SUFFIX_BYTES);
    key.set(this.#prefix);
    key[this.#prefix.length] = RECORD_KINDS[kind];
    key.writeUInt32BE(page, this.#prefix.length + 1);
    return key;
  }
}

/** Whether a key is that of a user's head record: there is one a user. */
export const isHeadKey = (key: Uint8Array): boolean =>
  key.length > SUFFIX_BYTES && key[0] !== RESERVED_KEY_PREFIX && key[key.length - SUFFIX_BYTES] === RECORD_KINDS.head;

/** A key as a message may show it. */
export const describeKey = (key: Uint8Array): string => Buffer.from(key).toString('hex').slice(0, 160);
