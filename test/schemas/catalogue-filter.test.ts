/** What a filter of lists says, value by value, and what is no filter. */
import { describe, expect, it } from 'vitest';
import { parseEntityUpdate } from '../../schemas/catalogue.ts';
import { entityUpdateOfRow } from '../../schemas/catalogue-csv.ts';
import { type CatalogueFilter, catalogueFilterSchema, meets } from '../../schemas/catalogue-filter.ts';

const TEA = { inStock: true, category: ['tea', 'gift'], price: 4.5, region: 'de', stock: 0 };

describe('a filter', () => {
  it.each<[CatalogueFilter, boolean]>([
    [{ inStock: true }, true],
    [{ inStock: false }, false],
    [{ category: 'gift' }, true],
    [{ category: ['coffee', 'tea'] }, true],
    [{ category: ['coffee'] }, false],
    [{ category: { not: 'coffee' } }, true],
    [{ category: { not: ['tea', 'coffee'] } }, false],
    [{ price: { max: 4.5 } }, true],
    [{ price: { min: 4.51 } }, false],
    [{ price: { min: 1, max: 5 }, region: 'de' }, true],
    [{ price: { min: 1, max: 5 }, region: 'at' }, false],
    [{ stock: 0 }, true],
    [{ stock: { min: 1 } }, false],
    // Nothing is taken for another kind of value.
    [{ price: '4.5' }, false],
    [{ inStock: 'true' }, false],
    [{ region: { min: 0 } }, false],
    // What the catalogue does not say.
    [{ brand: 'x' }, false],
    [{ brand: { not: 'x' } }, true],
    [{ weight: { max: 10 } }, false],
    [{ toString: { not: 1 } } as never, true],
  ])('%j', (filter, expected) => {
    expect(meets(TEA, filter)).toBe(expected);
  });

  it('of an entity of which nothing is said allows what is not asked for alone', () => {
    expect(meets(undefined, { region: { not: 'us' } })).toBe(true);
    expect(meets(undefined, { region: 'us' })).toBe(false);
  });

  it.each([
    [{}],
    [{ price: {} }],
    [{ price: { mini: 1 } }],
    [{ price: null }],
    [{ category: [] }],
    [{ 'a b': 1 }],
    [{ constructor: 1 }],
    ['inStock'],
    [[true]],
    [Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`f${i}`, 1]))],
  ])('is not %j', (given) => {
    expect(catalogueFilterSchema.safeParse(given).success).toBe(false);
  });
});

describe("an entity's fields", () => {
  it('come from JSON as they are, and from CSV as columns', () => {
    const said = { inStock: true, price: 4.5, category: ['tea', 'gift'], region: 'de', size: '007' };
    expect(parseEntityUpdate(JSON.stringify({ entity: 'item:1', fields: said }))).toEqual({
      ok: true,
      update: { entity: 'item:1', fields: said },
    });
    const names = ['inStock', 'price', 'category', 'region', 'size', 'absent'];
    const read = entityUpdateOfRow(['entity', ...names.map((name) => `fields.${name}`)], 'f.csv, line 1');
    const row = {
      'fields.inStock': 'true',
      'fields.price': '4.5',
      'fields.category': 'tea|gift',
      'fields.region': 'de',
      'fields.size': '007',
      'fields.absent': '',
    };
    expect(read({ entity: 'item:1', ...row })).toEqual({ ok: true, update: { entity: 'item:1', fields: said } });
  });

  it.each([
    [{ price: null }, /fields\.price null; must be/],
    [{ price: { amount: 1 } }, /fields\.price \{"amount":1\}; must be/],
    [{ tags: ['a', 1] }, /fields\.tags \["a",1\]; must be/],
    [{ 'a b': 1 }, /fields\."a b"; a name has/],
    [{ text: 'x'.repeat(257) }, /fields\.text/],
    [Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`f${i}`, 1])), /65 fields; at most 64/],
    [[1], /fields \[1\]; must be an object/],
  ])('are not %j', (fields, message) => {
    const parsed = parseEntityUpdate(JSON.stringify({ entity: 'item:1', fields }));
    expect(parsed).toMatchObject({ ok: false, reason: 'malformed', message: expect.stringMatching(message) });
  });
});
