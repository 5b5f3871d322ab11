import avro from 'avsc';
import { describe, expect, it } from 'vitest';
import type { SourceRecord } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder, type RecordDecoderOptions } from '../../schemas/avro/record-decoder.ts';
import { directory, framed } from './avro-arbitraries.ts';

const topics = { userActions: 'user-actions', erasures: 'erasures', candidateRequests: 'candidate-requests' };
const codec = new AvroCodec();
const NOW = 1_700_000_000_000;
const bounds = { minMs: 1_000, maxFutureMs: 500, now: () => NOW };
const action = {
  eventId: 'e1',
  userId: 'u1',
  action: 'like',
  entity: 'movie:1',
  value: 4.5,
  eventTimeMs: 2_000,
  context: { device: 'tv' },
};
const request = {
  requestId: 'r1',
  userId: 'u1',
  entities: ['movie:1', 'movie:2'],
  queryTimeMs: 2_000,
  deadlineMs: 3_000,
  topK: 1,
  deny: ['movie:3'],
};

const at = (topic: string) => ({ topic, partition: 1, offset: 7 });
const decoder = (options: Partial<RecordDecoderOptions> = {}) => createRecordDecoder({ topics, ...bounds, ...options });
const decodeAction = (value: SourceRecord['value'], options: Partial<RecordDecoderOptions> = {}) =>
  decoder(options).decode({ position: at('user-actions'), value });
const erase = (record: Partial<SourceRecord>, options: Partial<RecordDecoderOptions> = {}) =>
  decoder(options).decode({ position: at('erasures'), value: null, timestampMs: 5_000, ...record });
const ask = (value: SourceRecord['value']) => decoder().decodeRequest({ position: at('candidate-requests'), value });
const encode = (change: object) => codec.encode('UserAction', { ...action, ...change });
const json = (value: unknown) => Buffer.from(JSON.stringify(value));

describe('an action', () => {
  const decoded = { ok: true, actions: [{ ...action, position: at('user-actions') }] };

  it('is the same from Avro and from JSON', () => {
    expect(decodeAction(encode({}))).toEqual(decoded);
    expect(decodeAction(json(action), { valueFormat: 'json' })).toEqual(decoded);
    expect(decodeAction(JSON.stringify(action), { valueFormat: 'json' })).toEqual(decoded);
  });

  it('may lack a value and a context', () => {
    const { value: _, context: __, ...bare } = action;
    const expected = { ok: true, actions: [{ ...bare, position: at('user-actions') }] };
    expect(decodeAction(codec.encode('UserAction', bare))).toEqual(expected);
    expect(decodeAction(json({ ...bare, value: null, context: null }), { valueFormat: 'json' })).toEqual(expected);
  });

  it.each([
    ['an empty id', { userId: '' }, 'FIELD_INVALID'],
    ['an id too long', { entity: 'x'.repeat(1_025) }, 'FIELD_INVALID'],
    ['a time before the earliest', { eventTimeMs: 999 }, 'TIME_INVALID'],
    ['a time ahead of the clock', { eventTimeMs: NOW + 501 }, 'TIME_INVALID'],
    ['a time that no store holds', { eventTimeMs: 2 ** 53 - 2 }, 'TIME_INVALID'],
  ])('with %s is refused alike in both formats', (_, change, code) => {
    expect(decodeAction(encode(change))).toMatchObject({ ok: false, code });
    expect(decodeAction(json({ ...action, ...change }), { valueFormat: 'json' })).toMatchObject({ ok: false, code });
  });

  it('goes without a value that is no number, and without a context entry that is too long: alike in both formats, and told', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      expect(decodeAction(encode({ value }))).toEqual({
        ok: true,
        actions: [expect.not.objectContaining({ value: expect.anything() })],
        invalid: [{ field: 'value', message: `field 'value' must be a number, found ${value}` }],
      });
    const context = { a: 'x'.repeat(1_025), b: 'kept' };
    for (const decoded of [
      decodeAction(encode({ context })),
      decodeAction(json({ ...action, context }), { valueFormat: 'json' }),
    ])
      expect(decoded).toMatchObject({ ok: true, actions: [{ context: { b: 'kept' } }], invalid: [{ field: 'context' }] });
  });

  it('at the edge of what is credible is taken', () => {
    for (const eventTimeMs of [1_000, NOW + 500]) expect(decodeAction(encode({ eventTimeMs }))).toMatchObject({ ok: true });
    expect(decodeAction(encode({ context: { empty: '' } }))).toMatchObject({ ok: true, actions: [{ context: { empty: '' } }] });
  });

  it('in JSON says which field is missing, and what is no object of texts', () => {
    const { userId: _, ...anonymous } = action;
    expect(decodeAction(json(anonymous), { valueFormat: 'json' })).toMatchObject({
      code: 'FIELD_MISSING',
      message: "field 'userId' is missing",
    });
    for (const context of ['text', ['a'], { a: {} }])
      expect(decodeAction(json({ ...action, context }), { valueFormat: 'json' })).toMatchObject({
        ok: true,
        invalid: [{ field: 'context' }],
      });
    expect(decodeAction(json({ ...action, context: { n: 5, none: null } }), { valueFormat: 'json' })).toMatchObject({
      actions: [{ context: { n: '5' } }],
    });
  });

  it('is not made of nothing, of JSON where Avro is read, or of another topic', () => {
    for (const valueFormat of ['avro', 'json'] as const) {
      expect(decodeAction(null, { valueFormat })).toMatchObject({ ok: false, code: 'RECORD_MALFORMED' });
      expect(decodeAction(Buffer.alloc(0), { valueFormat })).toMatchObject({ ok: false, code: 'RECORD_MALFORMED' });
    }
    expect(decodeAction(json(action))).toMatchObject({
      code: 'RECORD_MALFORMED',
      message: expect.stringContaining('wire format'),
    });
    expect(decodeAction('text')).toMatchObject({ code: 'RECORD_MALFORMED' });
    // Framed Avro tells by its first byte what it is.
    expect(decodeAction(encode({}), { valueFormat: 'json' })).toEqual(decodeAction(encode({})));
    expect(decoder().decode({ position: at('elsewhere'), value: encode({}) })).toMatchObject({ code: 'RECORD_MALFORMED' });
    expect(decodeAction(codec.encode('Erasure', { userId: 'u' }))).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
  });

  it('is bounded in size', () => {
    const bytes = encode({});
    expect(decodeAction(bytes, { maxRecordBytes: bytes.length })).toMatchObject({ ok: true });
    expect(decodeAction(bytes, { maxRecordBytes: bytes.length - 1 })).toMatchObject({ code: 'RECORD_TOO_LARGE' });
  });
});

