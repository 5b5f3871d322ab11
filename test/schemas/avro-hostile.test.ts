import avro from 'avsc';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { FIXED_SCHEMA_IDS, RECORD_NAMES, type RecordName } from '../../schemas/avro/schemas.ts';
import { ERROR_CODES } from '../../schemas/errors.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { directory, framed, RECORDS } from './avro-arbitraries.ts';

/** Longest that any record of a few thousand bytes may take, ms. */
const MAX_DECODE_MS = 20;

const record = (fields: readonly (readonly [string, unknown])[], name = 'R') => ({
  type: 'record',
  name,
  fields: fields.map(([field, type]) => ({ name: field, type })),
});
/** Schemas of other people, with everything that bytes can lie about. */
const WILD: Readonly<Record<number, unknown>> = {
  1: record([['nulls', { type: 'array', items: 'null' }]]),
  2: record([['empties', { type: 'array', items: record([], 'Empty') }]]),
  3: record([
    ['value', 'int'],
    ['next', ['null', 'R']],
  ]),
  4: record([['children', { type: 'array', items: 'R' }]]),
  5: record([['maps', { type: 'map', values: { type: 'map', values: 'null' } }]]),
  6: record([
    ['fixed', { type: 'fixed', name: 'F', size: 16 }],
    ['flag', 'boolean'],
    ['kind', { type: 'enum', name: 'E', symbols: ['a', 'b'] }],
  ]),
  7: record([
    ['floats', { type: 'array', items: 'float' }],
    ['raw', 'bytes'],
    ['text', 'string'],
    ['any', ['null', 'int', 'long', 'string']],
  ]),
  8: record([['none', { type: 'array', items: { type: 'array', items: { type: 'fixed', name: 'Z', size: 0 } } }]]),
  // Empty, and two to the thirtieth of them: no byte would ever be read.
  9: Array.from({ length: 30 }).reduce(
    (inner: unknown, _, depth) =>
      record(
        [
          ['a', inner],
          ['b', `L${depth}`],
        ],
        `L${depth + 1}`,
      ),
    record([], 'L0'),
  ),
};
const options = { schemas: directory(WILD), maxRecordBytes: 32_768 };
const codec = new AvroCodec(options);

/** Any fault must be told, by a code of data. */
function check(result: unknown): boolean {
  const told =
    result instanceof Fault ? result : (result as { ok?: unknown; code?: unknown }).ok === false ? (result as Fault) : undefined;
  if (told === undefined) return true;
  if (ERROR_CODES[told.code]?.fault !== 'data' || told.message === '')
    throw new Error(`a fault without a code of data: ${JSON.stringify(told)}`);
  return false;
}

/** How long it takes at best: another process may have had the processor. */
function bestMs(work: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 5 && best > MAX_DECODE_MS; attempt++) {
    const started = performance.now();
    work();
    best = Math.min(best, performance.now() - started);
  }
  return best;
}

