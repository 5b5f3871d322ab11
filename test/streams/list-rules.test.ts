/** Filters, caps and own entities of lists: what comes with embeddings, what is asked for, and what brute force says, are one. */
import { afterEach, describe, expect, it } from 'vitest';
import { Catalogue } from '../../models/catalogue/overlay.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { UserAction } from '../../schemas/action.ts';
import { type CatalogueFilter, type EntityFields, meets } from '../../schemas/catalogue-filter.ts';
import { parseConfig } from '../../schemas/config.ts';
import type { CandidateScores } from '../../schemas/output.ts';
import { TopologyDriver } from '../../streams/topology-driver.ts';

const ITEMS = 60;
const START = Date.UTC(2020, 0, 1);
const mapping = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  eventTime: { field: 'eventTimeMs', unit: 'ms' as const },
};
const retired = 'item:13';
const fieldsOf = (item: number): EntityFields | undefined =>
  item % 10 === 0
    ? undefined
    : { inStock: item % 3 !== 0, brand: item < 40 ? 'big' : `b${item % 7}`, tags: [`t${item % 2}`, `u${item % 5}`], price: item };
const said = new Map(Array.from({ length: ITEMS }, (_, i) => [`item:${i + 1}`, fieldsOf(i + 1)]));

function bundleWith(ranking: boolean): Bundle {
  const bundle = randomBundle({
    dimension: 8,
    layers: 1,
    heads: 1,
    maxSequenceLength: 200,
    vocabularySize: ITEMS,
    actions: { encoded: ['view', 'buy'], skipped: [] },
    ...(ranking && { ranking: { tasks: [{ name: 'buy', weight: 1 }], hidden: 8 } }),
  });
  const catalogue = new Catalogue(bundle);
  for (const [entity, fields] of said) if (fields !== undefined) catalogue.take({ entity, fields, retired: entity === retired });
  return catalogue.apply();
}

const events: UserAction[] = Array.from({ length: 12 }, (_, i) => ({
  eventId: `e${i}`,
  userId: 'ann',
  action: i % 3 === 2 ? 'buy' : 'view',
  entity: `item:${1 + ((i * 7) % ITEMS)}`,
  eventTimeMs: START + i * 3_600_000,
}));
const values = events.map((event) => JSON.stringify(event));

const closing: TopologyDriver[] = [];
afterEach(async () => {
  for (const driver of closing.splice(0)) await driver.close();
});
function driverWith(scores: object, ranking = false) {
  const driver = new TopologyDriver({
    bundle: bundleWith(ranking),
    mapping,
    settings: { publish: 'every-event', scores: { topK: 10, seenFilter: false, ...scores } as never },
  });
  closing.push(driver);
  return driver;
}
const ask = (more: object) => JSON.stringify({ requestId: 'r', userId: 'ann', entities: [], queryTimeMs: 0, ...more });
const names = ({ candidates }: CandidateScores) => candidates.map(({ entity }) => entity);

/** Of a list of all, best first: what is to be left of it. */
function left(all: readonly string[], filter: CatalogueFilter | undefined, caps: Record<string, number>, topK = 10): string[] {
  const counts = new Map<string, number>();
  const kept: string[] = [];
  for (const entity of all) {
    const fields = said.get(entity);
    if (entity === retired || (filter !== undefined && !meets(fields, filter))) continue;
    const keys = Object.keys(caps).flatMap((field) => [fields?.[field] ?? []].flat().map((value) => `${field}=${value}`));
    if (keys.some((key) => (counts.get(key) ?? 0) >= caps[key.split('=')[0]!]!)) continue;
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    kept.push(entity);
    if (kept.length === topK) break;
  }
  return kept;
}

describe.each<[string, { filter?: CatalogueFilter; caps?: Record<string, number> }]>([
  ['a filter', { filter: { inStock: true, price: { max: 30 } } }],
  ['caps', { caps: { brand: 2 } }],
  ['caps of a field with several values', { caps: { tags: 3, brand: 4 } }],
  ['both', { filter: { tags: ['u1', 'u2', 'u3'] }, caps: { brand: 1 } }],
  ['a filter that hardly anything meets', { filter: { price: { min: 57 } } }],
  ['a filter that nothing meets', { filter: { colour: 'red' } }],
])('%s', (_, rules) => {
  it('leaves of every list the best that may stay', async () => {
    const all = await driverWith({ topK: ITEMS }).pipe(values);
    const { scores, quality } = await driverWith(rules).pipe(values);
    const wanted = all.scores.map((list) => left(names(list), rules.filter, rules.caps ?? {}));
    expect(scores.map(names)).toEqual(wanted);
    // Ranks go by the whole catalogue, whatever is listed.
    expect(quality.map(({ rank }) => rank)).toEqual(all.quality.map(({ rank }) => rank));
  });

  it('leaves the same of a list that is asked for, with a filter of its own, and without a history', async () => {
    const [all, driver] = [driverWith({ topK: ITEMS }), driverWith(rules)];
    await all.pipe(values);
    await driver.pipe(values);
    for (const userId of ['ann', 'nobody'])
      for (const more of [{}, { filter: { brand: { not: 'b2' } } }]) {
        const whole = (await all.ask([ask({ userId, topK: ITEMS })])).scores[0]!;
        const { scores } = await driver.ask([ask({ userId, topK: 7, ...more })]);
        const own = 'filter' in more ? names(whole).filter((entity) => meets(said.get(entity), more.filter!)) : names(whole);
        expect(names(scores[0]!), `${userId} ${JSON.stringify(more)}`).toEqual(left(own, rules.filter, rules.caps ?? {}, 7));
      }
  });
});

