/**
 * A long run at 80 % of what the instance can do, measured just before: does memory grow, do answers get slower, does the shadow
 * check ever find a deviation. What a user has is bounded, but only full after so many events of the least active: users, their
 * inequality and what is remembered of each are chosen so that all are full before the capacity is measured, and that the KV cache
 * has not room for all of them.
 */
import { deploy, Load, quantileBetween, type RunningInstance, type Scrape, sleep } from './deployment.ts';
import { median } from './measure.ts';

const USERS = 1_000;
const SKEW = 0.5;
const SEEN_LIMIT = 256;
const KV_BUDGET_BYTES = 128 * 2 ** 20;
const SHARE_OF_CAPACITY = 0.8;
const AHEAD = 10_000;
/** In which the least active user, with a share of 1/2,000, has its 256 events. */
const CAPACITY_WARM_SECONDS = 90;
const CAPACITY_SECONDS = 45;
/** Of the run, at the load's own rate, before anything counts: the store and the heap find their size. */
const WARM_SHARE = 0.2;
const INTERVAL_MS = 10_000;
/** What a run must keep to. */
const MAX_RSS_SLOPE = 1;
const MAX_DRIFT = 1.25;
/** Seconds of load. */
const MAX_LAG_SECONDS = 5;

export interface SoakFigures {
  readonly minutes: number;
  readonly capacity: number;
  readonly rate: number;
  /** Processed, a second, after the warm-up. */
  readonly processedPerSecond: number;
  readonly rssMiB: { readonly first: number; readonly last: number; readonly max: number };
  /** Least squares after the warm-up, MiB a minute. */
  readonly rssSlopeMiB: number;
  /** Append to publish, medians over intervals of 10 s: of the first third after the warm-up and of the last. */
  readonly meanMs: { readonly firstThird: number; readonly lastThird: number };
  readonly p99Ms: { readonly firstThird: number; readonly lastThird: number };
  readonly drift: number;
  readonly lagAtEnd: number;
  readonly hitRatio: number;
  readonly shadow: { readonly checks: number; readonly dropped: number; readonly maxDelta: number; readonly alarms: number };
  /** Which thresholds were missed. */
  readonly problems: readonly string[];
}

export async function benchSoak(minutes: number, onProgress: (done: number, label: string) => void): Promise<SoakFigures> {
  onProgress(0, 'broker');
  const deployment = await deploy('soak', {
    telemetry: { shadowSampleRate: 0.001 },
    sequence: { seenLimit: SEEN_LIMIT },
    encoder: { kvBudgetBytes: KV_BUDGET_BYTES },
  });
  try {
    const running = await deployment.start();
    const load = await Load.open(deployment, { users: USERS, skew: SKEW, fromMs: 1_700_000_000_000 });
    onProgress(0, 'measuring the capacity');
    const capacity = await capacityOf(running, load);
    const rate = Math.round(SHARE_OF_CAPACITY * capacity);
    const stop = new AbortController();
    const loading = load.steady(rate, stop.signal);
    const scrapes: Scrape[] = [await running.scrape()];
    while (scrapes.at(-1)!.atMs - scrapes[0]!.atMs < 60_000 * minutes) {
      await Promise.race([sleep(INTERVAL_MS), loading]);
      running.instance.throwIfFailed();
      scrapes.push(await running.scrape());
      const done = (scrapes.at(-1)!.atMs - scrapes[0]!.atMs) / 60_000;
      onProgress(done, `${rate} events a second, RSS ${mib(scrapes.at(-1)!).toFixed(0)} MiB`);
    }
    stop.abort();
    await loading;
    await load.close();
    return judge(scrapes, { minutes, capacity, rate });
  } finally {
    await deployment.close();
  }
}

