import avro from 'avsc';
import { describe, expect, it } from 'vitest';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { type RecordName, SCHEMA_TEXTS } from '../../schemas/avro/schemas.ts';
import { directory, framed } from './avro-arbitraries.ts';

interface Field {
  name: string;
  type: unknown;
  default?: unknown;
  aliases?: string[];
}
interface RecordSchema {
  type: 'record';
  name: string;
  namespace?: string;
  fields: Field[];
}

const WRITER = 1_001;

/** Reads what a producer with another version of our schema wrote. */
function readAs(name: RecordName, change: (schema: RecordSchema) => void, value: unknown) {
  const schema = JSON.parse(SCHEMA_TEXTS[name]) as RecordSchema;
  change(schema);
  const body = avro.Type.forSchema(schema as never).toBuffer(value);
  return new AvroCodec({ schemas: directory({ [WRITER]: schema }) }).decode(name, framed(WRITER, body));
}

const action = { eventId: 'e', userId: 'u', action: 'like', entity: 'i', value: 2.5, eventTimeMs: 1_000 };
const request = { requestId: 'r', userId: 'u', entities: ['a'], queryTimeMs: 1_000 };
const embedding = {
  userId: 'u',
  version: 1,
  embedding: [1.5, -2],
  dimension: 2,
  sequenceLength: 1,
  lastEventTimeMs: 1,
  queryTimeMs: 2,
  lineage: { topic: 't', partition: 0, offset: 0, sequenceDigest: 's', modelDigest: 'm' },
  computedAtMs: 3,
  latencyMs: 1,
  rowsComputed: 1,
  outcome: 'hit',
};
const field = (schema: RecordSchema, name: string) => schema.fields.find((entry) => entry.name === name)!;
const drop = (schema: RecordSchema, name: string) => {
  schema.fields = schema.fields.filter((entry) => entry.name !== name);
};

describe('a writer of another version is read', () => {
  it('with a field that we do not have, at any place and of any type', () => {
    const nested = {
      type: 'record',
      name: 'Extra',
      fields: [
        { name: 'many', type: { type: 'array', items: 'string' } },
        { name: 'wide', type: 'long' },
      ],
    };
    for (const at of [0, 3, 7])
      expect(
        readAs('UserAction', ({ fields }) => fields.splice(at, 0, { name: 'extra', type: nested }), {
          ...action,
          extra: { many: ['x', 'y'], wide: 9e15 },
        }),
      ).toEqual(action);
  });

  it('that skips blocks written with their size', () => {
    const schema = JSON.parse(SCHEMA_TEXTS.Erasure) as RecordSchema;
    schema.fields.unshift({ name: 'tags', type: { type: 'array', items: 'string' } });
    const codec = new AvroCodec({ schemas: directory({ [WRITER]: schema }) });
    // Count -2, four bytes, 'a', 'b', end; then the user, no time, no reason.
    const read = (size: number) =>
      codec.decode('Erasure', framed(WRITER, Uint8Array.from([3, size, 2, 0x61, 2, 0x62, 0, 2, 0x75, 0, 0])));
    expect(read(8)).toEqual({ userId: 'u' });
    // A reader that trusted the size would find itself inside a text.
    for (const size of [6, 10, 1, 200])
      expect(read(size)).toMatchObject({ code: 'RECORD_MALFORMED', message: expect.stringContaining('a block') });
  });

  it('without a field that has a default', () => {
    const { value: _, ...valueless } = action;
    expect(readAs('UserAction', (schema) => (drop(schema, 'value'), drop(schema, 'context')), valueless)).toEqual(valueless);
    expect(readAs('Erasure', (schema) => (drop(schema, 'reason'), drop(schema, 'requestedAtMs')), { userId: 'u' })).toEqual({
      userId: 'u',
    });
  });

  it('with smaller numbers: int for long, float or int for double', () => {
    expect(readAs('UserAction', (schema) => (field(schema, 'eventTimeMs').type = 'int'), action)).toEqual(action);
    expect(
      readAs('UserAction', (schema) => Object.assign(field(schema, 'value'), { type: 'float', default: 0 }), action),
    ).toEqual(action);
    expect(
      readAs('UserAction', (schema) => Object.assign(field(schema, 'value'), { type: ['int', 'null'], default: 0 }), {
        ...action,
        value: 3,
      }),
    ).toEqual({ ...action, value: 3 });
  });

  it('with an embedding of float in several blocks, and of other whole numbers', () => {
    const embeddingOf = (result: unknown) => (result as { embedding: Float32Array }).embedding;
    expect(embeddingOf(readAs('UserEmbedding', () => undefined, embedding))).toEqual(Float32Array.of(1.5, -2));
    const ints = readAs('UserEmbedding', (schema) => (field(schema, 'embedding').type = { type: 'array', items: 'int' }), {
      ...embedding,
      embedding: [3, 4],
    });
    expect(embeddingOf(ints)).toEqual(Float32Array.of(3, 4));
    const schema = JSON.parse(SCHEMA_TEXTS.UserEmbedding) as RecordSchema;
    const body = avro.Type.forSchema(schema as never).toBuffer(embedding);
    // One block of two (04 … 00) becomes one of one and one of one with its size (02 … 01 08 … 00).
    const at = body.indexOf(Buffer.from([4, 0, 0, 0xc0, 0x3f]));
    const blocks = Buffer.from([2, ...body.subarray(at + 1, at + 5), 1, 8, ...body.subarray(at + 5, at + 9)]);
    const split = Buffer.concat([body.subarray(0, at), blocks, body.subarray(at + 9)]);
    expect(
      embeddingOf(new AvroCodec({ schemas: directory({ [WRITER]: schema }) }).decode('UserEmbedding', framed(WRITER, split))),
    ).toEqual(Float32Array.of(1.5, -2));
  });

  it('with an enum symbol that we do not know: our default', () => {
    const grow = (schema: RecordSchema) => (field(schema, 'outcome').type as { symbols: string[] }).symbols.unshift('spilled');
    expect(readAs('UserEmbedding', grow, { ...embedding, outcome: 'spilled' })).toMatchObject({ outcome: 'uncached' });
    expect(readAs('UserEmbedding', grow, { ...embedding, outcome: 'window' })).toMatchObject({ outcome: 'window' });
  });

  it('with fields in another order, and in a namespace of its own', () => {
    expect(
      readAs('UserAction', (schema) => (schema.fields.reverse(), Object.assign(schema, { namespace: 'com.shop' })), action),
    ).toEqual(action);
  });
});

