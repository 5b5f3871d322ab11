import { describe, expect, it } from 'vitest';
import type { SourceRecord } from '../../schemas/action.ts';
import { parseConfig } from '../../schemas/config.ts';
import type { RecordMapping } from '../../schemas/mapping-config.ts';
import { compileMapping, mappedPaths } from '../../schemas/record-mapping.ts';

const position = { topic: 'shop', partition: 2, offset: 9 };
/** As a configuration file would have it, defaults filled in. */
const parsed = (mapping: unknown): RecordMapping =>
  parseConfig({ bundle: 'b', kafka: { brokers: ['k:9092'], valueFormat: 'json', mapping } }, 'this test').kafka!.mapping!;
const decoderOf = (mapping: unknown) => {
  const { decode } = compileMapping(parsed(mapping));
  return (value: SourceRecord['value']) => decode({ position, value });
};

const FIRST = {
  when: { type: ['view', 'purchase'] },
  eventId: '{id}',
  userId: '{user.id}',
  action: '{type}',
  entity: 'product:{product.id}',
  value: 'product.price',
  eventTime: { field: 'at', unit: 'ms' },
  context: { city: 'city' },
};
const SHOP = [
  FIRST,
  { when: { type: 'follow' }, entity: 'brand:{brand.id}' },
  {
    when: { type: 'order', state: ['paid', 'sent'] },
    each: 'order.lines',
    action: 'purchase',
    entity: 'product:{order.lines.sku}',
    value: 'order.lines.price',
  },
  { ignore: { type: ['search', 'heartbeat'] } },
];
const event = (type: string, more: object = {}) => ({ id: 'e1', type, user: { id: 7 }, at: 1_000, ...more });

describe('a mapping by kind', () => {
  const decode = decoderOf(SHOP);

  it('maps a record by the first entry that takes it; later ones take from the first what they do not say', () => {
    expect(decode(event('view', { product: { id: 5, price: 2.5 }, city: 'Ulm' }))).toEqual({
      ok: true,
      actions: [
        {
          eventId: 'e1',
          userId: '7',
          action: 'view',
          entity: 'product:5',
          value: 2.5,
          eventTimeMs: 1_000,
          context: { city: 'Ulm' },
          position,
        },
      ],
    });
    expect(decode(event('follow', { brand: { id: 'acme' } }))).toMatchObject({
      actions: [{ action: 'follow', entity: 'brand:acme', userId: '7' }],
    });
  });

  it('counts what it ignores, and needs no entity for it', () => {
    for (const type of ['search', 'heartbeat']) expect(decode(event(type))).toEqual({ ok: true, actions: [], ignored: true });
  });

  it('refuses what no entry takes, and says what there is', () => {
    expect(decode(event('refund'))).toEqual({
      ok: false,
      code: 'ACTION_UNKNOWN',
      message:
        'no entry of the mapping takes it: type is "refund", state is missing; mapped: type view | purchase; type follow; ' +
        'type order and state paid | sent; ignored: type search | heartbeat',
    });
    expect(decode({ id: 'e', user: { id: 1 }, at: 5 })).toMatchObject({
      code: 'ACTION_UNKNOWN',
      message: expect.stringContaining('type is missing'),
    });
  });

  it('compares as text: numbers, booleans and their texts are one; a list or a mapping is nothing', () => {
    const takes = decoderOf([{ ...FIRST, when: { kind: 1, live: true }, entity: '{id}', action: 'view' }]);
    for (const [kind, live] of [
      [1, true],
      ['1', 'true'],
    ])
      expect(takes({ ...event('x'), kind, live }).ok).toBe(true);
    for (const [kind, live] of [
      [1, false],
      [[1], true],
      [{}, true],
      [null, true],
    ])
      expect(takes({ ...event('x'), kind, live }).ok).toBe(false);
  });

  it('ignores the rest where it is told to', () => {
    const all = decoderOf([FIRST, { ignore: 'rest' }]);
    expect(all(event('anything'))).toEqual({ ok: true, actions: [], ignored: true });
    expect(all(event('view'))).toMatchObject({ code: 'FIELD_MISSING' });
  });

  it('names the fields that it reads, once each', () => {
    const paths = mappedPaths(parsed(SHOP)).map(({ key, path }) => `${key} ${path}`);
    expect(paths).toContain('0.userId user.id');
    expect(paths).toContain('2.each order.lines');
    expect(paths.filter((line) => line.endsWith(' user.id'))).toHaveLength(1);
    // A file of orders alone has no brands.
    expect([...compileMapping(parsed(SHOP)).fields].sort()).toEqual(['at', 'city', 'id', 'type', 'user.id']);
  });
});

