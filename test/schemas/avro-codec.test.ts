import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { RecordTypes } from '../../schemas/avro/record-shapes.ts';
import { FIXED_SCHEMA_IDS, RECORD_NAMES, type RecordName } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { directory, framed, RECORDS } from './avro-arbitraries.ts';

const codec = new AvroCodec();
const position = { topic: 't', partition: 2, offset: 7 };
const lineage = { ...position, sequenceDigest: '00000000000000ff', modelDigest: 'm' };
const LINEAGE = `02 74  04  0e  20 ${'30'.repeat(14)}6666  02 6d`;

/** A record of each kind, and its bytes written down by hand from the Avro specification. */
const GOLDEN: { readonly [N in RecordName]: readonly [RecordTypes[N], string] } = {
  UserAction: [
    { eventId: 'e1', userId: 'u1', action: 'like', entity: 'movie:1', value: 4.5, eventTimeMs: 1_000, context: { device: 'tv' } },
    '00 48530101  04 6531  04 7531  08 6c696b65  0e 6d6f7669653a31  02 0000000000001240  d00f  02 02 0c 646576696365 04 7476 00',
  ],
  CandidateRequest: [
    { requestId: 'r1', userId: 'u1', entities: ['a', 'b'], queryTimeMs: 1_000, topK: 3, deny: ['x'], filter: { a: 1 } },
    '00 48530203  04 7231  04 7531  04 0261 0262 00  d00f  00  02 06  02 02 78 00  02 0e 7b2261223a317d',
  ],
  Erasure: [{ userId: 'u1', requestedAtMs: 1_000, reason: 'gdpr' }, '00 48530301  04 7531  02 d00f  02 08 67647072'],
  UserEmbedding: [
    {
      userId: 'u1',
      version: 3,
      embedding: Float32Array.of(1, -2),
      sequenceLength: 5,
      lastEventTimeMs: 1_000,
      queryTimeMs: 1_001,
      lineage,
      computedAtMs: 1_002,
      latencyMs: 1.5,
      rowsComputed: 2,
      outcome: 'cold',
    },
    `00 48530401  04 7531  06  04 0000803f 000000c0 00  04  0a  d00f  d20f  ${LINEAGE}  d40f  000000000000f83f  04  02`,
  ],
  CandidateScores: [
    {
      userId: 'u1',
      version: 3,
      requestId: 'r1',
      candidates: [{ entity: 'a', score: 0.5 }],
      tasks: { like: Float32Array.of(1) },
      leftOut: [{ entity: 'b', reason: 'denied' }],
      coldStart: true,
      queryTimeMs: 1_000,
      ageMs: 5,
      lineage,
      computedAtMs: 1_002,
    },
    `00 48530502  04 7531  06  02 04 7231  02 02 61 000000000000e03f 00  ${LINEAGE}  d40f  02 08 6c696b65 02 0000803f 00 00  02 02 62 0c 64656e696564 00  01  02 d00f  02 0a`,
  ],
  DeadLetter: [
    {
      position,
      code: 'TIME_INVALID',
      step: 'decode',
      message: 'm',
      original: Buffer.of(0xff, 0),
      originalKey: Buffer.of(0x6b),
      timestampMs: 1_000,
      originalCut: { bytes: 3, sha256: 'ab' },
    },
    '00 48530602  02 74  04  0e  02 d00f  02 02 6b  02 04 ff00  18 54494d455f494e56414c4944  0c 6465636f6465  02 6d  02 06 04 6162  00',
  ],
  ActionOutcome: [
    {
      userId: 'u1',
      eventId: 'e1',
      action: 'like',
      entity: 'a',
      eventTimeMs: 1_000,
      disposition: 'kept',
      position,
      ranked: { rank: 3, priorEvents: 5, sequenceDigest: lineage.sequenceDigest, modelDigest: 'm' },
    },
    `00 48530701  04 7531  04 6531  08 6c696b65  02 61  d00f  08 6b657074  02 74  04  0e  02  06  0a  20 ${'30'.repeat(14)}6666  02 6d`,
  ],
  Entity: [
    {
      entity: 'a:1',
      content: Float32Array.of(1, -0.5),
      popularity: 2,
      retired: true,
      fields: { inStock: true, price: 4.5, tags: ['x', 'y'], brand: 'b' },
    },
    `00 48530802  06 613a31  04 0000803f 000000bf 00  02 0000000000000040  01
      08  0e 696e53746f636b 00 01  0a 7072696365 02 0000000000001240  08 74616773 06 04 0278 0279 00  0a 6272616e64 04 02 62  00`,
  ],
};

