/** What a bundle's steps take on this machine: the constants that `plan` reckons with. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bundle, kvBytesPerRow } from '../models/hstu/bundle.ts';
import type { KvPrecision } from '../models/kv-cache/extent.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { EncodeRequest, EncodeSegment } from '../schemas/encoding.ts';
import { pageDigests } from '../schemas/sequence-digest.ts';

const MIB = 2 ** 20;
/** Users of the trial: a micro-batch that the step graph takes whole. */
const TRIAL_USERS = 32;
const TRIAL_STEPS = 30;
/** Users of which memory holds one. */
const RETURNING_USERS = 4;
const RETURNS = 40;
/** In which a user is written. */
const WRITE_MS = 5;

/** Median times of an event of a user with a full window, µs. */
export interface EncoderTimes {
  /** Its rows are in memory; of a micro-batch, a user. */
  readonly stepUs: number;
  /** Nothing of it is held. */
  readonly prefillUs: number;
}

export async function measureEncoder(bundle: Bundle, kvPrecision: KvPrecision): Promise<EncoderTimes> {
  const n = bundle.config.window.maxLength;
  const kvBudgetBytes = 2 * TRIAL_USERS * n * kvBytesPerRow(bundle.config) + MIB;
  const engine = new EncoderEngine(bundle, { kvBudgetBytes, kvPrecision });
  const requests = trialRequests(bundle, TRIAL_USERS);
  await engine.encode(requests.slice(0, 1));
  const prefills: number[] = [];
  for (let i = 1; i < TRIAL_USERS; i += 1) prefills.push(await timed(engine, requests.slice(i, i + 1)));
  await engine.encode(requests);
  const steps: number[] = [];
  for (let i = 0; i < TRIAL_STEPS; i++) steps.push(await timed(engine, requests));
  await engine.release();
  return { stepUs: median(steps), prefillUs: median(prefills) };
}

/**
 * Median time of an event whose user's rows are on disk, µs: another user is written, this one read back and stepped. What was written a
 * moment ago is in the system's page cache still: where the disk is much larger than memory, add the device's own time for K and V of a user.
 */
export async function measureReturn(bundle: Bundle, kvPrecision: KvPrecision, folder: string): Promise<number> {
  const { config } = bundle;
  const userBytes = config.window.maxLength * kvBytesPerRow({ ...config, precision: kvPrecision });
  const disk = { folder, budgetBytes: 2 * RETURNING_USERS * userBytes + MIB };
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: Math.ceil(1.5 * userBytes), kvPrecision, disk });
  // In turns with and without their newest event: a user that has not changed since would not be written again.
  const turns = [config.window.maxLength, config.window.maxLength - 1].map((n) => trialRequests(bundle, RETURNING_USERS, n));
  for (const request of turns[1]!) await engine.encode([request]);
  const times: number[] = [];
  for (let i = 0; i < RETURNS; i++) {
    await sleep(WRITE_MS);
    const turn = Math.floor(i / RETURNING_USERS) % 2;
    times.push(await timed(engine, [turns[turn]![i % RETURNING_USERS]!]));
  }
  await engine.release();
  return median(times);
}

/** µs a user. */
async function timed(engine: EncoderEngine, batch: readonly EncodeRequest[]): Promise<number> {
  const began = performance.now();
  await engine.encode(batch);
  return (1_000 * (performance.now() - began)) / batch.length;
}

function trialRequests(bundle: Bundle, users: number, n = bundle.config.window.maxLength): EncodeRequest[] {
  return Array.from({ length: users }, (_, seed) => trialRequest(`user-${seed}`, n, bundle.entities.length, seed));
}

/** Asks for the last two rows of a window of `n` events: what a new event costs. */
export function trialRequest(userId: string, n: number, vocabulary: number, seed: number): EncodeRequest {
  return { userId, segments: [{ ...trialWindow(n, vocabulary, seed), from: Math.max(0, n - 2) }] };
}

/** A window of `n` events, one an hour or so, asked for at its newest; another for every seed. */
export function trialWindow(n: number, vocabulary: number, seed: number): Omit<EncodeSegment, 'from'> {
  const entities = Int32Array.from({ length: n }, (_, i) => 1 + ((i * 7919 + seed * 104_729) % vocabulary));
  const timesS = Float64Array.from({ length: n }, (_, i) => 1_600_000_000 + i * 3_600 + ((i * 31 + seed) % 1800));
  return { windowStart: 0, entities, timesS, pageDigests: pageDigests(entities, timesS), queryTimeS: timesS[n - 1]! };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
