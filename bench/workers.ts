/**
 * The encoder alone on one thread and on two: exact steps (`T = 2`) and full encodes through `HstuEncoder`, threads and messages
 * included, with several batches in flight as the pipeline has them. Both are open at once and take turns, so that what else the
 * machine does falls on both. Beside them, what two threads copy of memory more than one: steps read, full encodes compute.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { HstuEncoder } from '../models/encoder.ts';
import { kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import type { EncodeRequest } from '../schemas/encoding.ts';
import { trialRequest } from '../streams/measure-encoder.ts';
import { ENCODE_SHAPES } from './encode.ts';
import { median, noteKvBytes } from './measure.ts';

export interface WorkersFigure {
  readonly D: number;
  readonly L: number;
  readonly n: number;
  readonly what: 'step' | 'full';
  /** Users a second. */
  readonly one: number;
  readonly two: number;
  readonly ratio: number;
  /** Bytes copied by two threads at once over those by one, after that. */
  readonly copyRatio: number;
}

const SHAPES = ENCODE_SHAPES.filter(({ n }) => n <= 1000);
export const WORKERS_FIGURES = SHAPES.length;
const USERS = 128;
/** Users a call: each of two workers gets about half of them. */
const BATCH = 64;
const IN_FLIGHT = 4;
const ROUNDS = 9;
const ROUND_MS = 500;
const COPY_BYTES = 64 * 1024 * 1024;
const COPY_MS = 700;

export async function benchWorkers(onProgress: (done: number, label: string) => void): Promise<WorkersFigure[]> {
  const figures: WorkersFigure[] = [];
  for (const [i, { D, L, n }] of SHAPES.entries()) {
    onProgress(i, `D ${D}, L ${L}, n ${n}`);
    const bundle = randomBundle({ dimension: D, layers: L, heads: D === 64 ? 2 : 4, maxSequenceLength: n });
    const requests = Array.from({ length: USERS }, (_, k) => trialRequest(`user-${k}`, n, bundle.config.vocabularySize, k));
    const kvBudgetBytes = Math.ceil(1.5 * USERS * n * kvBytesPerRow(bundle.config));
    noteKvBytes(2 * kvBudgetBytes);
    const encoders = [1, 2].map((workers) => new HstuEncoder(bundle, { workers, kvBudgetBytes }));
    for (const encoder of encoders)
      for (let start = 0; start < USERS; start += 8) await encoder.encode(requests.slice(start, start + 8));
    const copyRatio = (await copiedBy(2)) / (await copiedBy(1));
    // The steps first: full encodes of users that come once take the others' place in the cache.
    for (const [what, batchOf] of [
      ['step', stepsOf(requests, BATCH)],
      ['full', newcomersOf(requests, 8)],
    ] as const) {
      const rates: [number[], number[]] = [[], []];
      for (let round = 0; round < ROUNDS; round++)
        for (const [k, encoder] of encoders.entries()) rates[k as 0 | 1].push(await usersPerSecond(encoder, batchOf));
      const [one, two] = rates.map(median) as [number, number];
      const ratio = median(rates[1].map((rate, round) => rate / rates[0][round]!));
      figures.push({ D, L, n, what, one, two, ratio, copyRatio });
    }
    await Promise.all(encoders.map((encoder) => encoder.close()));
  }
  onProgress(WORKERS_FIGURES, 'done');
  return figures;
}

type BatchOf = () => readonly EncodeRequest[];

/** All users in turn: the encoder computes the last two rows of each. */
function stepsOf(requests: readonly EncodeRequest[], size: number): BatchOf {
  let next = 0;
  return () => {
    const start = (size * next++) % requests.length;
    return requests.slice(start, start + size);
  };
}

/** The same histories, of users whom the cache has never seen. */
function newcomersOf(requests: readonly EncodeRequest[], size: number): BatchOf {
  let next = 0;
  return () => Array.from({ length: size }, () => ({ ...requests[next % requests.length]!, userId: `newcomer-${next++}` }));
}

async function usersPerSecond(encoder: HstuEncoder, batchOf: BatchOf): Promise<number> {
  const began = performance.now();
  let users = 0;
  const one = async (): Promise<void> => {
    while (performance.now() - began < ROUND_MS) {
      const batch = batchOf();
      await encoder.encode(batch);
      users += batch.length;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, one));
  return (1e3 * users) / (performance.now() - began);
}

const COPYING = `
const { parentPort } = require('node:worker_threads');
const source = Buffer.alloc(${COPY_BYTES}, 1), target = Buffer.alloc(${COPY_BYTES}, 2);
parentPort.postMessage('ready');
parentPort.once('message', () => {
  let copies = 0;
  for (const began = performance.now(); performance.now() - began < ${COPY_MS}; copies++) source.copy(target);
  parentPort.postMessage(copies);
});`;

/** How often as many threads at once copy a block of memory, together. */
async function copiedBy(threads: number): Promise<number> {
  const workers = Array.from({ length: threads }, () => new Worker(COPYING, { eval: true }));
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  const copied = workers.map((worker) => once(worker, 'message') as Promise<[number]>);
  for (const worker of workers) worker.postMessage('go');
  const counts = await Promise.all(copied);
  await Promise.all(workers.map((worker) => worker.terminate()));
  return counts.reduce((sum, [copies]) => sum + copies, 0);
}
