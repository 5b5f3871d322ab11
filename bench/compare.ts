/**
 * Whether a run is as good as a baseline of another day or machine: ratios are compared, not times, each with a threshold that lies
 * beyond what it moved between runs of one commit on a shared machine.
 */
import type { Figures } from './report.ts';

export interface Ratio {
  readonly name: string;
  readonly value: number;
  readonly better: 'higher' | 'lower';
  /** How much worse than the baseline's it may be, as a share of that. */
  readonly allowed: number;
}

/** What is committed. */
export interface Baseline {
  readonly date: string;
  readonly machine: object;
  readonly commit: string;
  /** By suite and name. */
  readonly ratios: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

export interface Comparison {
  readonly figure: string;
  readonly baseline: number | null;
  readonly now: number | null;
  /** `now / baseline - 1` */
  readonly change: number | null;
  /** The change from which on it is a regression. */
  readonly threshold: number | null;
  readonly verdict: 'ok' | 'better' | 'new' | 'REGRESSION' | 'MISSING';
}

/** Timed against timed in one process: seen within 0.15 of each other on idle cores, within 0.25 on busy ones. */
const TIMED = 0.3;
/** With brokers, peers and clients on the same cores, or latencies under load. */
const WITH_BROKER = 0.4;
/** Counted on a seeded trace: nothing moves it but a change. */
const COUNTED = 0.002;
/** Counted under a load that depends on speed. */
const UNDER_LOAD = 0.15;

type Extract = { readonly [S in keyof Figures]-?: (figures: NonNullable<Figures[S]>) => readonly Ratio[] };

const higher = (name: string, value: number, allowed: number): Ratio => ({ name, value, better: 'higher', allowed });
const lower = (name: string, value: number, allowed: number): Ratio => ({ name, value, better: 'lower', allowed });

const RATIOS: Extract = {
  encode: (figures) =>
    figures.flatMap(({ D, L, n, B, ratio, kvGBps, copyGBps }) => [
      higher(`full / step, D ${D}, L ${L}, n ${n}, B ${B}`, ratio, TIMED),
      ...(B === 32 ? [higher(`K and V read / copy, D ${D}, L ${L}, n ${n}`, kvGBps / copyGBps, TIMED)] : []),
    ]),
  scaling: (figures) =>
    figures.flatMap(({ axis, D, L, n, B, ratio, fullGflops, gemmGflops }) => [
      higher(`full / step, by ${axis}: D ${D}, L ${L}, n ${n}, B ${B}`, ratio, TIMED),
      ...(axis === 'B'
        ? []
        : [higher(`full encode / matrix product, by ${axis}: D ${D}, L ${L}, n ${n}`, fullGflops / gemmGflops, TIMED)]),
    ]),
  score: (figures) =>
    figures.map(({ n, candidates, ratio }) => higher(`full / cached, n ${n}, ${candidates} candidates`, ratio, TIMED)),
  load: ({ urgent }) => {
    const [firstCome, scheduled] = (['first come', 'scheduled'] as const).map((of) => urgent.find(({ way }) => way === of)!);
    return [
      higher('candidates while updates saturate, p50 first come / scheduled', firstCome!.p50Ms / scheduled!.p50Ms, WITH_BROKER),
      higher('updates meanwhile, scheduled / first come', scheduled!.updatesPerSecond / firstCome!.updatesPerSecond, TIMED),
    ];
  },
  workers: (figures) =>
    figures.map(({ D, L, n, what, ratio }) => higher(`two / one, ${what}, D ${D}, L ${L}, n ${n}`, ratio, TIMED)),
  cache: (figures) =>
    figures
      .filter(({ policy }) => policy !== 'clairvoyant')
      .flatMap(({ trace, n, budget, policy, hitRatio, costLeft }) => [
        higher(`hits, ${policy}, ${trace}, n ${n}, budget ${budget}`, hitRatio, COUNTED),
        lower(`cost left, ${policy}, ${trace}, n ${n}, budget ${budget}`, costLeft, COUNTED),
      ]),
  disk: (figures) =>
    figures.map(({ D, L, n, ratio }) => higher(`encoded anew / read back, D ${D}, L ${L}, n ${n}`, ratio, TIMED)),
  replay: (figures) => figures.map(({ L, ratio }) => higher(`bulk / step, L ${L}`, ratio, TIMED)),
  kafka: ({ exactlyOnce, atLeastOnce, memory }) => [
    higher('exactly-once / memory', exactlyOnce.eventsPerSecond / memory.eventsPerSecond, WITH_BROKER),
    higher('at-least-once / memory', atLeastOnce.eventsPerSecond / memory.eventsPerSecond, WITH_BROKER),
  ],
  restore: () => [],
  sink: () => [],
  analytics: () => [],
  gpu: ({ pools, shapes }) => [
    ...pools.map(({ poolMiB, ratio }) => lower(`step over the smallest pool's, ${poolMiB} MiB`, ratio, TIMED)),
    ...pools.map(({ poolMiB, uploaded }) => lower(`bytes to the device a step, ${poolMiB} MiB`, uploaded, COUNTED)),
    ...shapes.map(({ D, L, n, ratio }) => higher(`full / step, D ${D}, L ${L}, n ${n}`, ratio, TIMED)),
  ],
  peers: (figures) =>
    figures
      .filter(({ system }) => system === 'kafkaStreams' || system === 'quixStreams')
      .map(({ history, system, ratio }) => higher(`exactly-once / ${system}, ${history} events`, ratio, WITH_BROKER)),
  scale: ({ users, loads, restoredRecords, storeBytes, changelogBytes }) => [
    ...loads.map(({ skew, coldRatio, foretoldHitRatio }) =>
      higher(`found in the cache / foretold, ${users} users, skew ${skew}`, (1 - coldRatio) / foretoldHitRatio, UNDER_LOAD),
    ),
    lower(`store bytes a user, ${users} users`, storeBytes / users, UNDER_LOAD),
    lower(`changelog bytes a user, ${users} users`, changelogBytes / users, UNDER_LOAD),
    lower(`changelog records a user, ${users} users`, restoredRecords / users, UNDER_LOAD),
  ],
  catalogue: (figures) =>
    figures.flatMap(({ rows, ratio, recall10, recall100 }) => [
      higher(`scan / index, ${rows} rows`, ratio, TIMED),
      higher(`recall@10, ${rows} rows`, recall10, COUNTED),
      higher(`recall@100, ${rows} rows`, recall100, COUNTED),
    ]),
  // Its own thresholds decide.
  soak: () => [],
};

/** The ratios of a suite's figures. */
export function ratiosOf<S extends keyof Figures>(suite: S, figures: NonNullable<Figures[S]>): readonly Ratio[] {
  return (RATIOS[suite] as (of: NonNullable<Figures[S]>) => readonly Ratio[])(figures);
}

/** By suite and name, as a baseline keeps them. */
export function ratiosByName(figures: Figures): Baseline['ratios'] {
  return Object.fromEntries(
    Object.entries(figures).map(([suite, of]) => [
      suite,
      Object.fromEntries(ratiosOf(suite as keyof Figures, of).map(({ name, value }) => [name, value])),
    ]),
  );
}

/**
 * The suites that `now` has, figure by figure. What the baseline has and `now` lacks is missing; what only `now` has is new.
 *
 * @param again figures of a second run: the better of the two counts, so that a regression is one that shows twice
 */
export function compare(baseline: Baseline, now: Figures, again: Figures = {}): Comparison[] {
  return Object.entries(now).flatMap(([name, figures]) => {
    const suite = name as keyof Figures;
    const second = new Map(
      again[suite] === undefined ? [] : ratiosOf(suite, again[suite]).map((ratio) => [ratio.name, ratio.value]),
    );
    const ratios = ratiosOf(suite, figures).map((ratio) => ({ ...ratio, value: betterOf(ratio, second.get(ratio.name)) }));
    const known = baseline.ratios[suite] ?? {};
    const present = new Set(ratios.map((ratio) => ratio.name));
    const missing = Object.entries(known).filter(([of]) => !present.has(of));
    return [
      ...ratios.map((ratio) => judge(suite, ratio, known[ratio.name])),
      ...missing.map(
        ([of, value]): Comparison => ({
          figure: `${suite}: ${of}`,
          baseline: value,
          now: null,
          change: null,
          threshold: null,
          verdict: 'MISSING',
        }),
      ),
    ];
  });
}

/** Whether a row of the comparison is one for which it fails. */
export const isBad = ({ verdict }: Comparison): boolean => verdict === 'REGRESSION' || verdict === 'MISSING';

function betterOf({ value, better }: Ratio, second: number | undefined): number {
  if (second === undefined || Number.isNaN(second)) return value;
  if (Number.isNaN(value)) return second;
  return better === 'higher' ? Math.max(value, second) : Math.min(value, second);
}

function judge(suite: string, { name, value, better, allowed }: Ratio, baseline: number | undefined): Comparison {
  const figure = `${suite}: ${name}`;
  if (baseline === undefined) return { figure, baseline: null, now: value, change: null, threshold: null, verdict: 'new' };
  const threshold = better === 'higher' ? -allowed : allowed;
  // A baseline of 0 can only be kept or left.
  const change = value === baseline ? 0 : value / baseline - 1;
  const gain = better === 'higher' ? change : -change;
  // A figure that is no number is never as good.
  const verdict = !(gain >= -allowed) ? 'REGRESSION' : gain > allowed ? 'better' : 'ok';
  return { figure, baseline, now: value, change, threshold, verdict };
}
