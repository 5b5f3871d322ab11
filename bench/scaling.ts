/**
 * How the exact step and the full encode grow with the history, the layers, the users a batch and the width, one at a time from
 * one middle point. Each beside its floor, measured at that moment: the step beside a plain copy of memory (it reads K and V), the
 * full encode beside one large matrix product in the same runtime.
 */
import { kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import { trialRequest } from '../streams/measure-encoder.ts';
import { timeFull, timeSteps } from './encode.ts';
import { Gemm, prefillFlops } from './floors.ts';
import { copyBandwidth, noteKvBytes } from './measure.ts';

type Axis = 'n' | 'L' | 'B' | 'D';
type Point = Readonly<Record<Axis, number>>;

export interface ScalingFigure extends Point {
  /** Which of the four is varied. */
  readonly axis: Axis;
  /** Full encode, µs a user. */
  readonly fullUs: number;
  /** Exact step (`T = 2`), µs a user. */
  readonly stepUs: number;
  readonly ratio: number;
  /** K and V read by the step, GB/s, and a plain copy of memory, bytes read plus bytes written. */
  readonly kvGBps: number;
  readonly copyGBps: number;
  /** Of the full encode, pairs that the causal mask hides not counted, and of one large matrix product, one thread. */
  readonly fullGflops: number;
  readonly gemmGflops: number;
}

const MIDDLE: Point = { n: 1000, L: 4, B: 32, D: 64 };
const AXES: Readonly<Record<Axis, readonly number[]>> = {
  n: [200, 500, 1000, 2000, 4000],
  L: [1, 2, 4, 8],
  B: [1, 2, 4, 8, 16, 32, 64],
  D: [32, 64, 128, 256],
};
/** K and V of all users together: well beyond the last-level cache. */
const WORKING_SET_BYTES = 128 * 2 ** 20;
export const SCALING_FIGURES = Object.values(AXES).flat().length;

export async function benchScaling(onProgress: (done: number, label: string) => void): Promise<ScalingFigure[]> {
  const gemm = await Gemm.open();
  const figures: ScalingFigure[] = [];
  const report = (label: string) => onProgress(figures.length, label);
  const middle = await measure(MIDDLE, AXES.B, gemm, report);
  figures.push(...middle.map((figure) => ({ axis: 'B' as const, ...figure })));
  for (const axis of ['n', 'L', 'D'] as const)
    for (const value of AXES[axis]) {
      const point = { ...MIDDLE, [axis]: value };
      const measured =
        value === MIDDLE[axis] ? middle.filter(({ B }) => B === MIDDLE.B) : await measure(point, [MIDDLE.B], gemm, report);
      figures.push(...measured.map((figure) => ({ axis, ...figure })));
    }
  await gemm.release();
  onProgress(SCALING_FIGURES, 'done');
  return figures;
}

/** A point once for every number of users a batch. */
async function measure(
  { n, L, D }: Point,
  batches: readonly number[],
  gemm: Gemm,
  report: (label: string) => void,
): Promise<Omit<ScalingFigure, 'axis'>[]> {
  report(`D ${D}, L ${L}, n ${n}, full`);
  const bundle = randomBundle({ dimension: D, layers: L, heads: D <= 64 ? 2 : 4, maxSequenceLength: n });
  const userBytes = n * kvBytesPerRow(bundle.config);
  const users = Math.max(...batches, Math.ceil(WORKING_SET_BYTES / userBytes));
  const kvBudgetBytes = Math.ceil(1.1 * users * userBytes);
  noteKvBytes(kvBudgetBytes);
  const engine = new EncoderEngine(bundle, { kvBudgetBytes });
  const fullBefore = await timeFull(engine, bundle, n);
  const gemmGflops = await gemm.gflops();
  const requests = Array.from({ length: users }, (_, i) => trialRequest(`user-${i}`, n, bundle.config.vocabularySize, i));
  for (let start = 0; start < users; start += 8) await engine.encode(requests.slice(start, start + 8));
  const steps: { readonly B: number; readonly stepUs: number; readonly copyGBps: number }[] = [];
  for (const B of batches) {
    report(`D ${D}, L ${L}, n ${n}, B ${B}`);
    const stepUs = await timeSteps(engine, requests, B);
    steps.push({ B, stepUs, copyGBps: copyBandwidth() });
  }
  // Before and after, the better of the two: what else the machine did meanwhile is not to flatter the step.
  const fullUs = Math.min(fullBefore, await timeFull(engine, bundle, n));
  await engine.release();
  return steps.map(({ B, stepUs, copyGBps }) => ({
    D,
    L,
    n,
    B,
    fullUs,
    stepUs,
    ratio: fullUs / stepUs,
    kvGBps: userBytes / stepUs / 1e3,
    copyGBps,
    fullGflops: prefillFlops(bundle.config, n) / fullUs / 1e3,
    gemmGflops,
  }));
}
