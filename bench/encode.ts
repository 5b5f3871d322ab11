/**
 * Incremental against full encoding, by the same runtime on one thread: a step of the exact mode (the old tail and one new
 * event, `T = 2`) against a prefill of the whole window. Users are many enough that K/V come from memory, not from a cache
 * of the processor.
 */
import { type Bundle, kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { EncodeRequest } from '../schemas/encoding.ts';
import { trialRequest } from '../streams/measure-encoder.ts';
import { copyBandwidth, median, noteKvBytes, stopwatch } from './measure.ts';

export interface EncodeFigure {
  readonly D: number;
  readonly L: number;
  /** Events of the window. */
  readonly n: number;
  /** Users a batch. */
  readonly B: number;
  /** New rows a user. */
  readonly T: number;
  /** Full encode, µs a user. */
  readonly fullUs: number;
  /** Exact step, µs a user. */
  readonly incrementalUs: number;
  readonly ratio: number;
  /** K and V read by the step, GB/s. */
  readonly kvGBps: number;
  /** Plain copy of memory in the same run, bytes read plus bytes written, GB/s. */
  readonly copyGBps: number;
}

export const ENCODE_SHAPES = [
  { D: 64, L: 2, n: 200 },
  { D: 64, L: 4, n: 1000 },
  { D: 256, L: 8, n: 1000 },
  { D: 256, L: 4, n: 4000 },
] as const;
const BATCHES = [1, 8, 32] as const;
export const ENCODE_FIGURES = ENCODE_SHAPES.length * BATCHES.length;
/** K/V of all users together: well beyond the last-level cache. */
const WORKING_SET_BYTES = 192 * 1024 * 1024;

export async function benchEncode(onProgress: (done: number, label: string) => void): Promise<EncodeFigure[]> {
  const figures: EncodeFigure[] = [];
  for (const { D, L, n } of ENCODE_SHAPES) {
    const bundle = randomBundle({ dimension: D, layers: L, heads: D === 64 ? 2 : 4, maxSequenceLength: n });
    const userBytes = n * kvBytesPerRow(bundle.config);
    const users = Math.max(32, 32 * Math.ceil(WORKING_SET_BYTES / userBytes / 32));
    const kvBudgetBytes = Math.ceil(1.1 * users * userBytes);
    noteKvBytes(kvBudgetBytes);
    const engine = new EncoderEngine(bundle, { kvBudgetBytes });
    const fullBefore = await timeFull(engine, bundle, n);
    const requests = Array.from({ length: users }, (_, i) => trialRequest(`user-${i}`, n, bundle.config.vocabularySize, i));
    for (let start = 0; start < users; start += 8) await engine.encode(requests.slice(start, start + 8));
    const steps: { readonly B: number; readonly incrementalUs: number; readonly copyGBps: number }[] = [];
    for (const B of BATCHES) {
      onProgress(figures.length + steps.length, `D ${D}, L ${L}, n ${n}, B ${B}`);
      const incrementalUs = await timeSteps(engine, requests, B);
      steps.push({ B, incrementalUs, copyGBps: copyBandwidth() });
    }
    // Before and after, the better of the two: what else the machine did meanwhile is not to flatter the step.
    const fullUs = Math.min(fullBefore, await timeFull(engine, bundle, n));
    for (const { B, incrementalUs, copyGBps } of steps)
      figures.push({
        D,
        L,
        n,
        B,
        T: 2,
        fullUs,
        incrementalUs,
        ratio: fullUs / incrementalUs,
        kvGBps: userBytes / incrementalUs / 1e3,
        copyGBps,
      });
    await engine.release();
  }
  onProgress(ENCODE_FIGURES, 'done');
  return figures;
}

/** Median µs a user of a cold encode of the whole window, one user at a time and eight together: the better of the two. */
export async function timeFull(engine: EncoderEngine, bundle: Bundle, n: number): Promise<number> {
  const best: number[] = [];
  for (const B of [1, 8]) {
    if (B * n > 8000) continue;
    const requests = Array.from({ length: B }, (_, i) => trialRequest(`full-${i}`, n, bundle.config.vocabularySize, i));
    const times: number[] = [];
    for (let round = 0; round < 4 || (times.length < 24 && times.reduce((a, b) => a + b, 0) < 1e6); round++) {
      for (const { userId } of requests) engine.forget(userId);
      const elapsed = stopwatch();
      await engine.encode(requests);
      if (round > 0) times.push((1e3 * elapsed()) / B);
    }
    for (const { userId } of requests) engine.forget(userId);
    best.push(median(times));
  }
  return Math.min(...best);
}

/** Median µs a user of steps over all users in turn. Asking for the last two rows makes the engine compute both each time. */
export async function timeSteps(engine: EncoderEngine, requests: readonly EncodeRequest[], B: number): Promise<number> {
  const before = engine.stats;
  const times: number[] = [];
  for (let warm = 0; warm < 2; warm++) await engine.encode(requests.slice(0, B));
  const began = performance.now();
  for (
    let start = 0;
    times.length < 10 || (performance.now() - began < 2000 && times.length < 400);
    start = (start + B) % (requests.length - B + 1)
  ) {
    const batch = requests.slice(start, start + B);
    const elapsed = stopwatch();
    await engine.encode(batch);
    times.push((1e3 * elapsed()) / B);
  }
  const rows = engine.stats.rowsComputed - before.rowsComputed;
  const segments = engine.stats.segments - before.segments;
  if (rows !== 2 * segments) throw new Error(`the step computed ${rows} rows for ${segments} users; expected 2 a user`);
  return median(times);
}
