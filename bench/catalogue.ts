/**
 * The best of a catalogue by its index against the scan of all of it, on one thread: how long a list takes, how much of the exact list
 * is found, and what the index costs. Rows in clusters, as trained tables are; embeddings about the clusters' middles.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CandidateIndex } from '../models/catalogue/candidate-index.ts';
import { type Bundle, makeBundle } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { ScoreRequest, ScoreResult } from '../schemas/encoding.ts';
import { median } from './measure.ts';

export interface CatalogueFigure {
  /** Entities of the vocabulary. */
  readonly rows: number;
  /** A list of the best 100 by the scan, µs; lists are asked 32 at a time. */
  readonly exactUs: number;
  /** By the index, µs. */
  readonly indexUs: number;
  /** exactUs / indexUs */
  readonly ratio: number;
  /** Share of the exact best that the index finds. */
  readonly recall10: number;
  readonly recall100: number;
  readonly buildSeconds: number;
  /** Of its file. */
  readonly indexMiB: number;
}

const D = 64;
/** Rows a cluster, about. */
const CLUSTER = 150;
const LISTS = 32;

export async function benchCatalogue(
  counts: readonly number[],
  onProgress: (done: number, label: string) => void,
): Promise<CatalogueFigure[]> {
  const figures: CatalogueFigure[] = [];
  for (const rows of counts) {
    onProgress(figures.length, `${rows} rows`);
    figures.push(await measure(rows));
  }
  return figures;
}

async function measure(rows: number): Promise<CatalogueFigure> {
  const { bundle, requests } = clustered(rows);
  const { index, buildSeconds, bytes } = await built(bundle);
  const exact = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  const indexed = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  // None of the sample: its scans would be taken for the index's time.
  indexed.useIndex(index, Number.POSITIVE_INFINITY);
  const recall = async (topK: number) => {
    const asked = requests.map((request) => ({ ...request, topK }));
    return recallOf(await indexed.score(asked), await exact.score(asked));
  };
  const [recall10, recall100] = [await recall(10), await recall(100)];
  const [scans, lookups]: [number[], number[]] = [[], []];
  const began = performance.now();
  for (let round = 0; round < 3 || (round < 20 && performance.now() - began < 4_000); round++) {
    scans.push(await time(exact, requests));
    lookups.push(await time(indexed, requests));
  }
  await Promise.all([exact.release(), indexed.release()]);
  const [exactUs, indexUs] = [median(scans), median(lookups)];
  return { rows, exactUs, indexUs, ratio: exactUs / indexUs, recall10, recall100, buildSeconds, indexMiB: bytes / 2 ** 20 };
}

async function built(bundle: Bundle): Promise<{ index: CandidateIndex; buildSeconds: number; bytes: number }> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-bench-index-'));
  try {
    const began = performance.now();
    const index = CandidateIndex.build({ rows: bundle.tensors.get('entity_embedding')!.data, dimension: D });
    const buildSeconds = (performance.now() - began) / 1000;
    index.save(join(folder, 'index'));
    return { index, buildSeconds, bytes: (await stat(join(folder, 'index'))).size };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** µs a list. */
async function time(engine: EncoderEngine, requests: readonly ScoreRequest[]): Promise<number> {
  const start = performance.now();
  await engine.score(requests);
  return (1e3 * (performance.now() - start)) / requests.length;
}

function recallOf(found: readonly ScoreResult[], exact: readonly ScoreResult[]): number {
  let [hits, wanted] = [0, 0];
  for (const [i, { topEntities }] of exact.entries()) {
    const listed = new Set(found[i]!.topEntities);
    hits += topEntities.filter((row) => listed.has(row)).length;
    wanted += topEntities.length;
  }
  return hits / wanted;
}

function clustered(rows: number): { readonly bundle: Bundle; readonly requests: ScoreRequest[] } {
  const next = normals(rows);
  const middles = Float32Array.from({ length: Math.ceil(rows / CLUSTER) * D }, next);
  const write = (into: Float32Array, at: number, noise: number) => {
    const middle = Math.floor(Math.abs(next()) * 1e6) % (middles.length / D);
    for (let d = 0; d < D; d++) into[at + d] = middles[middle * D + d]! + noise * next();
  };
  const base = randomBundle({ dimension: D, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize: rows });
  const data = new Float32Array((rows + 1) * D);
  for (let row = 1; row <= rows; row++) write(data, row * D, 0.5);
  const tensors = new Map(base.tensors).set('entity_embedding', { shape: [rows + 1, D], data });
  const requests = Array.from({ length: LISTS }, () => {
    const embedding = new Float32Array(D);
    write(embedding, 0, 0.75);
    return { rows: embedding, targets: new Int32Array(1), seen: new Int32Array(0), seenCount: new Int32Array(1), topK: 100 };
  });
  return { bundle: makeBundle({ ...base, tensors }), requests };
}

/** Normally distributed numbers (Box and Muller) of Lehmer's generator. */
function normals(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state * 48_271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
