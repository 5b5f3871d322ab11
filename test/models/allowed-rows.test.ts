/** Lists of a large vocabulary by what they may hold: exact by the scan; by the index as near as it is, and by the scan where few are left. */
import { afterAll, describe, expect, it } from 'vitest';
import { CandidateIndex } from '../../models/catalogue/candidate-index.ts';
import { CatalogueFields } from '../../models/catalogue/catalogue-fields.ts';
import { Catalogue } from '../../models/catalogue/overlay.ts';
import { makeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { scoreWithin } from '../../operators/capped-lists.ts';
import { type Caps, placesWithin } from '../../operators/caps.ts';
import type { CatalogueFilter } from '../../schemas/catalogue-filter.ts';
import { isAllowed, type ScoreRequest, type ScoreResult } from '../../schemas/encoding.ts';

const D = 16;
const V = 3_000;
const NEW = 20;

const bundle = (() => {
  const base = randomBundle({
    dimension: D,
    layers: 1,
    heads: 1,
    maxSequenceLength: 8,
    vocabularySize: V,
    content: { dimension: 3 },
  });
  let state = 11;
  const data = Float32Array.from({ length: (V + 1) * D }, () => {
    state = (state * 48_271) % 0x7fffffff;
    return state / 0x7fffffff - 0.5;
  });
  const tensors = new Map(base.tensors).set('entity_embedding', { shape: [V + 1, D], data });
  const catalogue = new Catalogue(makeBundle({ ...base, tensors }));
  for (let i = 1; i <= V; i++)
    catalogue.take({
      entity: `item:${i}`,
      fields: { half: i % 2, thousandth: i % 1_000, group: `g${i % 9}` },
      ...(i % 50 === 0 && { retired: true }),
    });
  for (let i = 1; i <= NEW; i++) {
    const content = Float32Array.of(Math.sin(i), Math.cos(5 * i), i / 20);
    catalogue.take({ entity: `new:${i}`, content, fields: { half: i % 2, group: `g${i % 3}` } });
  }
  return catalogue.apply();
})();
const table = { rows: bundle.tensors.get('entity_embedding')!.data, dimension: D };
const fields = new CatalogueFields(bundle);
const engines: EncoderEngine[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));
const engineOf = () => {
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  engines.push(engine);
  return engine;
};
const exact = engineOf();

/** Embeddings along rows of the table, new ones among them, so that these come first. */
const embeddings = Array.from({ length: 12 }, (_, i) =>
  (i % 3 === 0 ? bundle.catalogue!.rows : table.rows).slice((i + 1) * D, (i + 2) * D),
);
const ask = (rows: Float32Array, topK: number, filter?: CatalogueFilter): ScoreRequest => ({
  rows,
  targets: new Int32Array(1),
  seen: Int32Array.of(3, 5, 7),
  seenCount: Int32Array.of(3),
  topK,
  allowed: filter && fields.allowed(filter),
});
const HALF = { half: 1 };
const FEW = { thousandth: 17 };
const valuesOf = (row: number, field: string) => fields.valuesOf(row, field);
const CAPS: Caps = { limits: { group: 2 }, valuesOf };

/** What remains of all that is offered, in its order. */
async function remaining({ allowed, ...request }: ScoreRequest, caps?: Caps): Promise<number[]> {
  const [all] = (await exact.score([{ ...request, topK: V + NEW }])) as [ScoreResult];
  const rows = Array.from(all.topEntities).filter((row) => allowed === undefined || isAllowed(allowed, row));
  return caps === undefined ? rows.slice(0, request.topK) : placesWithin(rows, request.topK, caps).map((place) => rows[place]!);
}

const RULES: [string, CatalogueFilter | undefined, Caps | undefined][] = [
  ['a filter', HALF, undefined],
  ['a filter that few meet', FEW, undefined],
  ['a filter that none meets', { none: { min: 1 } }, undefined],
  ['a cap', undefined, CAPS],
  ['both', HALF, CAPS],
  ['a cap that leaves fewer than are wanted', undefined, { limits: { half: 3 }, valuesOf }],
];

