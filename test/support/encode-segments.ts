/** Windows in plain arrays, and the segments that the encoder takes. */
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';

/** Tokens of a user at one moment, oldest first. */
export interface Window {
  readonly windowStart?: number;
  readonly entities: readonly number[];
  readonly timesS: readonly number[];
}

export interface Wanted {
  /** @default 0, every row */
  readonly from?: number;
  /** @default the newest token's time */
  readonly queryTimeS?: number;
}

export function segmentOf(
  { windowStart = 0, entities, timesS }: Window,
  { from = 0, queryTimeS = timesS.at(-1)! }: Wanted = {},
): EncodeSegment {
  const rows = Int32Array.from(entities);
  const times = Float64Array.from(timesS);
  return { windowStart, entities: rows, timesS: times, pageDigests: pageDigests(rows, times), from, queryTimeS };
}

/** The oldest `count` tokens. */
export const prefix = ({ windowStart = 0, entities, timesS }: Window, count: number): Window => ({
  windowStart,
  entities: entities.slice(0, count),
  timesS: timesS.slice(0, count),
});

/** A window of `n` tokens, the same for the same `seed`: gaps from none to weeks, entities repeat. */
export function someWindow(n: number, vocabulary: number, seed = 1): Window {
  let state = seed * 2654435761;
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const gaps = [0, 0, 7, 60, 3_600, 86_400, 1_209_600];
  const timesS: number[] = [];
  for (let i = 0, at = 978_300_000; i < n; i++) {
    at += gaps[next(gaps.length)]! * (1 + next(3));
    timesS.push(at);
  }
  return { entities: Array.from({ length: n }, () => 1 + next(vocabulary)), timesS };
}
