/** Values in a registry's frame: JSON Schema's, and Protobuf's as protobufjs' own encoder writes them. */
import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas, type SchemaDirectory, type WriterSchema } from '../../schemas/avro/schemas.ts';

const topics = { userActions: 'shop', erasures: 'e', candidateRequests: 'r' };
const position = { topic: 'shop', partition: 0, offset: 1 };
const mapping = {
  userId: '{user.id}',
  action: '{kind}',
  entity: 'product:{lines.sku}',
  value: 'lines.price',
  each: 'lines',
  eventTime: { field: 'at', unit: 'ms' as const },
};

const SHOP = `
  syntax = "proto3";
  package acme.shop;
  import "google/protobuf/wrappers.proto";
  import "user.proto";
  message Other { int32 x = 1; }
  message Order {
    enum Kind { view = 0; purchase = 1; }
    message Line { string sku = 1; google.protobuf.DoubleValue price = 2; }
    acme.people.User user = 1;
    Kind kind = 2;
    repeated Line lines = 3;
    int64 at = 4;
  }`;
const USER = 'syntax = "proto3"; package acme.people; message User { int64 id = 1; }';

const directory = (schemas: Readonly<Record<number, WriterSchema>>): SchemaDirectory => ({
  ...fixedSchemas,
  find: (id) => schemas[id] ?? fixedSchemas.find(id),
});
const framed = (id: number, body: Uint8Array | string): Buffer => {
  const head = Buffer.alloc(5);
  head.writeInt32BE(id, 1);
  return Buffer.concat([head, Buffer.from(body as Uint8Array)]);
};
const decoderWith = (schemas: Readonly<Record<number, WriterSchema>>, valueFormat: 'avro' | 'json' = 'avro') => {
  const { decode } = createRecordDecoder({ topics, valueFormat, mapping, schemas: directory(schemas) });
  return (value: Uint8Array | null) => decode({ position, value });
};

/** Zigzag varints of small numbers. */
const indexes = (...at: readonly number[]) => Uint8Array.from([at.length, ...at].map((n) => n << 1));

function order(message: object): Uint8Array {
  const { root } = protobuf.parse(SHOP, { keepCase: true });
  protobuf.parse(USER, root, { keepCase: true });
  root.addJSON(protobuf.common.get('google/protobuf/wrappers.proto')!.nested!);
  const type = root.lookupType('acme.shop.Order');
  return type.encode(type.fromObject(message)).finish();
}

const MESSAGE = {
  user: { id: '9007199254740993' },
  kind: 'purchase',
  lines: [{ sku: 'a', price: { value: 2.5 } }, { sku: 'b' }],
  at: 1_700_000_000_000,
};

describe('a value in the frame of a registry', () => {
  it('is Protobuf where its schema is: ids of 64 bits whole, enumerations by name, lists, types of other files', () => {
    const decode = decoderWith({ 7: { text: SHOP, references: [USER], schemaType: 'PROTOBUF' } });
    const decoded = decode(framed(7, Buffer.concat([indexes(1), order(MESSAGE)])));
    expect(decoded).toMatchObject({
      ok: true,
      actions: [
        { userId: '9007199254740993', action: 'purchase', entity: 'product:a', eventTimeMs: 1_700_000_000_000 },
        { userId: '9007199254740993', entity: 'product:b' },
      ],
    });
    // What proto3 leaves out because it is zero is there: the first of the enumeration.
    expect(decode(framed(7, Buffer.concat([indexes(1), order({ ...MESSAGE, kind: 'view' })])))).toMatchObject({
      actions: [{ action: 'view' }, { action: 'view' }],
    });
  });

  it.each([
    [
      'a message that the schema does not have',
      Buffer.concat([indexes(5), order(MESSAGE)]),
      'RECORD_MALFORMED',
      /no such message/,
    ],
    ['a message that is cut', Buffer.concat([indexes(1), order(MESSAGE).subarray(0, 9)]), 'RECORD_MALFORMED', /no message Order/],
    ['no message indexes', Buffer.alloc(0), 'RECORD_MALFORMED', /no message indexes/],
    ['very many indexes', Buffer.from([0xfe, 0xff, 0x7f]), 'RECORD_MALFORMED', /message indexes; 0 to 16 are allowed/],
    ['another message of the schema', Buffer.concat([Buffer.from([0]), order(MESSAGE)]), 'FIELD_MISSING', /lines/],
  ])('is a dead letter for %s', (_, body, code, message) => {
    const decode = decoderWith({ 7: { text: SHOP, references: [USER], schemaType: 'PROTOBUF' } });
    expect(decode(framed(7, body))).toMatchObject({ ok: false, code, message: expect.stringMatching(message) });
  });

  it('is JSON where its schema is JSON Schema, or where JSON is expected and nobody knows the id', () => {
    const text = JSON.stringify({ user: { id: 5 }, kind: 'view', lines: [{ sku: 'a', price: 1 }], at: 5_000 });
    const wanted = { ok: true, actions: [{ userId: '5', entity: 'product:a', value: 1 }] };
    expect(decoderWith({ 8: { text: '{}', schemaType: 'JSON' } })(framed(8, text))).toMatchObject(wanted);
    expect(decoderWith({}, 'json')(framed(99, text))).toMatchObject(wanted);
    expect(decoderWith({}, 'avro')(framed(99, text))).toMatchObject({ code: 'SCHEMA_UNKNOWN' });
    expect(decoderWith({ 8: { text: '{}', schemaType: 'JSON' } })(framed(8, '{'))).toMatchObject({ code: 'RECORD_MALFORMED' });
  });

  it('of a type or a schema that nobody reads is a dead letter that says so', () => {
    expect(decoderWith({ 9: { text: '', schemaType: 'XML' } })(framed(9, 'x'))).toMatchObject({
      code: 'SCHEMA_INCOMPATIBLE',
      message: 'schema 9 is of type XML; read are AVRO, JSON, PROTOBUF',
    });
    expect(decoderWith({ 9: { text: 'message {', schemaType: 'PROTOBUF' } })(framed(9, 'x'))).toMatchObject({
      code: 'SCHEMA_INCOMPATIBLE',
    });
  });
});

describe('a change record of Debezium', () => {
  const decode = createRecordDecoder({
    topics,
    valueFormat: 'json',
    mapping: [
      {
        when: { op: ['c', 'r', 'u'] },
        userId: '{after.user_id}',
        action: 'view',
        entity: 'p:{after.sku}',
        eventTime: { field: 'ts_ms', unit: 'ms' },
      },
      { ignore: 'rest' },
    ],
  }).decode;
  const change = (op: string, after: object | null) =>
    decode({ position, value: JSON.stringify({ before: null, after, op, ts_ms: 9_000, source: { table: 'views' } }) });

  it('is mapped by its operation; deletes, and the tombstones behind them, as configured', () => {
    expect(change('c', { user_id: 3, sku: 'a' })).toMatchObject({
      ok: true,
      actions: [{ userId: '3', entity: 'p:a', eventTimeMs: 9_000 }],
    });
    expect(change('d', null)).toEqual({ ok: true, actions: [], ignored: true });
    expect(decode({ position, value: null })).toEqual({ ok: true, actions: [], ignored: true });
  });
});