/** Events a second when as many wait as the instance takes. */
async function capacityOf(running: RunningInstance, load: Load): Promise<number> {
  const stop = new AbortController();
  const loading = load.saturate(running, AHEAD, stop.signal);
  await sleep(1e3 * CAPACITY_WARM_SECONDS);
  const before = await running.scrape();
  await sleep(1e3 * CAPACITY_SECONDS);
  const after = await running.scrape();
  stop.abort();
  await loading;
  return (1e3 * (after.sum(TOKENS) - before.sum(TOKENS))) / (after.atMs - before.atMs);
}

const TOKENS = 'hstu_tokens_total';
const LATENCY = 'hstu_end_to_end_latency_seconds';
const mib = (scrape: Scrape): number => scrape.sum('hstu_process_resident_memory_bytes') / 2 ** 20;

function judge(all: readonly Scrape[], ran: Pick<SoakFigures, 'minutes' | 'capacity' | 'rate'>): SoakFigures {
  const scrapes = all.slice(Math.floor(WARM_SHARE * all.length));
  const [first, last] = [scrapes[0]!, scrapes.at(-1)!];
  const grown = (name: string, labels?: string) => last.sum(name, labels) - first.sum(name, labels);
  const intervals = scrapes.slice(1).map((after, i) => latencyBetween(scrapes[i]!, after));
  const third = Math.ceil(intervals.length / 3);
  const thirds = (of: (interval: { readonly meanMs: number; readonly p99Ms: number }) => number) => ({
    firstThird: median(intervals.slice(0, third).map(of)),
    lastThird: median(intervals.slice(-third).map(of)),
  });
  const meanMs = thirds((interval) => interval.meanMs);
  const figures = {
    ...ran,
    processedPerSecond: (1e3 * grown(TOKENS)) / (last.atMs - first.atMs),
    rssMiB: { first: mib(first), last: mib(last), max: Math.max(...scrapes.map(mib)) },
    rssSlopeMiB: slope(scrapes.map((scrape) => [scrape.atMs / 60_000, mib(scrape)] as const)),
    meanMs,
    p99Ms: thirds((interval) => interval.p99Ms),
    drift: meanMs.lastThird / meanMs.firstThird,
    lagAtEnd: last.sum('hstu_consumer_lag_records'),
    hitRatio: grown('hstu_cache_outcomes_total', 'outcome="hit"') / grown('hstu_cache_outcomes_total'),
    shadow: {
      checks: last.sum('hstu_shadow_checks_total'),
      dropped: last.sum('hstu_shadow_dropped_total'),
      maxDelta: last.sum('hstu_shadow_max_abs_delta'),
      alarms: last.sum('hstu_shadow_mismatches_total'),
    },
  };
  const { rssSlopeMiB, drift, shadow, rate, lagAtEnd } = figures;
  const problems = [
    !(rssSlopeMiB <= MAX_RSS_SLOPE) && `RSS grows by ${rssSlopeMiB.toFixed(2)} MiB a minute; allowed: ${MAX_RSS_SLOPE}`,
    !(drift <= MAX_DRIFT) && `the last third's latency is ${drift.toFixed(2)} times the first's; allowed: ${MAX_DRIFT}`,
    !(lagAtEnd <= MAX_LAG_SECONDS * rate) && `${lagAtEnd} events behind at the end; allowed: ${MAX_LAG_SECONDS} seconds of load`,
    shadow.alarms > 0 && `${shadow.alarms} shadow checks found a deviation`,
    shadow.checks === 0 && 'no shadow check was made',
  ].filter((problem) => problem !== false);
  return { ...figures, problems };
}

function latencyBetween(before: Scrape, after: Scrape): { readonly meanMs: number; readonly p99Ms: number } {
  const grown = (name: string) => after.sum(name) - before.sum(name);
  return {
    meanMs: (1e3 * grown(`${LATENCY}_sum`)) / grown(`${LATENCY}_count`),
    p99Ms: 1e3 * quantileBetween(before, after, LATENCY, 0.99),
  };
}

/** Of the line with the least squares. */
function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean(([px]) => px), mean(([, py]) => py)];
  return mean(([px, py]) => (px - x) * (py - y)) / mean(([px]) => (px - x) ** 2);
}