describe('each element of a list as an action', () => {
  const decode = decoderOf(SHOP);
  const order = (lines: unknown) => event('order', { state: 'paid', order: { no: 3, lines } });

  it('reads the element by paths that begin with the list, all else from the record; ids are told apart', () => {
    const lines = [
      { sku: 'a', price: 1 },
      { sku: 'b', price: '2.5' },
    ];
    expect(decode(order(lines))).toMatchObject({
      ok: true,
      actions: [
        { eventId: 'e1/0', part: 0, action: 'purchase', entity: 'product:a', value: 1, userId: '7' },
        { eventId: 'e1/1', part: 1, action: 'purchase', entity: 'product:b', value: 2.5, userId: '7' },
      ],
    });
  });

  it('leaves an event id that names its element as it is', () => {
    const own = decoderOf([
      FIRST,
      {
        when: { type: 'order' },
        each: 'order.lines',
        eventId: '{order.lines.id}',
        action: 'purchase',
        entity: '{order.lines.id}',
      },
    ]);
    expect(own(order([{ id: 'x' }, { id: 'y' }]))).toMatchObject({ actions: [{ eventId: 'x' }, { eventId: 'y' }] });
  });

  it('takes elements that are no mappings', () => {
    const plain = decoderOf([FIRST, { when: { type: 'cart' }, each: 'skus', action: 'view', entity: 'product:{skus}' }]);
    expect(plain(event('cart', { skus: ['a', 2] }))).toMatchObject({
      actions: [{ entity: 'product:a' }, { entity: 'product:2' }],
    });
  });

  it('uses the others where one cannot be used, and says which', () => {
    expect(decode(order([{ price: 1 }, { sku: 'b' }, { sku: '' }]))).toMatchObject({
      ok: true,
      actions: [{ entity: 'product:b', part: 1 }],
      partly: { code: 'FIELD_MISSING', message: "order.lines[0]: field 'order.lines.sku' is missing (and 1 more of 3 elements)" },
    });
    expect(decode(order([{}]))).toMatchObject({ ok: false, code: 'FIELD_MISSING' });
  });

  it('of an empty list is none, of no list a fault, and of too many too', () => {
    expect(decode(order([]))).toEqual({ ok: true, actions: [], ignored: true });
    expect(decode(order(undefined))).toMatchObject({ code: 'FIELD_MISSING' });
    expect(decode(order({ sku: 'a' }))).toMatchObject({
      code: 'FIELD_INVALID',
      message: expect.stringContaining('must be a list'),
    });
    expect(decode(order(Array(10_001).fill({ sku: 'a' })))).toMatchObject({
      code: 'FIELD_INVALID',
      message: expect.stringContaining('10000 are allowed'),
    });
  });
});

describe('fields that people have', () => {
  it('have a default, decimals behind a comma, and a context of one spelling', () => {
    const { when: _, ...all } = FIRST;
    const decode = decoderOf({
      ...all,
      entity: '{id}',
      action: 'view',
      value: { field: 'stars', default: 3, decimal: ',' },
      context: {
        city: { field: 'city', trim: true, lower: true, default: 'nowhere' },
        size: { field: 'size', number: true },
      },
    });
    const read = (more: object) => {
      const result = decode({ ...event('x'), ...more });
      return result.ok
        ? [result.actions[0]!.value, result.actions[0]!.context, result.invalid?.map(({ field }) => field)]
        : result;
    };
    expect(read({ stars: '4,5', city: '  Ulm ', size: '7.50' })).toEqual([4.5, { city: 'ulm', size: '7.5' }, undefined]);
    expect(read({})).toEqual([3, { city: 'nowhere' }, undefined]);
    expect(read({ stars: 'many', city: ' ', size: 'large' })).toEqual([
      undefined,
      { city: 'nowhere' },
      ['value', 'context.size'],
    ]);
  });
});

describe('a mapping that cannot be is refused at the start', () => {
  it.each([
    [
      'a first entry that lacks a key',
      [{ when: { type: 'view' }, userId: '{u}' }],
      /0: action, entity, eventTime: missing here and in the first entry/,
    ],
    [
      'an entry that hides those behind it',
      [{ ...FIRST, when: undefined }, { ignore: { type: 'x' } }],
      /0\.when: missing: without it the entries behind/,
    ],
    ['nothing but what is ignored', [{ ignore: { type: 'x' } }], /all entries ignore/],
    [
      'ignoring with a key beside it',
      [FIRST, { ignore: { type: 'x' }, entity: '{e}' }],
      /1: an entry that ignores has nothing else, found entity/,
    ],
    ['the rest in the middle', [FIRST, { ignore: 'rest' }, { when: { type: 'y' } }], /1\.ignore: rest: only the last entry/],
    ['a condition on nothing', [{ ...FIRST, when: {} }], /0\.when: names no field/],
    ['a misspelt key', [FIRST, { when: { type: 'y' }, entty: '{e}' }], /no such key: entty \(did you mean entity\?\)/],
    ['a user of the element', [{ ...FIRST, each: 'lines', userId: '{lines.user}' }], /userId: is one for all elements/],
  ])('%s', (_, mapping, problem) => {
    expect(() => parsed(mapping)).toThrow(problem);
  });
});
