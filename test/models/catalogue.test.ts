import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addContent } from '../../models/catalogue/add-content.ts';
import { fitProjection, projectContent } from '../../models/catalogue/content-projection.ts';
import { Catalogue } from '../../models/catalogue/overlay.ts';
import { type Bundle, loadBundle, makeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';

const C = 3;
const D = 16;

/** Content that says all of a row: the projection is its inverse. */
function bundleOf(options: Parameters<typeof randomBundle>[0] | object = {}): Bundle {
  const shape = { dimension: D, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize: 40, content: { dimension: C } };
  return randomBundle({ ...shape, ...options });
}

const vector = (...values: number[]) => Float32Array.from(values);
const none = { targets: Int32Array.of(0), seen: new Int32Array(0), seenCount: Int32Array.of(0) };

describe('a fit of content to rows', () => {
  it('finds a linear map through an offset again', () => {
    const weight = Float32Array.from({ length: C * 2 }, (_, i) => i - 2.5);
    const n = 50;
    const content = Float32Array.from({ length: n * C }, (_, i) => Math.sin(i * i));
    const rows = new Float32Array(n * 2);
    for (let i = 0; i < n; i++)
      rows.set(projectContent({ weight, bias: vector(3, -1) }, content.subarray(i * C, (i + 1) * C)), i * 2);
    const found = fitProjection({ content, rows, count: n, ridge: 1e-9 });
    for (const [i, value] of weight.entries()) expect(found.weight[i]).toBeCloseTo(value, 4);
    expect(found.bias[0]).toBeCloseTo(3, 4);
  });

  it('refuses content that is all the same, of several lengths, or of too few entities', () => {
    const bundle = bundleOf();
    const all = (of: (i: number) => Float32Array) => new Map(bundle.entities.map((entity, i) => [entity, of(i)]));
    expect(() =>
      addContent(
        bundle,
        all(() => vector(1, 1)),
      ),
    ).toThrow(/is the same/);
    expect(() =>
      addContent(
        bundle,
        all((i) => vector(...new Array(i === 7 ? 3 : 2).fill(i))),
      ),
    ).toThrow(/'item:8' has 3 numbers/);
    expect(() => addContent(bundle, new Map([['item:1', vector(1)]]))).toThrow(/1 of the bundle's 40 entities/);
  });
});

describe('a catalogue that grows', () => {
  it('counts what it refuses, by reason, and keeps what it knew', () => {
    const catalogue = new Catalogue(bundleOf());
    const plain = new Catalogue(randomBundle({ dimension: D, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize: 4 }));
    expect(catalogue.take({ entity: 'new', content: vector(1, 2, 3) })).toEqual({ ok: true, outcome: 'added' });
    expect(catalogue.take({ entity: 'new', content: vector(1, 2) })).toMatchObject({ reason: 'content-dimension' });
    expect(catalogue.take({ entity: 'other' })).toMatchObject({ reason: 'no-content' });
    expect(plain.take({ entity: 'x', content: vector(1) })).toMatchObject({ reason: 'content-without-projection' });
    expect(catalogue.apply().catalogue!.entities).toEqual(['new']);
    catalogue.take({ entity: 'new', removed: true });
    expect(catalogue.apply().catalogue!.entities).toEqual([]);
  });

  it('orders by what was said last, then by the bundle', () => {
    const base = bundleOf({ vocabularySize: 3 });
    const catalogue = new Catalogue(base);
    catalogue.take({ entity: 'new', content: vector(1, 2, 3), popularity: 5 });
    catalogue.take({ entity: 'item:3', popularity: 9 });
    catalogue.take({ entity: 'item:1', retired: true });
    const { order, popularity, retired } = catalogue.apply().catalogue!;
    expect([[...order], [...popularity], [...retired]]).toEqual([[3, -1, 2], [9, 5, 0], [1]]);
  });

  it('leaves tokens, and so windows and digests, as they were', () => {
    const base = bundleOf({ unknownEntity: 'hash', outOfVocabulary: 2 });
    const catalogue = new Catalogue(base);
    catalogue.take({ entity: 'new', content: vector(1, 2, 3) });
    const grown = catalogue.apply();
    const event = { action: 'view', entity: 'new' };
    expect(new Tokenizer(grown).token(event)).toEqual(new Tokenizer(base).token(event));
    expect([new Tokenizer(grown).rowOf('new'), new Tokenizer(grown).entityOf(-1)]).toEqual([-1, 'new']);
    expect(grown.digest).toBe(base.digest);
  });

  it.each([0, 1, 5, 60])('lists exactly what a model trained with it would: top %i', async (topK) => {
    const base = bundleOf();
    const catalogue = new Catalogue(base);
    for (let i = 0; i < 10; i++) catalogue.take({ entity: `new:${i}`, content: vector(Math.sin(i), Math.cos(3 * i), i / 5) });
    for (const entity of ['item:2', 'item:17', 'new:3']) catalogue.take({ entity, retired: true });
    const grown = catalogue.apply();
    const table = base.tensors.get('entity_embedding')!.data;
    // The same catalogue as a vocabulary; what is retired is hidden as if it had been seen.
    const { rows, entities } = grown.catalogue!;
    const whole = makeBundle({
      config: { ...base.config, vocabularySize: 40 + entities.length },
      entities: [...base.entities, ...entities],
      tensors: new Map(base.tensors).set('entity_embedding', {
        shape: [41 + entities.length, D],
        data: Float32Array.from([...table, ...rows]),
      }),
    });
    const embedding = Float32Array.from({ length: D }, (_, d) => Math.cos(d));
    const [one, other] = [new EncoderEngine(grown, { kvBudgetBytes: 0 }), new EncoderEngine(whole, { kvBudgetBytes: 0 })];
    const denied = [whole.entities.indexOf('new:5') + 1, 7];
    const [found] = await one.score([
      { ...none, rows: embedding, topK, seen: Int32Array.of(-(entities.indexOf('new:5') + 1), 7), seenCount: Int32Array.of(2) },
    ]);
    const hidden = Int32Array.of(...denied, 2, 17);
    const [wanted] = await other.score([{ ...none, rows: embedding, topK, seen: hidden, seenCount: Int32Array.of(4) }]);
    const names = (bundle: Bundle, list: Int32Array) => Array.from(list, (row) => new Tokenizer(bundle).entityOf(row));
    expect(names(grown, found!.topEntities)).toEqual(names(whole, wanted!.topEntities));
    for (const [i, score] of found!.topScores.entries()) expect(score).toBeCloseTo(wanted!.topScores[i]!, 5);
    if (topK === 60) expect(found!.topEntities.length).toBe(40 - 2 - 1 + 9 - 1);
    await Promise.all([one.release(), other.release()]);
  });

  it('judges new entities by task heads as rows of the table, and refuses rows that it does not have', async () => {
    const tasks = { tasks: [{ name: 'like', weight: 1 }], hidden: 0 };
    const base = bundleOf({ ranking: tasks });
    const catalogue = new Catalogue(base);
    catalogue.take({ entity: 'new', content: vector(1, 2, 3) });
    const grown = catalogue.apply();
    const table = base.tensors.get('entity_embedding')!;
    const swapped = makeBundle({
      ...base,
      tensors: new Map(base.tensors).set('entity_embedding', { ...table, data: table.data.slice() }),
    });
    swapped.tensors.get('entity_embedding')!.data.set(grown.catalogue!.rows, 9 * D);
    const segment = {
      windowStart: 0,
      entities: Int32Array.of(1, 2),
      timesS: Float64Array.of(1, 2),
      pageDigests: new Uint32Array(0),
      queryTimeS: 3,
    };
    const [one, other] = [new EncoderEngine(grown, { kvBudgetBytes: 0 }), new EncoderEngine(swapped, { kvBudgetBytes: 0 })];
    const ask = (row: number) => [{ userId: 'u', segment, candidates: Int32Array.of(row) }];
    const [found] = await one.scoreCandidates(ask(-1));
    const [wanted] = await other.scoreCandidates(ask(9));
    expect(found!.combined[0]).toBeCloseTo(wanted!.combined[0]!, 6);
    for (const row of [0, -2, 41]) await expect(one.scoreCandidates(ask(row))).rejects.toThrow(`candidate row ${row}`);
    await Promise.all([one.release(), other.release()]);
  });
});

/** Word vectors of a text model that a package ships: `test/golden/text-words/make.mjs`. */
describe('content by a text model', () => {
  let bundle: Bundle;
  let content: Map<string, Float32Array>;

  beforeAll(async () => {
    bundle = await loadBundle('examples/movielens/bundle');
    content = titlesAsContent();
  });
  afterAll(() => content.clear());

  it('puts movies that the fit has not seen nearer to their true rows than chance; shuffled content does not', () => {
    const fitted = rankOfTrueRow(content);
    const names = [...content.keys()];
    const shuffled = new Map(names.map((name, i) => [name, content.get(names[(i * 3571 + 1) % names.length]!)!]));
    const control = rankOfTrueRow(shuffled);
    expect(fitted).toBeLessThan(0.4);
    expect(control).toBeGreaterThan(0.45);
    expect(control).toBeLessThan(0.55);
  });

  /** Mean over held-out movies: the share of movies whose rows are nearer to the projected row than the movie's own. */
  function rankOfTrueRow(of: ReadonlyMap<string, Float32Array>): number {
    const width = bundle.config.dimension;
    const table = bundle.tensors.get('entity_embedding')!.data;
    const known = bundle.entities.flatMap((entity, i) => {
      const vector = of.get(entity);
      const row = table.subarray((i + 1) * width, (i + 2) * width);
      return vector === undefined ? [] : [{ vector, row, norm: Math.max(Math.hypot(...row), 1e-6) }];
    });
    // A third of the movies is enough, and quick.
    const kept = known.filter((_, i) => i % 3 === 0);
    const projection = fitProjection({
      content: Float32Array.from(kept.flatMap(({ vector }) => [...vector])),
      rows: Float32Array.from(kept.flatMap(({ row }) => [...row])),
      count: kept.length,
    });
    const heldOut = known.filter((_, i) => i % 30 === 1);
    const others = known.filter((_, i) => i % 20 === 0);
    const shares = heldOut.map((movie) => {
      const projected = projectContent(projection, movie.vector);
      const cosine = ({ row, norm }: (typeof known)[number]) => row.reduce((sum, v, d) => sum + v * projected[d]!, 0) / norm;
      const own = cosine(movie);
      return others.filter((other) => cosine(other) > own).length / others.length;
    });
    expect(shares.length).toBeGreaterThan(250);
    return shares.reduce((sum, share) => sum + share, 0) / shares.length;
  }
});

/** The mean of the vectors of a movie's words, titles and genres. */
function titlesAsContent(): Map<string, Float32Array> {
  const folder = 'test/golden/text-words';
  const words = new Map(
    readFileSync(`${folder}/words.txt`, 'utf8')
      .trimEnd()
      .split('\n')
      .map((word, i) => [word, i]),
  );
  const bytes = new Int8Array(readFileSync(`${folder}/vectors.bin`));
  const content = new Map<string, Float32Array>();
  for (const line of readFileSync('examples/movielens/data/movies.csv', 'utf8').toLowerCase().split('\n').slice(1)) {
    const [id, rest] = [line.slice(0, line.indexOf(',')), line.slice(line.indexOf(',') + 1)];
    const found = (rest.match(/[a-z]+/g) ?? []).flatMap((word) => words.get(word) ?? []);
    if (found.length === 0) continue;
    const mean = new Float32Array(100);
    for (const word of found) for (let d = 0; d < 100; d++) mean[d]! += bytes[word * 100 + d]! / 127 / found.length;
    content.set(`movie:${id}`, mean);
  }
  return content;
}
