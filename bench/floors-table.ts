/** Each figure of a report beside what bounds it, measured in the same run. */
import type { Figures } from './report.ts';

export interface BesideFloor {
  readonly figure: string;
  readonly value: number;
  readonly unit: string;
  readonly floor: string;
  readonly allows: number;
  /** `value / allows` */
  readonly share: number;
}

type Row = Omit<BesideFloor, 'share'>;
type Rows<F> = (figures: F) => readonly Row[];

export function besideFloors(figures: Figures): BesideFloor[] {
  const of = <F>(suite: F | undefined, rows: Rows<F>) => (suite === undefined ? [] : rows(suite));
  return [
    ...of(figures.encode, ofEncode),
    ...of(figures.scaling, ofScaling),
    ...of(figures.workers, ofWorkers),
    ...of(figures.cache, ofCache),
    ...of(figures.kafka, ofKafka),
    ...of(figures.scale, ofScale),
  ].map((row) => ({ ...row, share: row.value / row.allows }));
}

const ofEncode: Rows<NonNullable<Figures['encode']>> = (figures) =>
  figures
    .filter(({ B }) => B === 32)
    .map(({ D, L, n, kvGBps, copyGBps }) => ({
      figure: `encode: step, K and V read, D ${D}, L ${L}, n ${n}`,
      value: kvGBps,
      unit: 'GB/s',
      floor: 'copy of memory, both ways',
      allows: copyGBps,
    }));

const ofScaling: Rows<NonNullable<Figures['scaling']>> = (figures) =>
  figures
    .filter(({ axis }) => axis === 'n' || axis === 'D')
    .map(({ D, L, n, fullGflops, gemmGflops }) => ({
      figure: `scaling: full encode, D ${D}, L ${L}, n ${n}`,
      value: fullGflops,
      unit: 'GFLOP/s',
      floor: 'one large matrix product',
      allows: gemmGflops,
    }));

const ofWorkers: Rows<NonNullable<Figures['workers']>> = (figures) =>
  figures.map(({ D, L, n, what, ratio, copyRatio }) => ({
    figure: `workers: two over one, ${what}, D ${D}, L ${L}, n ${n}`,
    value: ratio,
    unit: '×',
    floor: what === 'step' ? `two free cores (two copies of memory at once: ${copyRatio.toFixed(2)}×)` : 'two free cores',
    allows: 2,
  }));

/** The policy that knows the future leaves the least to encode. */
const ofCache: Rows<NonNullable<Figures['cache']>> = (figures) =>
  figures
    .filter(({ policy, budget, n }) => policy !== 'clairvoyant' && budget === 0.1 && n === 1000)
    .map(({ trace, n, budget, policy, hitRatio }) => ({
      figure: `cache: hits of ${policy}, ${trace}, n ${n}, a budget of ${100 * budget} %`,
      value: hitRatio,
      unit: '',
      floor: 'knowing the future',
      allows: figures.find((of) => of.policy === 'clairvoyant' && of.trace === trace && of.n === n && of.budget === budget)!
        .hitRatio,
    }));

const ofKafka: Rows<NonNullable<Figures['kafka']>> = ({ exactlyOnce, atLeastOnce, memory, bareConsumer }) =>
  [{ way: 'exactly-once', ...exactlyOnce } as const, { way: 'at-least-once', ...atLeastOnce } as const].flatMap(
    ({ way, eventsPerSecond: value }) => [
      {
        figure: `kafka: ${way}`,
        value,
        unit: 'events/s',
        floor: 'the same operators from memory',
        allows: memory.eventsPerSecond,
      },
      { figure: `kafka: ${way}`, value, unit: 'events/s', floor: 'a bare consumer', allows: bareConsumer.eventsPerSecond },
    ],
  );

const ofScale: Rows<NonNullable<Figures['scale']>> = ({ loads }) =>
  loads.map(({ skew, coldRatio, foretoldHitRatio }) => ({
    figure: `scale: users found in the cache, skew ${skew}`,
    value: 1 - coldRatio,
    unit: '',
    floor: 'what `plan` foretells',
    allows: foretoldHitRatio,
  }));
