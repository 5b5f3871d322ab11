/** Dead letters as records that their topic takes: what is too large is cut, and says so. */
import { createHash } from 'node:crypto';
import type { DeadLetter } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { CutBytes, StampedDeadLetter } from '../../schemas/avro/record-shapes.ts';
import type { OutgoingRecord } from './partition-producer.ts';

/** Of the message, characters: it quotes what was refused. */
const MAX_MESSAGE = 2_000;
/** What a record costs beside its key and value, a batch's head and the marks of its fields among it, bytes. */
const AROUND_BYTES = 512;

/**
 * The record of a letter, keyed by the user's id where the record could be read, else by its own key.
 *
 * Beyond `room`, the original goes first: its beginning stays, with its length and digest. Of a key that alone takes a quarter of the
 * room, only the beginning stays as well; it is no user's, and no key of the letter.
 *
 * @param room key and value together, bytes; at least 64 KiB
 */
export function deadLetterRecord(
  codec: AvroCodec,
  letter: DeadLetter & Pick<StampedDeadLetter, 'timestampMs'>,
  room: number,
): OutgoingRecord {
  const key = letter.userId ?? letter.originalKey ?? null;
  const whole = codec.encode('DeadLetter', letter);
  if (lengthOf(key) + whole.byteLength + AROUND_BYTES <= room) return { key, value: whole };
  const keyRoom = Math.floor(room / 4);
  const [originalKey, keyCut] = cut(letter.originalKey ?? null, keyRoom);
  const kept = lengthOf(key) > keyRoom ? null : key;
  const short = {
    ...letter,
    message: letter.message.slice(0, MAX_MESSAGE),
    original: null,
    ...(originalKey !== null && { originalKey }),
    ...(keyCut !== undefined && { keyCut }),
  };
  const left = room - lengthOf(kept) - codec.encode('DeadLetter', short).byteLength - AROUND_BYTES;
  const [original, originalCut] = cut(letter.original, Math.max(0, left));
  return {
    key: kept,
    value: codec.encode('DeadLetter', { ...short, original, ...(originalCut !== undefined && { originalCut }) }),
  };
}

/** The beginning of `value`, and what it is the beginning of; all of it where there is room. */
function cut(value: Uint8Array | string | null, room: number): [Uint8Array | null, CutBytes | undefined] {
  if (value === null) return [null, undefined];
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  if (bytes.byteLength <= room) return [bytes, undefined];
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return [bytes.subarray(0, wholeCharacters(bytes, room)), { bytes: bytes.byteLength, sha256 }];
}

/** At most three bytes less: of text in UTF-8, no character is cut in two. */
function wholeCharacters(bytes: Uint8Array, end: number): number {
  let at = end;
  while (at > 0 && end - at < 3 && (bytes[at]! & 0xc0) === 0x80) at--;
  return at;
}

const lengthOf = (value: Uint8Array | string | null): number =>
  value === null ? 0 : typeof value === 'string' ? Buffer.byteLength(value) : value.byteLength;