describe('a count that the bytes cannot hold is refused before anything is made of it', () => {
  /** 2^50, and 2^20, as Avro writes them. */
  const HUGE = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04];
  const MILLION = [0x80, 0x80, 0x80, 0x01];
  const NEGATIVE_MILLION = [0xff, 0xff, 0x7f, 0x00];

  it('where plain avsc makes a million items of five bytes', () => {
    const nulls = avro.Type.forSchema(WILD[1] as never);
    const bomb = Buffer.from([...MILLION, 0]);
    // The control: with 2^50 for the million, this line takes all memory there is.
    expect(nulls.fromBuffer(bomb).nulls).toHaveLength(2 ** 20);
    expect(codec.decodeRow(framed(1, bomb))).toMatchObject({
      code: 'RECORD_MALFORMED',
      message: expect.stringContaining('empty items'),
    });
  });

  const entities = [2, 0x72, 2, 0x75];
  it.each<readonly [string, number, readonly number[]]>([
    ['null items', 1, HUGE],
    ['null items in many blocks', 1, [...Array.from({ length: 2_000 }, () => [0x80, 0x08]).flat(), 0]],
    ['null items with a block size', 1, [...NEGATIVE_MILLION, 0, 0]],
    ['empty records', 2, [...MILLION, 0]],
    ['children', 4, HUGE],
    ['map entries', 5, HUGE],
    ['map entries within', 5, [2, 0, ...HUGE]],
    [
      'map entries, more than any object should have',
      5,
      [0xa2, 0x9c, 0x01, ...Array.from({ length: 10_001 }, () => [0, 0]).flat(), 0],
    ],
    ['floats', 7, HUGE],
    ['floats: the count times four beyond the record', 7, [20, 0, 0, 0, 0]],
    ['bytes', 7, [0, ...HUGE]],
    ['text', 7, [0, 0, ...HUGE]],
    ['a negative length', 7, [0, 1]],
    ['items of size zero', 8, [2, ...MILLION, 0, 0]],
    ['records without bytes, two to the thirtieth', 9, []],
    ['entities of a request', FIXED_SCHEMA_IDS.CandidateRequest, [...entities, ...HUGE]],
    ['an embedding', FIXED_SCHEMA_IDS.UserEmbedding, [2, 0x75, 2, ...HUGE]],
    ['an overlong count', 1, [...Array(10).fill(0x80), 0]],
    ['an endless number', 1, Array(500).fill(0xff)],
    ['a boolean of 2', 6, [...Array(16).fill(0), 2, 0]],
    ['an enum out of range', 6, [...Array(16).fill(0), 1, 4]],
    ['a negative enum', 6, [...Array(16).fill(0), 1, 1]],
    ['a union out of range', 7, [0, 0, 0, 8]],
    ['a negative union', 7, [0, 0, 0, 1]],
    ['an int of more than 32 bits', 3, [0xff, 0xff, 0xff, 0xff, 0x1f, 0]],
    ['an int of six bytes', 3, [0x80, 0x80, 0x80, 0x80, 0x80, 0, 0]],
    ['a long of more than 64 bits', 7, [0, 0, 0, 4, ...Array(9).fill(0xff), 0x02]],
  ])('%s', (_, id, body) => {
    const bytes = framed(id, Uint8Array.from(body));
    const before = process.memoryUsage();
    const ms = bestMs(() => {
      expect(codec.decodeRow(bytes)).toMatchObject({ code: 'RECORD_MALFORMED' });
      for (const name of RECORD_NAMES) expect(check(codec.decode(name, bytes))).toBe(false);
    });
    const after = process.memoryUsage();
    expect(ms).toBeLessThan(MAX_DECODE_MS);
    expect(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers).toBeLessThan(32 * 1024 * 1024);
  });

  it('and an honest one is not', () => {
    expect(codec.decodeRow(framed(1, Buffer.from([0x80, 0x08, 0])))).toEqual({ nulls: Array(512).fill(null) });
    expect(codec.decodeRow(framed(2, Buffer.from([4, 0])))).toEqual({ empties: [{}, {}] });
    expect(codec.decodeRow(framed(4, Buffer.from([0xc8, 0x01, ...Array(100).fill(0), 0])))).toEqual({
      children: Array(100).fill({ children: [] }),
    });
    expect(codec.decodeRow(framed(3, Buffer.from([2, 2, 4, 0])))).toEqual({ value: 1, next: { value: 2, next: null } });
  });
});

describe('records inside records', () => {
  const chain = (length: number) => framed(3, Buffer.from([...Array.from({ length }, () => [0, 2]).flat(), 0, 0]));
  const tree = (depth: number) => framed(4, Buffer.from([...Array(depth).fill(2), 0, ...Array(depth).fill(0)]));

  it('end at a depth that no stack feels', () => {
    for (const bytes of [chain(63), tree(63)]) expect(codec.decodeRow(bytes)).not.toBeInstanceOf(Fault);
    for (const bytes of [chain(64), tree(64), chain(8_000), tree(8_000)])
      expect(codec.decodeRow(bytes)).toMatchObject({ code: 'RECORD_MALFORMED', message: expect.stringContaining('deep') });
  });
});

