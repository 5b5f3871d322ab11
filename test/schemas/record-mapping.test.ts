import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SourceRecord } from '../../schemas/action.ts';
import { parseConfig } from '../../schemas/config.ts';
import type { KindMapping } from '../../schemas/mapping-config.ts';
import { compileMapping, type RecordMappingOptions } from '../../schemas/record-mapping.ts';

const position = { topic: 'ratings.csv', partition: 0, offset: 7 };
const mapping: KindMapping = {
  userId: '{userId}',
  action: 'rating',
  entity: 'movie:{movieId}',
  value: 'rating',
  eventTime: { field: 'timestamp', unit: 's' },
};
const row = { userId: '1', movieId: '31', rating: '2.5', timestamp: '1260759144' };

const decode = (value: unknown, change: Partial<KindMapping> = {}, options: RecordMappingOptions = {}) =>
  compileMapping({ ...mapping, ...change }, options).decode({ position, value: value as SourceRecord['value'] });
const codeOf = (...args: Parameters<typeof decode>) => {
  const result = decode(...args);
  return result.ok ? 'ok' : result.code;
};
const messageOf = (...args: Parameters<typeof decode>) => {
  const result = decode(...args);
  return result.ok ? '' : result.message;
};
const timeOf = (timestamp: unknown, unit: KindMapping['eventTime']['unit']) => {
  const result = decode({ ...row, timestamp }, { eventTime: { field: 'timestamp', unit } });
  return result.ok ? result.actions[0]!.eventTimeMs : result.code;
};

describe('a mapping makes an action of a record', () => {
  it('from a parsed row, JSON text and bytes alike', () => {
    const action = {
      eventId: 'ratings.csv/0/7',
      userId: '1',
      action: 'rating',
      entity: 'movie:31',
      value: 2.5,
      eventTimeMs: 1260759144000,
      position,
    };
    const text = JSON.stringify(row);
    for (const value of [row, text, new TextEncoder().encode(text)])
      expect(decode(value)).toEqual({ ok: true, actions: [action] });
  });

  it('with dotted paths, several fields in a template, an event id and context', () => {
    const result = decode(
      { ...row, item: { id: 5, shop: { name: 'a' } }, eu: true, 'flat.name': 'f', none: null },
      {
        eventId: '{userId}-{timestamp}',
        entity: '{item.shop.name}/{item.id}',
        context: { eu: 'eu', flat: 'flat.name', absent: 'no.such', none: 'none' },
      },
    );
    expect(result).toMatchObject({
      ok: true,
      actions: [{ eventId: '1-1260759144', entity: 'a/5', context: { eu: 'true', flat: 'f' } }],
    });
    expect(result.ok && Object.keys(result.actions[0]!.context ?? {})).toEqual(['eu', 'flat']);
  });

  it('without a value where the field is absent, null or empty', () => {
    for (const rating of [undefined, null, '']) {
      const result = decode({ ...row, rating });
      expect(result.ok && 'value' in result.actions[0]!).toBe(false);
      expect(result.ok).toBe(true);
    }
  });

  it('and says which fields it names', () => {
    const { fields } = compileMapping({ ...mapping, context: { a: 'b', c: 'd.e' } });
    expect([...fields].sort()).toEqual(['b', 'd.e', 'movieId', 'rating', 'timestamp', 'userId']);
  });
});