describe('a writer that cannot be read is told apart', () => {
  it.each([
    ['a record of another name', (schema: RecordSchema) => (schema.name = 'Click')],
    ['a required field that is not there', (schema: RecordSchema) => drop(schema, 'requestId')],
    ['text where a number is needed', (schema: RecordSchema) => (field(schema, 'queryTimeMs').type = 'string')],
    ['bytes where text is needed', (schema: RecordSchema) => (field(schema, 'userId').type = 'bytes')],
    [
      'bytes where texts are needed',
      (schema: RecordSchema) => (field(schema, 'entities').type = { type: 'array', items: 'bytes' }),
    ],
    ['a larger number', (schema: RecordSchema) => (field(schema, 'queryTimeMs').type = 'double')],
    ['a renamed field', (schema: RecordSchema) => (field(schema, 'userId').name = 'user')],
  ])('%s', (_, change) => {
    const value = {
      ...request,
      user: 'u',
      queryTimeMs: undefined as unknown,
      userId: undefined as unknown,
      entities: [] as unknown[],
    };
    const schema = JSON.parse(SCHEMA_TEXTS.CandidateRequest) as RecordSchema;
    change(schema);
    value.queryTimeMs = field(schema, 'queryTimeMs').type === 'string' ? 'soon' : 1_000;
    value.userId = schema.fields.find(({ name, type }) => name === 'userId' && type === 'bytes') ? Buffer.from('u') : 'u';
    const read = readAs('CandidateRequest', change, value);
    expect(read).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE', message: expect.stringContaining(String(WRITER)) });
  });

  it('a schema of another kind, and one that is none', () => {
    const find = (text: string, schemaType = 'AVRO') =>
      new AvroCodec({ schemas: { ...directory({}), find: () => ({ text, schemaType }) } });
    const bytes = framed(WRITER, Uint8Array.from([2, 0x75, 0, 0]));
    const deep = `${'{"type":"array","items":'.repeat(20_000)}"int"${'}'.repeat(20_000)}`;
    for (const codec of [
      find('{}', 'PROTOBUF'),
      find('{}'),
      find('nonsense'),
      find('{"type":"record"}'),
      find('null'),
      find(deep),
    ]) {
      expect(codec.decode('Erasure', bytes)).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
      expect(codec.decodeRow(bytes)).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
    }
    const proto = JSON.stringify({ type: 'record', name: 'Erasure', fields: [{ name: '__proto__', type: 'string' }] });
    expect(find(proto).decodeRow(bytes)).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
  });

  it('an id that nobody knows, until somebody does', () => {
    const schemas: Record<number, unknown> = {};
    const codec = new AvroCodec({ schemas: directory(schemas) });
    const bytes = framed(WRITER, Uint8Array.from([2, 0x75, 0, 0]));
    expect(codec.decode('Erasure', bytes)).toMatchObject({
      code: 'SCHEMA_UNKNOWN',
      message: expect.stringContaining(String(WRITER)),
    });
    schemas[WRITER] = JSON.parse(SCHEMA_TEXTS.Erasure);
    expect(codec.decode('Erasure', bytes)).toEqual({ userId: 'u' });
  });
});

it('a schema may refer to others by name', () => {
  const references = [JSON.stringify({ type: 'record', name: 'shop.Item', fields: [{ name: 'id', type: 'string' }] })];
  const text = JSON.stringify({ type: 'record', name: 'shop.Click', fields: [{ name: 'item', type: 'shop.Item' }] });
  const codec = new AvroCodec({ schemas: { ...directory({}), find: () => ({ text, references }) } });
  expect(codec.decodeRow(framed(WRITER, Uint8Array.from([2, 0x61])))).toEqual({ item: { id: 'a' } });
});