describe.each(RECORD_NAMES)('%s', (name) => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(RECORDS[name] as fc.Arbitrary<RecordTypes[typeof name]>, (value) => {
        expect(codec.decode(name, codec.encode(name, value))).toEqual(value);
      }),
      { numRuns: 300 },
    );
  });

  it('is the same fields as a row of anybody', () => {
    fc.assert(
      fc.property(RECORDS[name] as fc.Arbitrary<RecordTypes[typeof name]>, (value) => {
        const bytes = codec.encode(name, value);
        expect(plain(codec.decodeRow(bytes))).toEqual(plain(codec.decodeFields(name, bytes)));
      }),
      { numRuns: 100 },
    );
  });

  it('has the wire bytes that any Avro library writes', () => {
    const [value, hex] = GOLDEN[name];
    const bytes = codec.encode(name, value as never);
    expect(bytes.toString('hex')).toBe(hex.replaceAll(/\s/g, ''));
    expect(codec.decode(name, bytes)).toEqual(value);
    expect(codec.decode(name, Uint8Array.from(bytes))).toEqual(value);
  });

  it('is refused cut short anywhere, and with a byte too many', () => {
    const bytes = codec.encode(name, GOLDEN[name][0] as never);
    for (let end = 0; end < bytes.length; end++)
      expect(codec.decode(name, bytes.subarray(0, end))).toMatchObject({ code: 'RECORD_MALFORMED' });
    const longer = Buffer.concat([bytes, Buffer.alloc(1)]);
    for (const result of [codec.decode(name, longer), codec.decodeRow(longer)])
      expect(result).toMatchObject({ code: 'RECORD_MALFORMED', message: expect.stringContaining('after its end') });
  });
});

describe('the schemas', () => {
  const files = readdirSync(new URL('../../schemas/avro/', import.meta.url)).filter((file) => file.endsWith('.avsc'));
  const schemas = files.map((file) => JSON.parse(readFileSync(new URL(`../../schemas/avro/${file}`, import.meta.url), 'utf8')));

  it('are one file each', () => {
    expect(schemas.map(({ name }) => name).sort()).toEqual([...RECORD_NAMES].sort());
    expect(new Set(Object.values(FIXED_SCHEMA_IDS)).size).toBe(RECORD_NAMES.length);
  });

  it('that were superseded still tell what records of theirs hold', () => {
    const request = '00 48530201  04 7231  04 7531  04 0261 0262 00  d00f  00';
    const denying = '00 48530202  04 7231  04 7531  04 0261 0262 00  d00f  00  02 06  02 02 78 00';
    const entity = '00 48530801  06 613a31  04 0000803f 000000bf 00  02 0000000000000040  01';
    const scores = `00 48530501  04 7531  06  02 04 7231  02 02 61 000000000000e03f 00  ${LINEAGE}  d40f`;
    const letter = '00 48530601  02 74  04  0e  00  00  02 04 ff00  0c 434f44454449  02 64  02 6d';
    const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');
    expect(codec.decode('CandidateRequest', bytes(request))).toEqual({
      requestId: 'r1',
      userId: 'u1',
      entities: ['a', 'b'],
      queryTimeMs: 1_000,
    });
    expect(codec.decode('CandidateRequest', bytes(denying))).toMatchObject({ topK: 3, deny: ['x'] });
    expect(codec.decode('Entity', bytes(entity))).toEqual({
      entity: 'a:1',
      content: Float32Array.of(1, -0.5),
      popularity: 2,
      retired: true,
    });
    expect(codec.decode('CandidateScores', bytes(scores))).toEqual({
      userId: 'u1',
      version: 3,
      requestId: 'r1',
      candidates: [{ entity: 'a', score: 0.5 }],
      lineage,
      computedAtMs: 1_002,
    });
    const whole = { position, code: 'CODEDI', step: 'd', message: 'm', original: Buffer.of(0xff, 0) };
    expect(codec.decode('DeadLetter', bytes(letter))).toEqual(whole);
  });

  it('say what they are; every enum can grow, every number says its unit', () => {
    const visit = (schema: unknown): void => {
      if (typeof schema !== 'object' || schema === null) return;
      const { type, doc, name } = schema as Record<string, unknown>;
      if (type === 'enum') expect((schema as { default?: string }).default, `${name}`).toBeDefined();
      if (/Ms$/.test(String(name))) expect(doc, `${name}`).toMatch(/\bms\b/);
      Object.values(schema).forEach(visit);
    };
    for (const schema of schemas) {
      expect(schema).toMatchObject({ namespace: 'io.hstustreams', doc: expect.any(String) });
      visit(schema);
    }
  });
});

describe('a dead letter keeps what it was made of', () => {
  it('text as its bytes, a tombstone as null, an empty value as empty', () => {
    const [letter] = GOLDEN.DeadLetter;
    const original = (value: Uint8Array | string | null) => {
      const result = codec.decode('DeadLetter', codec.encode('DeadLetter', { ...letter, original: value }));
      return result instanceof Fault ? result : result.original;
    };
    expect(original('né')).toEqual(Buffer.from('né'));
    expect(original(null)).toBe(null);
    expect(original(new Uint8Array())).toEqual(Buffer.alloc(0));
  });
});