describe('candidates that are named', () => {
  it("are left out by the request's own filter, with the reason; not by what holds of lists", async () => {
    const driver = driverWith({ filter: { inStock: true } });
    await driver.pipe(values);
    const entities = ['item:1', 'item:3', 'item:10', 'item:50'];
    const [plain, filtered] = (
      await driver.ask([ask({ entities }), ask({ requestId: 's', entities, filter: { price: { max: 20 } } })])
    ).scores as [CandidateScores, CandidateScores];
    expect(names(plain).sort()).toEqual(['item:1', 'item:10', 'item:3', 'item:50']);
    expect(names(filtered).sort()).toEqual(['item:1', 'item:3']);
    expect(filtered.leftOut).toEqual([
      { entity: 'item:10', reason: 'filtered' },
      { entity: 'item:50', reason: 'filtered' },
    ]);
  });

  it('with a filter that is none become a dead letter', async () => {
    const driver = driverWith({});
    const { scores, deadLetters } = await driver.ask([ask({ topK: 3, filter: { price: { mini: 1 } } })]);
    expect(scores).toEqual([]);
    expect(deadLetters[0]).toMatchObject({ code: 'FIELD_INVALID', message: expect.stringContaining('filter.price') });
  });
});

describe('in two stages', () => {
  const rules = { filter: { inStock: true }, caps: { brand: 3 }, retrieve: 20 };

  it('lists keep to filter and caps, in the order of the heads', async () => {
    const { scores } = await driverWith(rules, true).pipe(values);
    for (const list of scores) {
      expect(list.candidates).toHaveLength(10);
      expect(list.candidates.map(({ score }) => score)).toEqual(list.candidates.map(({ score }) => score).sort((a, b) => b - a));
      expect(left(names(list), rules.filter, rules.caps)).toEqual(names(list));
    }
  });

  it("judges the user's own beside what was retrieved, but for what is hidden, retired or filtered", async () => {
    const own = { topK: ITEMS, retrieve: 1, ownHistory: 4 };
    const asked = ask({ topK: 1_000, queryTimeMs: events.at(-1)!.eventTimeMs });
    const [none, some] = [driverWith({ ...own, topK: 1, ownHistory: 0 }, true), driverWith({ ...own, topK: 1 }, true)];
    const first = names((await none.pipe(values)).scores.at(-1)!);
    const { scores } = await some.pipe(values);
    expect(names(scores.at(-1)!)).toHaveLength(1);
    // Newest first: items 18, 11, 4, 57. What is no longer offered is not judged, however often he saw it.
    const filtered = driverWith({ ...own, topK: 5, retrieve: 5, filter: { inStock: true } }, true);
    await filtered.pipe(values);
    const listed = names((await filtered.ask([asked])).scores[0]!);
    expect(listed).toEqual(expect.arrayContaining(['item:11', 'item:4']));
    expect(listed).not.toContain('item:18');
    expect(first).toHaveLength(1);
  });
});

describe('settings', () => {
  it.each([
    [{ ownHistory: 5 }, /ownHistory.*seenFilter/s],
    [{ filter: {} }, /1 to 16 fields/],
    [{ caps: { brand: 0 } }, /caps\.brand/],
    [{ filter: { price: { min: 'x' } } }, /filter\.price/],
  ])('%j is refused', (scores, problem) => {
    expect(() => parseConfig({ bundle: 'b', catalogue: { file: 'c.csv' }, scores }, 'this test')).toThrow(problem);
  });

  it('filter and caps need a catalogue to go by', () => {
    expect(() => parseConfig({ bundle: 'b', scores: { filter: { a: 1 } } }, 'this test')).toThrow(/scores\.filter.*catalogue/s);
    expect(() => parseConfig({ bundle: 'b', scores: { caps: { a: 1 } } }, 'this test')).toThrow(/scores\.caps.*catalogue/s);
  });
});
