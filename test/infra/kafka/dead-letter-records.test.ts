import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { deadLetterRecord } from '../../../infra/kafka/dead-letter-records.ts';
import { outputRecords } from '../../../infra/kafka/output-records.ts';
import { bytesOf, chunks, roomOf } from '../../../infra/kafka/partition-producer.ts';
import type { DeadLetter } from '../../../schemas/action.ts';
import { AvroCodec } from '../../../schemas/avro/avro-codec.ts';
import type { OutputBatch } from '../../../schemas/batch.ts';
import { Fault } from '../../../schemas/record-fields.ts';

const MAX = 1_048_588;
const codec = new AvroCodec({ maxRecordBytes: 8 * 2 ** 20 });
const position = { topic: 'actions', partition: 0, offset: 7 };
const letterOf = (value: Uint8Array | string, key: Uint8Array, more: Partial<DeadLetter> = {}): DeadLetter => ({
  position,
  code: 'RECORD_MALFORMED',
  step: 'decode',
  message: 'not a JSON object',
  original: value,
  originalKey: key,
  ...more,
});
const read = (value: Uint8Array | null) => {
  const letter = codec.decode('DeadLetter', value!);
  if (letter instanceof Fault) throw new Error(letter.message);
  return letter;
};
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe('a dead letter takes no more than its topic does', () => {
  it('one that fits is whole', () => {
    const record = deadLetterRecord(codec, letterOf(Buffer.alloc(10_000, 'x'), Buffer.from('u')), roomOf(MAX));
    expect(read(record.value)).toEqual({ ...letterOf(Buffer.alloc(10_000, 'x'), Buffer.from('u')) });
  });

  // The key is there twice: as the letter's own, and in it.
  it.each([
    ['value 850 kB, key 150 kB', 850_000, 150_000, 0],
    ['value 1 MB, key 10 B', 1_048_000, 10, 0],
    ['value 10 B, key 1 MB', 10, 1_048_000, 1_048_000],
    ['value and key 1 MB each', 1_048_000, 1_048_000, 1_048_000],
  ])('%s: it fits, says what it is the beginning of, and wastes no room', (_, valueBytes, keyBytes, keyCutFrom) => {
    const [value, key] = [randomBytes(valueBytes), randomBytes(keyBytes)];
    const record = deadLetterRecord(codec, letterOf(value, key), roomOf(MAX));
    expect(bytesOf(record)).toBeLessThanOrEqual(roomOf(MAX));
    const letter = read(record.value);
    if (letter.originalCut === undefined) expect(letter.original).toEqual(value);
    else {
      expect(letter.originalCut).toEqual({ bytes: valueBytes, sha256: sha256(value) });
      expect(value.subarray(0, letter.original!.length)).toEqual(letter.original);
      expect(bytesOf(record)).toBeGreaterThan(roomOf(MAX) - 2_000);
    }
    expect(letter.keyCut).toEqual(keyCutFrom === 0 ? undefined : { bytes: keyBytes, sha256: sha256(key) });
    expect(record.key).toEqual(keyCutFrom === 0 ? key : null);
  });

  it('text is not cut within a character', () => {
    const text = `x${'é'.repeat(600_000)}`;
    for (const room of [100_000, 100_001]) {
      const { original, originalCut } = read(deadLetterRecord(codec, letterOf(text, Buffer.from('u')), room).value);
      expect(Buffer.from(original as Uint8Array).toString()).not.toContain('\ufffd');
      expect(originalCut!.bytes).toBe(1_200_001);
    }
  });
});

describe('an output that its topic does not take', () => {
  const topics = { userEmbeddings: 'e', candidateScores: 's', deadLetters: 'd' } as never;
  const batch = {
    source: {
      topic: 'requests',
      partition: 0,
      records: [{ position: { ...position, topic: 'requests' }, value: Buffer.from('asked'), key: Buffer.from('u') }],
      nextOffset: 8,
      readAtMs: 0,
      ack: () => undefined,
    },
    processed: [],
    deadLetters: [],
    embeddings: [],
    quality: [],
    scores: [
      {
        userId: 'u',
        version: 1,
        requestId: 'r',
        candidates: Array.from({ length: 10_000 }, (_, i) => ({ entity: `${'x'.repeat(40)}${i}`, score: i })),
        lineage: { topic: 'requests', partition: 0, offset: 7, sequenceDigest: 's', modelDigest: 'm' },
        computedAtMs: 0,
      },
    ],
  } as unknown as OutputBatch;

  it('becomes a dead letter of the record that it was made of', () => {
    expect([...outputRecords(codec, topics, batch, 1, new Map([['s', 12 * 2 ** 20]])).keys()]).toEqual(['s']);
    const records = outputRecords(codec, topics, batch, 1, new Map([['s', 300_000]]));
    expect([...records.keys()]).toEqual(['d']);
    const [record] = records.get('d')!;
    expect(record!.key).toBe('u');
    expect(read(record!.value)).toMatchObject({
      position: { topic: 'requests', partition: 0, offset: 7 },
      code: 'RECORD_TOO_LARGE',
      step: 'publish',
      message: expect.stringMatching(/bytes for s, whose max\.message\.bytes is 300000: it is not published$/),
      original: Buffer.from('asked'),
    });
  });
});

it('a request holds no more than its topic takes', () => {
  const records = Array.from({ length: 100 }, () => ({ key: 'k', value: Buffer.alloc(10_000) }));
  const most = (max?: number) =>
    Math.max(...[...chunks(records, 0, max)].map((list) => list.reduce((sum, { value }) => sum + value!.length, 0)));
  expect(most()).toBeGreaterThan(600_000);
  expect(most(300_000)).toBeLessThan(300_000);
});