describe('lists by what they may hold', () => {
  it.each(RULES)('%s: are what remains of all, in one call with others', async (_, filter, caps) => {
    const requests = embeddings.flatMap((rows) => [ask(rows, 15, filter), ask(rows, 4), ask(rows, 6, FEW)]);
    const ofRule = (i: number) => (i % 3 === 0 ? caps : undefined);
    const results = await scoreWithin(exact, requests, undefined, ofRule);
    for (const [i, request] of requests.entries())
      expect([...results[i]!.topEntities]).toEqual(await remaining(request, ofRule(i)));
  });

  it('hold new entities to them as well', async () => {
    const listed = (await exact.score(embeddings.map((rows) => ask(rows, 15, HALF)))).flatMap((one) => [...one.topEntities]);
    expect(listed.some((row) => row < 0)).toBe(true);
    expect(listed.every((row) => Math.abs(row) % 2 === 1)).toBe(true);
  });

  it('leave ranks alone', async () => {
    const asked = embeddings.map((rows, i) => ({ ...ask(rows, 5), targets: Int32Array.of(2 * i + 2) }));
    const ranks = (results: readonly ScoreResult[]) => results.map((result) => result.ranks[0]);
    const filtered = asked.map((request) => ({ ...request, allowed: fields.allowed(HALF) }));
    expect(ranks(await exact.score(filtered))).toEqual(ranks(await exact.score(asked)));
  });

  it('are those of the catalogue that the rule was judged by', async () => {
    const engine = engineOf();
    await engine.score([ask(embeddings[1]!, 10, HALF)]);
    const catalogue = new Catalogue(bundle);
    for (const row of [40, 80, 120]) catalogue.take({ entity: `item:${row}`, fields: HALF });
    const changed = catalogue.apply();
    engine.useCatalogue(changed.catalogue!);
    const [after] = await engine.score([{ ...ask(embeddings[1]!, 10), allowed: new CatalogueFields(changed).allowed(HALF) }]);
    expect([...after!.topEntities].sort((a, b) => a - b)).toEqual([40, 80, 120]);
  });

  it.each(RULES)('by the index, %s: the same but for what it misses, never another', async (_, filter, caps) => {
    const engine = engineOf();
    engine.useIndex(CandidateIndex.build(table), 1);
    const requests = embeddings.map((rows) => ask(rows, 15, filter));
    const results = await scoreWithin(engine, requests, undefined, caps && (() => caps));
    let [found, wanted] = [0, 0];
    for (const [i, request] of requests.entries()) {
      const listed = [...results[i]!.topEntities];
      const right = await remaining(request, caps);
      expect(listed).toHaveLength(right.length);
      for (const row of listed) expect(request.allowed === undefined || isAllowed(request.allowed, row)).toBe(true);
      if (caps !== undefined) expect(placesWithin(listed, listed.length, caps)).toHaveLength(listed.length);
      found += listed.filter((row) => right.includes(row)).length;
      wanted += right.length;
    }
    expect(found).toBeGreaterThanOrEqual(0.9 * wanted);
    // Too few are near: all are scanned, and that is told.
    if (filter === FEW) expect(engine.stats.index!.fellBack).toBeGreaterThan(0);
  });
});

describe('placesWithin', () => {
  it('an entity that was left out counts for nothing, and one of several values for each of them', () => {
    const values: Record<number, string[]> = { 1: ['a', 'b'], 2: ['a'], 3: ['b', 'c'], 4: ['c'], 5: [], 6: ['c'] };
    const caps: Caps = { limits: { f: 1 }, valuesOf: (row) => values[row]! };
    expect(placesWithin([1, 2, 3, 4, 5, 6], 10, caps)).toEqual([0, 3, 4]);
    expect(placesWithin([1, 2, 3, 4, 5, 6], 2, caps)).toEqual([0, 3]);
  });
});
