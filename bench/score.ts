/**
 * Candidates judged from the cached history against re-encoding the history, by the same runtime on one thread and in the same
 * micro-batches: M-FALCON with its cache and without.
 */
import { type Bundle, kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { CandidateRequest } from '../schemas/encoding.ts';
import { trialWindow } from '../streams/measure-encoder.ts';
import { median, noteKvBytes } from './measure.ts';

export interface ScoreFigure {
  /** Events of the history. */
  readonly n: number;
  readonly candidates: number;
  /** One request, history in the cache, µs. */
  readonly cachedUs: number;
  /** One request, nothing cached: each micro-batch is one pass over the history and its candidates, µs. */
  readonly fullUs: number;
  /** fullUs / cachedUs */
  readonly ratio: number;
  /** From the cache. */
  readonly candidatesPerSecond: number;
}

/** And what an empty cache costs when the request itself fills it: the history encoded once, µs. */
export interface ScoreFigureWithCold extends ScoreFigure {
  readonly coldUs: number;
}

const HISTORIES = [200, 1000, 4000] as const;
const CANDIDATES = [256, 2048] as const;
export const SCORE_FIGURES = HISTORIES.length * CANDIDATES.length;
const D = 64;
const H = 2;
const USERS = 8;

export async function benchScore(onProgress: (done: number, label: string) => void): Promise<ScoreFigureWithCold[]> {
  const figures: ScoreFigureWithCold[] = [];
  for (const n of HISTORIES) {
    const bundle = rankingBundle(n);
    const kvBudgetBytes = 2 * USERS * n * kvBytesPerRow(bundle.config);
    noteKvBytes(kvBudgetBytes);
    const engine = new EncoderEngine(bundle, { kvBudgetBytes });
    for (const candidates of CANDIDATES) {
      onProgress(figures.length, `${n} events, ${candidates} candidates`);
      figures.push(await measure(engine, bundle, n, candidates));
    }
    await engine.release();
  }
  return figures;
}

/** The three ways in turn, so that whatever else the machine does falls on all of them; medians. */
async function measure(engine: EncoderEngine, bundle: Bundle, n: number, candidates: number): Promise<ScoreFigureWithCold> {
  const requests = Array.from({ length: USERS }, (_, i) => request(`user-${i}`, n, candidates, bundle.config.vocabularySize, i));
  await engine.scoreCandidates(requests);
  await engine.scoreCandidatesInFull(requests.slice(0, 1));
  const [cached, full, cold]: [number[], number[], number[]] = [[], [], []];
  const began = performance.now();
  for (let round = 0; round < 3 || (round < 24 && performance.now() - began < 6000); round++) {
    const one = requests[round % USERS]!;
    for (let again = 0; again < 4; again++)
      cached.push(await time(() => engine.scoreCandidates([requests[(round + again) % USERS]!])));
    full.push(await time(() => engine.scoreCandidatesInFull([one])));
    engine.forget(one.userId);
    cold.push(await time(() => engine.scoreCandidates([one])));
  }
  const [cachedUs, fullUs] = [median(cached), median(full)];
  const candidatesPerSecond = (1e6 * candidates) / cachedUs;
  return { n, candidates, cachedUs, fullUs, ratio: fullUs / cachedUs, candidatesPerSecond, coldUs: median(cold) };
}

async function time(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return 1e3 * (performance.now() - start);
}

export const rankingBundle = (n: number): Bundle =>
  randomBundle({
    dimension: D,
    layers: 4,
    heads: H,
    maxSequenceLength: n,
    architecture: 'hstu-stu',
    concatUa: true,
    timeBias: false,
    positionBias: false,
    stu: { divisor: n, alpha: 1 / Math.sqrt(D / H), groupNorm: false, maxAttnLen: null, embeddingScale: Math.sqrt(D) },
    ranking: {
      tasks: ['click', 'like', 'purchase'].map((name) => ({ name, weight: 1 })),
      hidden: 0,
    },
  });

function request(userId: string, n: number, candidates: number, vocabulary: number, seed: number): CandidateRequest {
  const window = trialWindow(n, vocabulary, seed);
  return {
    userId,
    segment: { ...window, queryTimeS: window.queryTimeS + 60 },
    candidates: Int32Array.from({ length: candidates }, (_, i) => 1 + ((i * 31 + seed) % vocabulary)),
  };
}
