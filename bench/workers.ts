/**
 * The encoder alone on one thread and on two: exact steps (`T = 2`) through `HstuEncoder`, threads and messages included, with
 * several batches in flight as the pipeline has them. Both are open at once and take turns, so that what else the machine does
 * falls on both.
 */
import { HstuEncoder } from '../models/encoder.ts';
import { kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import type { EncodeRequest } from '../schemas/encoding.ts';
import { ENCODE_SHAPES, request } from './encode.ts';
import { median, noteKvBytes } from './measure.ts';

export interface WorkersFigure {
  readonly D: number;
  readonly L: number;
  readonly n: number;
  /** Steps a second. */
  readonly one: number;
  readonly two: number;
  readonly ratio: number;
}

const SHAPES = ENCODE_SHAPES.filter(({ n }) => n <= 1000);
export const WORKERS_FIGURES = SHAPES.length;
const USERS = 128;
/** Users a call: each of two workers gets about half of them. */
const BATCH = 64;
const IN_FLIGHT = 4;
const ROUNDS = 9;
const ROUND_MS = 500;

export async function benchWorkers(onProgress: (done: number, label: string) => void): Promise<WorkersFigure[]> {
  const figures: WorkersFigure[] = [];
  for (const { D, L, n } of SHAPES) {
    onProgress(figures.length, `D ${D}, L ${L}, n ${n}`);
    const bundle = randomBundle({ dimension: D, layers: L, heads: D === 64 ? 2 : 4, maxSequenceLength: n });
    const requests = Array.from({ length: USERS }, (_, i) => request(`user-${i}`, n, bundle.config.vocabularySize, i));
    const kvBudgetBytes = Math.ceil(1.5 * USERS * n * kvBytesPerRow(bundle.config));
    noteKvBytes(2 * kvBudgetBytes);
    const encoders = [1, 2].map((workers) => new HstuEncoder(bundle, { workers, kvBudgetBytes }));
    for (const encoder of encoders)
      for (let start = 0; start < USERS; start += 8) await encoder.encode(requests.slice(start, start + 8));
    const rates: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++)
      for (const [i, encoder] of encoders.entries()) rates[i as 0 | 1].push(await stepsPerSecond(encoder, requests));
    await Promise.all(encoders.map((encoder) => encoder.close()));
    const [one, two] = rates.map(median) as [number, number];
    figures.push({ D, L, n, one, two, ratio: median(rates[1].map((rate, round) => rate / rates[0][round]!)) });
  }
  onProgress(WORKERS_FIGURES, 'done');
  return figures;
}

async function stepsPerSecond(encoder: HstuEncoder, requests: readonly EncodeRequest[]): Promise<number> {
  const began = performance.now();
  let next = 0;
  let steps = 0;
  const one = async (): Promise<void> => {
    while (performance.now() - began < ROUND_MS) {
      const start = (BATCH * next++) % USERS;
      await encoder.encode(requests.slice(start, start + BATCH));
      steps += BATCH;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, one));
  return (1e3 * steps) / (performance.now() - began);
}