describe('a record that cannot be used says why, and never throws', () => {
  it('names the field', () => {
    expect(decode({ ...row, movieId: undefined })).toEqual({
      ok: false,
      code: 'FIELD_MISSING',
      message: "field 'movieId' is missing",
    });
    expect(codeOf({ ...row, userId: null })).toBe('FIELD_MISSING');
    expect(codeOf({ ...row, timestamp: '' })).toBe('FIELD_MISSING');
    // Inherited names are no fields.
    expect(codeOf(row, { userId: '{constructor}' })).toBe('FIELD_MISSING');
    expect(codeOf(row, { userId: '{userId.length}' })).toBe('FIELD_MISSING');
  });

  it('refuses ids that are empty, too long, inexact, half characters or no scalars', () => {
    for (const movieId of ['', 'x'.repeat(1019), 2 ** 53, Number.NaN, '\ud800', {}, []])
      expect(codeOf({ ...row, movieId })).toBe('FIELD_INVALID');
    expect(codeOf({ ...row, movieId: 'x'.repeat(1018) })).toBe('ok');
    expect(codeOf({ ...row, movieId: '🎬' })).toBe('ok');
    expect(messageOf({ ...row, userId: '' })).toContain("'userId'");
  });

  it('goes without a value that is no number, and says so', () => {
    for (const rating of ['good', '0x10', 'Infinity', '1,5', {}, Number.NaN])
      expect(decode({ ...row, rating })).toEqual({
        ok: true,
        actions: [expect.not.objectContaining({ value: expect.anything() })],
        invalid: [{ field: 'value', message: expect.stringContaining("field 'rating' must be a number, found") }],
      });
    for (const rating of ['-1', ' 2.50 ', '1e3', 0]) expect(decode({ ...row, rating })).not.toHaveProperty('invalid');
  });

  it('refuses what is no object, and what is too large', () => {
    for (const value of ['', 'nonsense', '[1]', '5', 'null', [], null, 5, Uint8Array.of(0xff, 0xfe)])
      expect(codeOf(value)).toBe('RECORD_MALFORMED');
    const text = JSON.stringify({ ...row, pad: 'é'.repeat(100) });
    expect(codeOf(text, {}, { maxRecordBytes: text.length })).toBe('RECORD_TOO_LARGE');
    expect(codeOf(text, {}, { maxRecordBytes: Buffer.byteLength(text) })).toBe('ok');
    expect(codeOf(Buffer.from(text), {}, { maxRecordBytes: text.length })).toBe('RECORD_TOO_LARGE');
  });

  it('whatever it holds', () => {
    const compiled = compileMapping({ ...mapping, entity: '{a.b}', context: { c: 'c' } });
    const field = fc.oneof(fc.anything(), fc.string({ unit: 'binary' }), fc.double(), fc.constantFrom('1', 'x', '1260759144'));
    const loose = fc.record(
      { userId: field, rating: field, timestamp: field, a: fc.oneof(field, fc.record({ b: field })), c: field },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(loose, fc.json(), fc.string(), fc.uint8Array(), fc.anything()), (value) => {
        const result = compiled.decode({ position, value: value as SourceRecord['value'] });
        expect(result.ok ? typeof result.actions[0]!.userId : result.message.length > 0).toBe(result.ok ? 'string' : true);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('an event time is exact and credible', () => {
  it('in every unit', () => {
    expect(timeOf('1260759144', 's')).toBe(1260759144000);
    expect(timeOf(1260759144001, 'ms')).toBe(1260759144001);
    expect(timeOf('1260759144001999', 'us')).toBe(1260759144001);
    expect(timeOf('2009-12-14T02:52:24Z', 'iso')).toBe(1260759144000);
    expect(timeOf('2009-12-14 02:52:24.1239', 'iso')).toBe(1260759144123);
    expect(timeOf('2009-12-14T04:52:24+02:00', 'iso')).toBe(1260759144000);
    expect(timeOf('2009-12-14T00:22:24-0230', 'iso')).toBe(1260759144000);
    expect(timeOf('2009-12-14', 'iso')).toBe(1260748800000);
  });

  it('with fractions that are cut to milliseconds, however long the number is', () => {
    for (const time of [964982703.5, '964982703.5', '964982703.5009']) expect(timeOf(time, 's')).toBe(964982703500);
    expect(timeOf(964982703.123, 's')).toBe(964982703123);
    expect(timeOf('1260759144001.9', 'ms')).toBe(1260759144001);
    expect(timeOf('1704067200123456789', 'ns')).toBe(1704067200123);
    expect(timeOf('1704067200123000000', 'ns')).toBe(1704067200123);
    expect(timeOf(1704067200123000000, 'ns')).toBe(1704067200123);
    expect(timeOf('999', 'us')).toBe(0);
    expect(timeOf('1704067200.1239999', 's')).toBe(1704067200123);
    expect(timeOf('1704067200123999999.5', 'ns')).toBe(1704067200123);
    expect(timeOf('1704067200123999.9', 'us')).toBe(1704067200123);
    expect(timeOf('1.7e9', 's')).toBe(1_700_000_000_000);
  });

  it('in the forms that databases, Java and Go print', () => {
    const noon = Date.UTC(2024, 0, 1, 10);
    for (const text of [
      '2024-01-01 10:00:00 UTC',
      '2024-01-01T10:00:00 GMT',
      '20240101T100000Z',
      '20240101T1000Z',
      '2024/01/01 10:00:00',
      '2024-01-01T11:00:00+01:00[Europe/Berlin]',
      '2024-01-01 15:00:00.000000 +0500',
      '2024-01-01 10:00:00.123 +0000 UTC',
      '2024-01-01 11:00:00+01',
      '2024-01-01t10:00:00z',
      '2024-01-01T10:00:00Z[UTC]',
    ])
      expect(Math.floor(Number(timeOf(text, 'iso')) / 1_000), text).toBe(noon / 1_000);
    expect(timeOf('2024-01-01T24:00:00Z', 'iso')).toBe(Date.UTC(2024, 0, 2));
  });

  it('as a date where its archive has dates: one mapping serves a topic and its files', () => {
    for (const unit of ['s', 'ms', 'us', 'ns'] as const)
      expect(timeOf('2024-01-01 10:00:00.000000', unit)).toBe(Date.UTC(2024, 0, 1, 10));
  });

  it('and told where a thousandfold would be of our days', () => {
    const told = (timestamp: number, unit: 's' | 'ms') => {
      const result = decode({ ...row, timestamp }, { eventTime: { field: 'timestamp', unit } });
      return result.ok ? result.invalid : result;
    };
    expect(told(1_704_067_200, 'ms')).toEqual([
      {
        field: 'eventTime',
        message:
          "field 'timestamp' is 1704067200 ms, which is 1970-01-20; a thousand times that is 2024-01-01: is the unit right?",
      },
    ]);
    for (const [time, unit] of [
      [1_704_067_200, 's'],
      [5, 'ms'],
      [86_400, 's'],
    ] as const)
      expect(told(time, unit)).toBeUndefined();
  });

  it('or it is refused', () => {
    for (const time of ['soon', 'NaN', Number.NaN, true, {}, '-1', 1e300, '0x10', '20240101'.repeat(4)])
      expect(timeOf(time, 's')).toBe('TIME_INVALID');
    for (const time of [
      '2009-02-30',
      '2009-13-01',
      '2009-12-14T25:00:00Z',
      '2009-12-14T24:00:01Z',
      '2024-001',
      '2024-01-01T10:00:00[Europe/Berlin]',
      '2024-01-01T10:00:00 CET',
      '1 Jan 2024',
      '20240101',
      'yesterday',
      5,
    ])
      expect(timeOf(time, 'iso')).toBe('TIME_INVALID');
  });

  it('neither before time.minMs nor too far ahead of the clock', () => {
    const options = { minMs: 1_000, maxFutureMs: 500, now: () => 10_000 };
    const at = (timestamp: number) => codeOf({ ...row, timestamp }, { eventTime: { field: 'timestamp', unit: 'ms' } }, options);
    expect([at(999), at(1_000), at(10_500), at(10_501)]).toEqual(['TIME_INVALID', 'ok', 'ok', 'TIME_INVALID']);
  });
});

describe('a template that would give all records one text is refused by the configuration', () => {
  const config = (change: object) => () =>
    parseConfig(
      { bundle: 'b', source: { files: [{ path: 'x.csv', format: 'csv', mapping: { ...mapping, ...change } }] } },
      'c.yaml',
    );

  it.each(['userId', 'entity', 'eventId'])('%s', (key) => {
    expect(config({ [key]: 'user.id' })).toThrow(
      new RegExp(`mapping\\.${key}: has no part in braces, .* if it is a field, write \\{user\\.id\\}`),
    );
    expect(config({ [key]: 'user:{user.id}' })).not.toThrow();
  });

  it('but not that of the kind of action, which files share', () => {
    expect(config({ action: 'view' })).not.toThrow();
  });
});

describe('a bad template is refused when it is compiled', () => {
  it.each(['movie:{movieId', 'movie:movieId}', '{}', '{a..b}', '{a{b}}', '{ }', ''])('%s', (entity) => {
    expect(() => compileMapping({ ...mapping, entity })).toThrowError(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    expect(() => compileMapping({ ...mapping, entity })).toThrowError(/mapping\.entity/);
  });
});