describe('schemas that no people write', () => {
  const arrays = (depth: number) => `${'{"type":"array","items":'.repeat(depth)}"int"${'}'.repeat(depth)}`;
  const inRecord = (type: string) => `{"type":"record","name":"R","fields":[{"name":"a","type":${type}}]}`;
  const union = (records: number) =>
    inRecord(`[${Array.from({ length: records }, (_, i) => `{"type":"record","name":"r${i}","fields":[]}`).join(',')}]`);
  const chained = (records: number) =>
    inRecord(
      `[${Array.from({ length: records }, (_, i) => `{"type":"record","name":"r${i}","fields":[{"name":"f","type":"${i === 0 ? 'int' : `r${i - 1}`}"}]}`).join(',')}]`,
    );
  const decode = (text: string, body: Uint8Array = Buffer.alloc(100)) =>
    new AvroCodec({ schemas: { idOf: () => 1, find: () => ({ text }) } }).decodeRow(framed(1, body));
  const refused = (text: string) => {
    const started = performance.now();
    const found = decode(text);
    expect(performance.now() - started).toBeLessThan(3_000);
    expect(found).toBeInstanceOf(Fault);
    return (found as Fault).message;
  };

  it('are refused with their number, at once, and never by an exception', () => {
    expect(refused(union(50_000))).toMatch(
      /schema 1 cannot be read: \d+ characters with what it refers to; at most 262144 are read/,
    );
    expect(refused(inRecord(arrays(8_000)))).toContain('nested more than 256 deep');
    expect(refused(inRecord(arrays(20_000)))).toContain('at most 262144 are read');
    for (const depth of [250, 1_000, 3_000, 8_000, 20_000])
      for (const wrap of [inRecord, (text: string) => text]) refused(wrap(arrays(depth)));
    for (const size of [100, 1_000, 3_500]) refused(chained(size));
  });

  it('and those at the limits are read', () => {
    expect(decode(inRecord(arrays(200)), Buffer.from([...Array(199).fill(2), 0, ...Array(199).fill(0)]))).toHaveProperty('a');
    expect(decode(union(5_000), Buffer.from([0]))).toHaveProperty('a');
  });

  it('which nest arrays within records within arrays end before the stack does', () => {
    const tree = `{"type":"record","name":"R","fields":[{"name":"a","type":${arrays(100).replace('"int"', '"R"')}}]}`;
    const down = Buffer.from([...Array(6_000).fill(2)]);
    expect(decode(tree, down)).toMatchObject({
      code: 'RECORD_MALFORMED',
      message: expect.stringContaining('more than 512 deep'),
    });
  });
});