describe('a codec', () => {
  it('gives each record memory of its own', () => {
    const first = codec.encode('Erasure', { userId: 'first' });
    codec.encode('Erasure', { userId: 'other' });
    expect(codec.decode('Erasure', first)).toEqual({ userId: 'first' });
  });

  it('writes under the ids that its directory gives', () => {
    const other = new AvroCodec({ schemas: { ...directory({}), idOf: () => 77 } });
    expect(other.encode('Erasure', { userId: 'u' }).subarray(0, 5)).toEqual(Buffer.from([0, 0, 0, 0, 77]));
  });

  it('refuses to write what is not of its type', () => {
    expect(() => codec.encode('Erasure', { userId: 5 } as never)).toThrow();
    expect(() => codec.encode('UserEmbedding', { ...GOLDEN.UserEmbedding[0], embedding: [1] } as never)).toThrow();
    expect(() => codec.encode('Erasure', { userId: 'u', requestedAtMs: 2 ** 53 })).toThrow();
  });
});

describe('rows of any schema', () => {
  const read = (schema: unknown, body: number[]) =>
    new AvroCodec({ schemas: directory({ 9: schema }) }).decodeRow(framed(9, Uint8Array.from(body)));
  const field = (type: unknown, body: number[]) => {
    const row = read({ type: 'record', name: 'R', fields: [{ name: 'f', type }] }, body);
    return row instanceof Fault ? row.code : row['f'];
  };

  it('hold plain values of every type', () => {
    expect(field('null', [])).toBe(null);
    expect(field('boolean', [1])).toBe(true);
    expect(field('int', [3])).toBe(-2);
    expect(field('float', [0, 0, 0x80, 0x3f])).toBe(1);
    expect(field('bytes', [4, 1, 2])).toEqual(Buffer.from([1, 2]));
    expect(field({ type: 'fixed', name: 'F', size: 2 }, [1, 2])).toEqual(Buffer.from([1, 2]));
    expect(field({ type: 'enum', name: 'E', symbols: ['a', 'b'] }, [2])).toBe('b');
    expect(field({ type: 'array', items: 'int' }, [3, 4, 1, 4, 0])).toEqual([-1, 2]);
    expect(field({ type: 'map', values: 'string' }, [2, 2, 0x61, 2, 0x62, 0])).toEqual({ a: 'b' });
    // A union of two kinds of number is the number, without a wrapper.
    expect(field(['int', 'long', 'double'], [2, 8])).toBe(4);
    expect(field({ type: 'long', logicalType: 'timestamp-millis' }, [0xd0, 0x0f])).toBe(1_000);
  });

  it('read every long without loss: a number, or decimal text', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        expect(field('long', varint(value))).toBe(
          value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value),
        );
      }),
    );
    for (const edge of [2n ** 52n, 2n ** 53n])
      for (const by of [-1n, 0n, 1n])
        for (const sign of [1n, -1n])
          expect(BigInt(field('long', varint(sign * (edge + by))) as string)).toBe(sign * (edge + by));
  });

  it('and are none for a schema that is no record', () => {
    for (const [schema, body] of [
      ['string', [0]],
      [{ type: 'array', items: 'int' }, [0]],
      ['bytes', [0]],
      ['null', []],
    ] as const)
      expect(read(schema, [...body])).toMatchObject({ code: 'RECORD_MALFORMED' });
  });
});

describe('times are exact within 2^53', () => {
  const erasure = (value: bigint) =>
    codec.decode('Erasure', framed(FIXED_SCHEMA_IDS.Erasure, Uint8Array.from([2, 0x75, 2, ...varint(value), 0])));

  it('on both sides of zero', () => {
    for (const value of [2n ** 53n - 1n, 2n ** 52n + 1n, -(2n ** 52n) - 1n, -(2n ** 53n) + 1n])
      expect(erasure(value)).toEqual({ userId: 'u', requestedAtMs: Number(value) });
  });

  it('and a data fault beyond', () => {
    for (const value of [2n ** 53n, -(2n ** 53n), 2n ** 63n - 1n, -(2n ** 63n)])
      expect(erasure(value)).toMatchObject({ code: 'FIELD_INVALID' });
  });
});

it('the ids of a batch are found before it is decoded', () => {
  const record = (value: Uint8Array | string | null) => ({ position, value });
  const ids = schemaIdsOf(
    [
      framed(5, Buffer.alloc(0)),
      framed(5, Buffer.alloc(9)),
      framed(-1, Buffer.alloc(0)),
      Buffer.from('{"a":1}'),
      Buffer.alloc(4),
      'text',
      null,
    ].map(record),
  );
  expect([...ids]).toEqual([5, -1]);
});

/** Without classes, and with arrays for what an array may be. */
function plain(value: unknown): unknown {
  if (value instanceof Float32Array || Array.isArray(value)) return Array.from(value as unknown[], plain);
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

/** A long as Avro writes it. */
function varint(value: bigint): number[] {
  let left = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
  const bytes: number[] = [];
  for (; left >= 0x80n; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  return [...bytes, Number(left)];
}
