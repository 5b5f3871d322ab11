/**
 * The encoder under load: calls that come when they come (Poisson, one user each), however long answers take, and what of that a
 * micro-batch of fixed delay, no batches at all, and the scheduler make. The three take turns in changing order, and the figures are
 * the better quartile of short rounds: what else the machine does is in all of them, and least in those. A second part asks for
 * candidates while updates saturate the thread.
 */
import { Subject } from 'rxjs';
import { HstuEncoder } from '../models/encoder.ts';
import { type Bundle, kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { spawnEncoderWorker } from '../models/worker/spawn.ts';
import { WorkerHandle } from '../models/worker/worker-handle.ts';
import { microBatch } from '../operators/index.ts';
import type { CallTerms, CandidateRequest, EncodeRequest } from '../schemas/encoding.ts';
import { trialRequest } from '../streams/measure-encoder.ts';
import { noteKvBytes } from './measure.ts';
import { rankingBundle } from './score.ts';

/** Latency from when a call was due, ms, and calls answered a second. */
export interface LoadFigure {
  /** Calls due, by what the thread alone does in full batches. */
  readonly load: number;
  readonly way: Way;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Candidate requests while updates saturate the thread. */
export interface UrgentFigure {
  readonly way: 'first come' | 'scheduled';
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly updatesPerSecond: number;
}

export interface LoadFigures {
  readonly capacity: number;
  readonly loads: readonly LoadFigure[];
  readonly urgent: readonly UrgentFigure[];
}

export type Way = 'scheduled' | 'fixed' | 'at once';

const [D, L, N] = [64, 4, 400];
const USERS = 256;
const LOADS = [0.1, 0.5, 0.9, 1.2] as const;
const ROUNDS = 8;
const ROUND_MS = 400;
/** Users of a full batch. */
const MAX_BATCH = 64;
export const LOAD_FIGURES = ROUNDS * (LOADS.length + 1) + 1;

export async function benchLoad(onProgress: (done: number, label: string) => void): Promise<LoadFigures> {
  const bundle = randomBundle({ dimension: D, layers: L, heads: 2, maxSequenceLength: N });
  const requests = requestsOf(bundle);
  const kvBudgetBytes = budgetOf(bundle);
  noteKvBytes(3 * kvBudgetBytes);
  let done = 0;
  const step = (label: string) => onProgress(done++, label);
  step('filling caches');
  const ways = {
    scheduled: scheduled(bundle, kvBudgetBytes),
    fixed: fixed(bundle, kvBudgetBytes),
    'at once': atOnce(bundle, kvBudgetBytes),
  };
  for (const { warm } of Object.values(ways)) for (let i = 0; i < USERS; i += 8) await warm(requests.slice(i, i + 8));
  const capacity = await capacityOf(ways['at once'].warm, requests);
  const found = LOADS.flatMap((load) => (Object.keys(ways) as Way[]).map((way) => ({ load, way, runs: [] as Served[] })));
  for (let round = 0; round < ROUNDS; round++)
    for (const load of LOADS) {
      step(`${100 * load} % of ${Math.round(capacity)} calls a second`);
      const ofLoad = found.filter((each) => each.load === load);
      for (let i = 0; i < ofLoad.length; i++) {
        const each = ofLoad[(i + round) % ofLoad.length]!;
        each.runs.push(await openLoop(ways[each.way].one, requests, load * capacity, ROUND_MS, round));
      }
    }
  for (const { close } of Object.values(ways)) await close();
  const loads = found.map(({ load, way, runs }) => ({ load, way, ...undisturbed(runs) }));
  return { capacity, loads, urgent: await urgent(step) };
}

interface Served {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Contender<R> {
  readonly one: (request: R, i: number) => Promise<unknown>;
  readonly warm: (requests: readonly EncodeRequest[]) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

function scheduled(bundle: Bundle, kvBudgetBytes: number): Contender<EncodeRequest> {
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes });
  return {
    one: (each, i) => encoder.encode([each], { key: i % 8 }),
    warm: (all) => encoder.encode(all),
    close: () => encoder.close(),
  };
}

function threadOf(bundle: Bundle, kvBudgetBytes: number): WorkerHandle {
  return new WorkerHandle('thread', () => spawnEncoderWorker({ bundle, options: { kvBudgetBytes }, provider: 'cpu' }));
}

function atOnce(bundle: Bundle, kvBudgetBytes: number): Contender<EncodeRequest> {
  const thread = threadOf(bundle, kvBudgetBytes);
  return { one: (each) => thread.call('encode', [each]), warm: (all) => thread.call('encode', all), close: () => thread.close() };
}

/** What the pipeline did before: 64 users or 2 ms, four batches in the thread. */
function fixed(bundle: Bundle, kvBudgetBytes: number): Contender<EncodeRequest> {
  const thread = threadOf(bundle, kvBudgetBytes);
  const calls$ = new Subject<{ readonly request: EncodeRequest; readonly answered: () => void }>();
  let inThread = 0;
  const waiting: (readonly { readonly request: EncodeRequest; readonly answered: () => void }[])[] = [];
  const pump = () => {
    while (inThread < 4 && waiting.length > 0) {
      const batch = waiting.shift()!;
      inThread += 1;
      const send = thread.call(
        'encode',
        batch.map((each) => each.request),
      );
      void send.then(() => {
        for (const { answered } of batch) answered();
        inThread -= 1;
        pump();
      });
    }
  };
  calls$.pipe(microBatch({ maxRows: MAX_BATCH, maxDelayMs: 2 })).subscribe((batch) => {
    waiting.push(batch);
    pump();
  });
  return {
    one: (each) => new Promise<void>((answered) => calls$.next({ request: each, answered })),
    warm: (all) => thread.call('encode', all),
    close: () => thread.close(),
  };
}

const requestsOf = ({ config }: Bundle): EncodeRequest[] =>
  Array.from({ length: USERS }, (_, i) => trialRequest(`user-${i}`, N, config.vocabularySize, i));
const budgetOf = ({ config }: Bundle): number => Math.ceil(1.5 * USERS * N * kvBytesPerRow(config));

/** Users a second in full batches, four of them in the thread at once. */
async function capacityOf(call: Contender<never>['warm'], requests: readonly EncodeRequest[]): Promise<number> {
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const full = () => call(requests.slice(0, MAX_BATCH));
    rates.push(MAX_BATCH * (await closedLoop(full, 4, ROUND_MS)));
  }
  return Math.max(...rates);
}

/** Calls a second. */
async function closedLoop(call: () => Promise<unknown>, inFlight: number, forMs: number, until = () => false): Promise<number> {
  const began = performance.now();
  let calls = 0;
  const one = async () => {
    while (performance.now() - began < forMs && !until()) {
      await call();
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, one));
  return (1e3 * calls) / (performance.now() - began);
}

/** Calls that are due at random moments, the same for the same seed; what is late is sent at once, and counts from when it was due. */
async function openLoop<R>(
  call: Contender<R>['one'],
  requests: readonly R[],
  perSecond: number,
  forMs: number,
  seed: number,
): Promise<Served> {
  let state = 1 + seed;
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 1) / 2 ** 32;
  };
  const latencies: number[] = [];
  const open: Promise<void>[] = [];
  const began = performance.now();
  let due = 0;
  for (let i = 0; due < forMs; ) {
    const now = performance.now() - began;
    while (due <= now && due < forMs) {
      const at = began + due;
      open.push(call(requests[i % requests.length]!, i++).then(() => void latencies.push(performance.now() - at)));
      due += (-Math.log(random()) * 1e3) / perSecond;
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(open);
  latencies.sort((a, b) => a - b);
  const quantile = (share: number) => latencies[Math.floor(share * (latencies.length - 1))]!;
  return { perSecond: (1e3 * latencies.length) / (performance.now() - began), p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
}

/** The better quartile of the rounds. */
const quartile = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 2]!;
const undisturbed = (runs: readonly Served[]): Served => ({
  perSecond: -quartile(runs.map(({ perSecond }) => -perSecond)),
  p50Ms: quartile(runs.map(({ p50Ms }) => p50Ms)),
  p99Ms: quartile(runs.map(({ p99Ms }) => p99Ms)),
});

/** 64 candidates of one user thirty times a second, eight calls of 64 updates always in the encoder. */
async function urgent(step: (label: string) => void): Promise<UrgentFigure[]> {
  const bundle = rankingBundle(N);
  const kvBudgetBytes = budgetOf(bundle);
  const requests = requestsOf(bundle);
  const full = requests.slice(0, MAX_BATCH);
  const asked = requests.slice(MAX_BATCH).map(
    ({ userId, segments: [segment] }): CandidateRequest => ({
      userId,
      segment: segment!,
      candidates: Int32Array.from({ length: 64 }, (_, i) => 1 + i),
    }),
  );
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes });
  const thread = threadOf(bundle, kvBudgetBytes);
  const terms: CallTerms = { workClass: 'request' };
  const ways = [
    {
      way: 'first come' as const,
      update: () => thread.call('encode', full),
      ask: (one: CandidateRequest) => thread.call('scoreCandidates', [one]),
    },
    {
      way: 'scheduled' as const,
      update: () => encoder.encode(full),
      ask: (one: CandidateRequest) => encoder.scoreCandidates([one], terms),
    },
  ];
  const runs: (Served & { updates: number })[][] = ways.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    if (round > 0) step('candidates while updates saturate');
    for (const [i, { update, ask }] of ways.entries()) {
      let ended = false;
      const updates = closedLoop(update, 8, 60_000, () => ended);
      const served = await openLoop(ask, asked, 30, ROUND_MS, round);
      ended = true;
      const figure = { ...served, updates: (await updates) * full.length };
      if (round > 0) runs[i]!.push(figure);
    }
  }
  await Promise.all([encoder.close(), thread.close()]);
  return ways.map(({ way }, i) => {
    const { p50Ms, p99Ms } = undisturbed(runs[i]!);
    return { way, p50Ms, p99Ms, updatesPerSecond: -quartile(runs[i]!.map(({ updates }) => -updates)) };
  });
}