describe('text that is not UTF-8', () => {
  const erase = (user: number[]) =>
    codec.decode('Erasure', framed(FIXED_SCHEMA_IDS.Erasure, Buffer.from([user.length * 2, ...user, 0, 0])));

  it.each([
    ['a lone byte', [0xff]],
    ['a character cut short', [0xe2, 0x82]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['an overlong slash', [0xc0, 0xaf]],
    ['after fifty good characters', [...Array(55).fill(0x61), 0x80]],
  ])('%s', (_, user) => {
    expect(erase(user)).toMatchObject({ code: 'RECORD_MALFORMED', message: expect.stringContaining('UTF-8') });
  });

  it('and text that is', () => {
    expect(erase([...Buffer.from('né🎬')])).toEqual({ userId: 'né🎬' });
  });
});

it('a record over the limit is not looked at', () => {
  expect(codec.decode('Erasure', Buffer.alloc(32_769))).toMatchObject({ code: 'RECORD_TOO_LARGE' });
  expect(codec.decodeRow(Buffer.alloc(32_768))).toMatchObject({ code: 'SCHEMA_UNKNOWN' });
});

describe('whatever the bytes', () => {
  const topics = { userActions: 'a', erasures: 'e', candidateRequests: 'r' };
  const decoders = (['avro', 'json'] as const).flatMap((valueFormat) => [
    createRecordDecoder({ ...options, topics, valueFormat }),
    createRecordDecoder({
      ...options,
      topics,
      valueFormat,
      mapping: {
        userId: '{userId}',
        action: 'x',
        entity: '{text}',
        value: 'value',
        eventTime: { field: 'eventTimeMs', unit: 'us' },
      },
    }),
  ]);

  const seed = 20_240_501;
  const samples = RECORD_NAMES.flatMap((name: RecordName) =>
    fc.sample(RECORDS[name] as fc.Arbitrary<never>, { numRuns: 150, seed }).map((value) => codec.encode(name, value)),
  );
  const wild = Object.keys(WILD).map((id) =>
    framed(Number(id), Buffer.from([2, 4, 2, 0x61, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
  );
  const NUMBERS = [
    [0],
    [1],
    [2],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04],
    [0xff, 0xff, 0xff, 0xff, 0x0f],
    Array(9).fill(0xff).concat(1),
    Array(12).fill(0x80),
  ];

  /** Small and quick, so that the fuzz is the same everywhere. */
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const pick = <T>(of: readonly T[]): T => of[random(of.length)]!;

  function mutate(original: Buffer): Buffer {
    const bytes = Buffer.from(original);
    const at = random(bytes.length);
    switch (random(8)) {
      case 0:
        bytes[at]! ^= 1 << random(8);
        return bytes;
      case 1:
        return bytes.subarray(0, at);
      case 2:
        return Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(NUMBERS)), bytes.subarray(at)]);
      case 3:
        return Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(NUMBERS)), bytes.subarray(at + 1)]);
      case 4:
        return Buffer.concat([bytes.subarray(0, at), pick(samples).subarray(random(40))]);
      case 5:
        bytes.writeInt32BE(
          pick([...Object.values(FIXED_SCHEMA_IDS), ...Object.keys(WILD).map(Number), 0, -1, random(2 ** 31)]),
          1,
        );
        return bytes;
      case 6:
        for (let n = random(12); n >= 0; n--) bytes[5 + random(Math.max(1, bytes.length - 5))] = random(256);
        return bytes;
      default: {
        const middle = bytes.subarray(at, at + random(64));
        return Buffer.concat([bytes.subarray(0, at), ...Array<Buffer>(1 + random(60)).fill(middle), bytes.subarray(at)]);
      }
    }
  }

  it('no decode throws, dawdles, or fails without a code', { timeout: 240_000 }, () => {
    let decoded = 0;
    let refused = 0;
    let worstMs = 0;
    for (let round = 0; round < 60_000; round++) {
      let bytes = mutate(random(10) === 0 ? pick(wild) : pick(samples));
      if (random(4) === 0 && bytes.length > 5) bytes = mutate(bytes);
      const id = bytes.length < 5 ? 0 : bytes.readInt32BE(1);
      const name = RECORD_NAMES.find((known) => FIXED_SCHEMA_IDS[known] === id) ?? pick(RECORD_NAMES);
      const { decode, decodeRequest } = pick(decoders);
      const fuzzed = (topic: string) => ({
        position: { topic, partition: 0, offset: round },
        value: bytes,
        key: bytes.subarray(0, 9),
        timestampMs: 1_000,
      });
      const each = [
        () => codec.decode(name, bytes),
        () => codec.decodeRow(bytes),
        () => decode(fuzzed('a')),
        () => decode(fuzzed('e')),
        () => decodeRequest(fuzzed('r')),
      ];
      for (const work of each) {
        const started = performance.now();
        if (check(work())) decoded++;
        else refused++;
        let ms = performance.now() - started;
        if (ms > MAX_DECODE_MS) ms = bestMs(work);
        worstMs = Math.max(worstMs, ms);
      }
    }
    expect(worstMs).toBeLessThan(MAX_DECODE_MS);
    // The fuzz must reach both ends, or it would show nothing.
    expect(decoded).toBeGreaterThan(5_000);
    expect(refused).toBeGreaterThan(100_000);
  });
});