describe("a user's own Avro record, by the mapping", () => {
  const schema = {
    type: 'record',
    name: 'shop.Click',
    fields: [
      { name: 'user', type: { type: 'record', name: 'shop.User', fields: [{ name: 'id', type: 'long' }] } },
      { name: 'sku', type: ['null', 'string', 'int', 'long'] },
      { name: 'price', type: 'float' },
      { name: 'at', type: { type: 'long', logicalType: 'timestamp-micros' } },
    ],
  };
  const mapping = {
    userId: '{user.id}',
    action: 'click',
    entity: 'sku:{sku}',
    value: 'price',
    eventTime: { field: 'at', unit: 'us' },
  } as const;
  const type = avro.Type.forSchema(schema as never);
  const decode = (row: object) => decodeAction(framed(50, type.toBuffer(row)), { mapping, schemas: directory({ 50: schema }) });
  const row = { user: { id: 5 }, sku: { string: 'a1' }, price: 1.5, at: 2_000_999 };

  it('becomes an action', () => {
    expect(decode(row)).toEqual({
      ok: true,
      actions: [
        {
          eventId: 'user-actions/1/7',
          userId: '5',
          action: 'click',
          entity: 'sku:a1',
          value: 1.5,
          eventTimeMs: 2_000,
          position: at('user-actions'),
        },
      ],
    });
    expect(decode({ ...row, sku: { long: 9 } })).toMatchObject({ actions: [{ entity: 'sku:9' }] });
    expect(decode({ ...row, sku: null })).toMatchObject({ code: 'FIELD_MISSING' });
  });

  it('keeps an id of 64 bits whole', () => {
    const body = type.toBuffer(row);
    // 0a, the user's 5, becomes 2^63 - 1.
    const bytes = Buffer.concat([Buffer.from([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), body.subarray(1)]);
    expect(decodeAction(framed(50, bytes), { mapping, schemas: directory({ 50: schema }) })).toMatchObject({
      actions: [{ userId: '9223372036854775807', eventTimeMs: 2_000 }],
    });
  });

  it('is read by name of the fields from our own schema too', () => {
    const own = {
      userId: 'app:{userId}',
      action: '{action}',
      entity: '{context.device}',
      eventTime: { field: 'eventTimeMs', unit: 'ms' },
    } as const;
    expect(decodeAction(encode({}), { mapping: own })).toMatchObject({
      actions: [{ userId: 'app:u1', entity: 'tv', eventTimeMs: 2_000 }],
    });
  });
});

describe('an erasure', () => {
  const erased = {
    ok: true,
    actions: [
      { eventId: 'erasures/1/7', userId: 'u1', action: 'erase', entity: '', eventTimeMs: 5_000, position: at('erasures') },
    ],
  };
  const key = Buffer.from('u1');

  it('is a tombstone, an Erasure, or its JSON', () => {
    for (const value of [
      null,
      '',
      Buffer.alloc(0),
      codec.encode('Erasure', { userId: 'u1', requestedAtMs: 4_000 }),
      json({ userId: 'u1' }),
    ])
      expect(erase({ key, value })).toEqual(erased);
    for (const value of [codec.encode('Erasure', { userId: 'u1' }), json({ userId: 'u1' })]) {
      expect(erase({ value })).toEqual(erased);
      expect(erase({ value, key: null })).toEqual(erased);
    }
    expect(erase({ key }, { erasureAction: 'forget' })).toMatchObject({ actions: [{ action: 'forget' }] });
  });

  it('takes the time it was requested at where the record has none', () => {
    const { timestampMs: _, ...stampless } = {
      position: at('erasures'),
      value: codec.encode('Erasure', { userId: 'u1', requestedAtMs: 4_000 }),
      timestampMs: 0,
    };
    expect(decoder().decode(stampless)).toMatchObject({ actions: [{ eventTimeMs: 4_000 }] });
    expect(decoder().decode({ ...stampless, value: null, key })).toMatchObject({ code: 'FIELD_MISSING' });
    expect(erase({ key, timestampMs: 999 })).toMatchObject({ code: 'TIME_INVALID' });
  });

  it('never erases another user than the one that both name', () => {
    expect(erase({ key: Buffer.from('u2'), value: json({ userId: 'u1' }) })).toMatchObject({ code: 'FIELD_INVALID' });
    expect(erase({})).toMatchObject({ code: 'FIELD_MISSING' });
    expect(erase({ key: Buffer.alloc(0) })).toMatchObject({ code: 'FIELD_MISSING' });
    expect(erase({ key: Buffer.from([0xff]) })).toMatchObject({ code: 'FIELD_INVALID' });
    expect(erase({ key: Buffer.alloc(5_000, 'x') })).toMatchObject({ code: 'FIELD_INVALID' });
    expect(erase({ key, value: Buffer.from('nonsense') })).toMatchObject({ code: 'RECORD_MALFORMED' });
    expect(erase({ key, value: encode({}) })).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
    // A byte order mark is part of an id: it is not the id without one.
    expect(erase({ key: Buffer.from('\ufeffu1') })).toMatchObject({ actions: [{ userId: '\ufeffu1' }] });
  });
});

describe('a request', () => {
  it('is the same from Avro and from JSON', () => {
    const decoded = { ok: true, request: { ...request, position: at('candidate-requests') } };
    expect(ask(codec.encode('CandidateRequest', request))).toEqual(decoded);
    expect(ask(json(request))).toEqual(decoded);
    const { deadlineMs: _, topK: __, deny: ___, ...patient } = request;
    expect(ask(codec.encode('CandidateRequest', patient))).toEqual({
      ok: true,
      request: { ...patient, position: at('candidate-requests') },
    });
  });

  it.each([
    ['no request id', { requestId: '' }, 'FIELD_INVALID'],
    ['no user', { userId: '' }, 'FIELD_INVALID'],
    ['an empty entity', { entities: ['a', ''] }, 'FIELD_INVALID'],
    ['too many entities', { entities: Array(10_001).fill('a') }, 'FIELD_INVALID'],
    ['an entity too long', { entities: ['x'.repeat(1_025)] }, 'FIELD_INVALID'],
    ['too many denied', { deny: Array(10_001).fill('a') }, 'FIELD_INVALID'],
    ['an empty entity denied', { deny: [''] }, 'FIELD_INVALID'],
    ['a topK of nothing', { topK: 0 }, 'FIELD_INVALID'],
    ['a topK too large', { topK: 1_001 }, 'FIELD_INVALID'],
    ['a time before the earliest', { queryTimeMs: 5 }, 'TIME_INVALID'],
  ])('with %s is refused alike in both formats', (_, change, code) => {
    expect(ask(codec.encode('CandidateRequest', { ...request, ...change }))).toMatchObject({ ok: false, code });
    expect(ask(json({ ...request, ...change }))).toMatchObject({ ok: false, code });
  });

  it('is not made of nothing, or of what is no request', () => {
    expect(ask(null)).toMatchObject({ code: 'RECORD_MALFORMED' });
    expect(ask(json({ ...request, entities: 'a' }))).toMatchObject({ code: 'FIELD_INVALID' });
    expect(ask(json({ ...request, entities: undefined }))).toMatchObject({ code: 'FIELD_MISSING' });
    expect(ask(json({ ...request, deadlineMs: 'soon' }))).toMatchObject({ code: 'FIELD_INVALID' });
    expect(ask(encode({}))).toMatchObject({ code: 'SCHEMA_INCOMPATIBLE' });
  });
});

it('a bad mapping is refused at once', () => {
  expect(() =>
    decoder({ mapping: { userId: '{', action: 'a', entity: 'e', eventTime: { field: 't', unit: 'ms' } } }),
  ).toThrowError(/mapping\.userId/);
});
