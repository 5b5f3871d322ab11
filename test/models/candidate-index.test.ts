import { fstatSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { CandidateIndex } from '../../models/catalogue/candidate-index.ts';
import { Catalogue } from '../../models/catalogue/overlay.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { type Bundle, makeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { IndexReport } from '../../models/worker/index/list-index.ts';
import type { ScoreRequest, ScoreResult } from '../../schemas/encoding.ts';

const D = 16;
const V = 4_000;
const CLUSTERS = 100;

/** Numbers of a generator (Lehmer's), about normal: sums of twelve. */
function normals(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state * 48_271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
  return () => Array.from({ length: 12 }, uniform).reduce((sum, one) => sum + one, -6);
}

/** A vocabulary in clusters, as trained tables are, and embeddings about their middles. */
function clustered(): { readonly bundle: Bundle; readonly embeddings: Float32Array[] } {
  const next = normals(7);
  const middles = Array.from({ length: CLUSTERS }, () => Float32Array.from({ length: D }, next));
  const about = (cluster: number, noise: number) => middles[cluster % CLUSTERS]!.map((value) => value + noise * next());
  const base = randomBundle({
    dimension: D,
    layers: 1,
    heads: 1,
    maxSequenceLength: 8,
    vocabularySize: V,
    content: { dimension: D },
  });
  const data = new Float32Array((V + 1) * D);
  for (let row = 1; row <= V; row++) data.set(about(row, 0.4), row * D);
  const bundle = makeBundle({
    ...base,
    tensors: new Map(base.tensors).set('entity_embedding', { shape: [V + 1, D], data }),
  });
  return { bundle, embeddings: Array.from({ length: 40 }, (_, i) => about(i * 7, 0.6)) };
}

const { bundle, embeddings } = clustered();
const table = { rows: bundle.tensors.get('entity_embedding')!.data, dimension: D };

const ask = (rows: Float32Array, topK: number, hidden: readonly number[] = [], target = 0): ScoreRequest => ({
  rows,
  targets: Int32Array.of(target),
  seen: Int32Array.from(hidden),
  seenCount: Int32Array.of(hidden.length),
  topK,
});

function recallOf(found: readonly ScoreResult[], exact: readonly ScoreResult[]): number {
  const hits = exact.map(({ topEntities }, i) => topEntities.filter((row) => found[i]!.topEntities.includes(row)).length);
  const wanted = exact.reduce((sum, { topEntities }) => sum + topEntities.length, 0);
  return hits.reduce((sum, one) => sum + one, 0) / wanted;
}

describe('lists by an index', () => {
  let folder: string;
  let index: CandidateIndex;
  let exact: EncoderEngine;
  const engines: EncoderEngine[] = [];

  const engineOf = (of: Bundle = bundle) => {
    const engine = new EncoderEngine(of, { kvBudgetBytes: 0 });
    engines.push(engine);
    return engine;
  };
  const indexed = (by: Pick<CandidateIndex, 'nearest' | 'size'> = index, sampleEvery = 1, of?: Bundle) => {
    const engine = engineOf(of);
    engine.useIndex(by, sampleEvery);
    return engine;
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hstu-index-'));
    index = CandidateIndex.build(table);
    exact = engineOf();
  });
  afterAll(async () => {
    await Promise.all(engines.map((engine) => engine.release()));
    await rm(folder, { recursive: true });
  });

  it.each([10, 100])('find nearly all of the best %i, with the scores and in the order that they have', async (topK) => {
    const requests = embeddings.map((rows) => ask(rows, topK));
    const engine = indexed();
    const [found, wanted] = [await engine.score(requests), await exact.score(requests)];
    expect(recallOf(found, wanted)).toBeGreaterThan(0.97);
    for (const [i, { topEntities, topScores }] of found.entries()) {
      const [{ candidateScores }] = (await exact.score([{ ...requests[i]!, candidates: topEntities }])) as [ScoreResult];
      expect(topScores).toEqual(candidateScores);
      expect([...topScores]).toEqual([...topScores].sort((a, b) => b - a));
    }
    // What the sample says is what was found: here all lists are in it.
    const { lists, wanted: compared, found: hits } = engine.stats.index!;
    expect([lists, compared]).toEqual([embeddings.length, embeddings.length * topK]);
    expect(hits / compared).toBeCloseTo(recallOf(found, wanted), 10);
  });

  it('say by the sample that a wrong index is wrong', async () => {
    const rotated = { size: V, nearest: (rows: Float32Array, count: number) => index.nearest(rows.slice().reverse(), count) };
    const engine = indexed(rotated, 4);
    await engine.score(embeddings.map((rows) => ask(rows, 10)));
    const { lists, wanted, found } = engine.stats.index!;
    expect([lists, wanted]).toEqual([embeddings.length, (embeddings.length / 4) * 10]);
    expect(found / wanted).toBeLessThan(0.3);
  });

  it('leave out what was seen, but for the own target, and rank it exactly', async () => {
    const engine = indexed();
    for (const rows of embeddings.slice(0, 10)) {
      const [{ topEntities: near }] = (await exact.score([ask(rows, 60)])) as [ScoreResult];
      const target = near[3]!;
      const request = ask(rows, 10, [...near.subarray(0, 50), 0], target);
      const [found] = await engine.score([request]);
      const [wanted] = await exact.score([request]);
      expect(found!.ranks).toEqual(wanted!.ranks);
      expect(found!.topEntities[0]).toBe(target);
      expect(found!.topEntities.some((row) => row !== target && request.seen.includes(row))).toBe(false);
      expect(recallOf([found!], [wanted!])).toBeGreaterThanOrEqual(0.9);
    }
  });

  it('are scanned where the filter eats what the index gives, or more is wanted than there is', async () => {
    const engine = indexed();
    const rows = embeddings[0]!;
    const [{ topEntities: near }] = (await exact.score([ask(rows, V - 5)])) as [ScoreResult];
    const eaten = [ask(rows, 10, [...near]), ask(rows, 10, [...near.subarray(0, 3_000)]), ask(rows, V + 1)];
    const [found, wanted] = [await engine.score(eaten), await exact.score(eaten)];
    expect(found).toEqual(wanted);
    expect(found[0]!.topEntities).toHaveLength(5);
    expect(engine.stats.index).toMatchObject({ lists: 0, fellBack: 3 });
  });

  it('follow the catalogue: what is retired goes, what is new comes, at once', async () => {
    const engine = indexed();
    const rows = embeddings[1]!;
    const [{ topEntities: near }] = (await exact.score([ask(rows, 20)])) as [ScoreResult];
    const catalogue = new Catalogue(bundle);
    for (const row of near.subarray(0, 5)) catalogue.take({ entity: bundle.entities[row - 1]!, retired: true });
    for (let i = 0; i < 4; i++)
      catalogue.take({ entity: `new:${i}`, content: Float32Array.from({ length: D }, (_, d) => Math.sin(d + i)) });
    const grown = catalogue.apply();
    // Content that projects to the embedding itself: the nearest there can be.
    grown.catalogue!.rows.set(rows, 2 * D);
    engine.useCatalogue(grown.catalogue!);
    const plain = engineOf(grown);
    const [found] = await engine.score([ask(rows, 10)]);
    const [wanted] = await plain.score([ask(rows, 10)]);
    expect(found!.topEntities[0]).toBe(-3);
    expect(found!.topEntities.some((row) => near.subarray(0, 5).includes(row))).toBe(false);
    expect(recallOf([found!], [wanted!])).toBeGreaterThanOrEqual(0.9);
    engine.useCatalogue(new Catalogue(bundle).apply().catalogue!);
    const [before] = await engine.score([ask(rows, 10)]);
    expect(before!.topEntities).toContain(near[0]);
  });

  it('are made by one index of one table: the same again, and from its file', async () => {
    const [file, other] = [join(folder, 'one'), join(folder, 'other')];
    index.save(file);
    CandidateIndex.build(table).save(other);
    expect((await readFile(file)).equals(await readFile(other))).toBe(true);
    const opened = CandidateIndex.open(file, D);
    expect(opened.size).toBe(V);
    for (const rows of embeddings) expect(opened.nearest(rows, 20)).toEqual(index.nearest(rows, 20));
    expect(() => CandidateIndex.open(file, 2 * D)).toThrow(/of 16 numbers a row, not 32/);
    await writeFile(file, (await readFile(other)).subarray(0, 100_000));
    const standardInput = fstatSync(0).ino;
    expect(() => CandidateIndex.open(file, D)).toThrow(/is cut off/);
    await writeFile(file, '');
    expect(() => CandidateIndex.open(file, D)).toThrow(/is empty/);
    expect(() => CandidateIndex.open(join(folder, 'none'), D)).toThrow(/ENOENT/);
    expect(fstatSync(0).ino).toBe(standardInput);
  });

  it('begin when a thread has built it, go on after a crash, and need no building at the next start', async () => {
    const options = { kvBudgetBytes: 2 ** 20, workers: 2, index: { choice: 'hnsw', folder: join(folder, 'kept') } } as const;
    const reports: IndexReport[] = [];
    const first = new HstuEncoder(bundle, { ...options, onIndex: (report) => reports.push(report) });
    try {
      const [early] = await first.score([ask(embeddings[2]!, 10)]);
      expect(early!.topEntities).toHaveLength(10);
      await vi.waitFor(() => expect(reports).toHaveLength(1), { timeout: 60_000 });
      expect(reports[0]).toMatchObject({ rows: V, bytes: expect.any(Number) });
      await first.crash(1);
      await vi.waitFor(
        async () => {
          await first.score([ask(embeddings[2]!, 10)]);
          await first.score([ask(embeddings[2]!, 10)]);
          expect((await first.stats()).restarts).toBe(1);
        },
        { timeout: 60_000 },
      );
      expect((await first.stats()).index!.lists).toBeGreaterThanOrEqual(2);
    } finally {
      await first.close();
    }
    const { mtimeMs } = await stat(join(folder, 'kept'));
    const second = new HstuEncoder(bundle, { ...options, onIndex: (report) => reports.push(report) });
    try {
      await vi.waitFor(() => expect(reports).toHaveLength(2), { timeout: 60_000 });
      expect(reports[1]).toMatchObject({ rows: V, seconds: 0 });
      expect((await stat(join(folder, 'kept'))).mtimeMs).toBe(mtimeMs);
    } finally {
      await second.close();
    }
  });

  it('stay exact where the index cannot be made, and below 100,000 entities unless told', async () => {
    const file = join(folder, 'no-folder');
    await writeFile(file, '');
    const reports: IndexReport[] = [];
    const onIndex = (report: IndexReport) => reports.push(report);
    const failing = new HstuEncoder(bundle, { index: { choice: 'hnsw', folder: file }, onIndex });
    const small = new HstuEncoder(bundle, { index: { choice: 'auto', folder: join(folder, 'auto') }, onIndex });
    try {
      await vi.waitFor(() => expect(reports).toHaveLength(1), { timeout: 60_000 });
      expect(reports[0]).toEqual({ failed: expect.stringMatching(/EEXIST|ENOTDIR/) });
      for (const encoder of [failing, small]) {
        const [list] = await encoder.score([ask(embeddings[0]!, 10)]);
        expect(list!.topEntities).toEqual((await exact.score([ask(embeddings[0]!, 10)]))[0]!.topEntities);
        expect((await encoder.stats()).index).toBeUndefined();
      }
      await expect(stat(join(folder, 'auto'))).rejects.toThrow(/ENOENT/);
    } finally {
      await Promise.all([failing.close(), small.close()]);
    }
  });
});
