import { describe, expect, it } from 'vitest';
import { type Baseline, compare, isBad, ratiosByName, ratiosOf } from '../../bench/compare.ts';
import type { Figures } from '../../bench/report.ts';

const encoded = (ratio: number, n = 1000, B = 32) => ({
  D: 64,
  L: 4,
  n,
  B,
  T: 2,
  fullUs: 100 * ratio,
  incrementalUs: 100,
  ratio,
  kvGBps: 20,
  copyGBps: 40,
});
const pool = (poolMiB: number, ratio: number) => ({
  poolMiB,
  stepMs: 10 * ratio,
  ratio,
  kvUploaded: 0,
  kvWritten: 0,
  uploaded: 512,
});
const baselineOf = (figures: Figures): Baseline => ({ date: '', machine: {}, commit: '', ratios: ratiosByName(figures) });
const verdicts = (baseline: Figures, now: Figures, again?: Figures) =>
  compare(baselineOf(baseline), now, again).map(({ verdict }) => verdict);

describe('compare', () => {
  it('finds a run as good as itself', () => {
    const figures: Figures = {
      encode: [encoded(177), encoded(37, 200)],
      gpu: { device: '', pools: [pool(1, 1), pool(512, 1.02)], shapes: [] },
    };
    expect(compare(baselineOf(figures), figures).filter(({ verdict }) => verdict !== 'ok')).toEqual([]);
  });

  it('allows as much as its threshold says, and no more', () => {
    expect(verdicts({ encode: [encoded(100)] }, { encode: [encoded(71)] })).toEqual(['ok', 'ok']);
    expect(verdicts({ encode: [encoded(100)] }, { encode: [encoded(69)] })).toEqual(['REGRESSION', 'ok']);
    expect(verdicts({ encode: [encoded(100)] }, { encode: [encoded(131)] })).toEqual(['better', 'ok']);
  });

  it('knows which way is worse', () => {
    const grown = (ratio: number): Figures => ({ gpu: { device: '', pools: [pool(512, ratio)], shapes: [] } });
    expect(verdicts(grown(1), grown(1.5))).toEqual(['REGRESSION', 'ok']);
    expect(verdicts(grown(1), grown(0.5))).toEqual(['better', 'ok']);
  });

  it('does not look at times, only at their ratios', () => {
    const slower = { ...encoded(100), fullUs: 1e5, incrementalUs: 1e3, kvGBps: 2, copyGBps: 4 };
    expect(verdicts({ encode: [encoded(100)] }, { encode: [slower] })).toEqual(['ok', 'ok']);
  });

  it('misses a figure that is gone, and is not content with one that is no number', () => {
    const gone = compare(baselineOf({ encode: [encoded(100), encoded(37, 200)] }), { encode: [encoded(100)] });
    expect(gone.filter(isBad).map(({ figure }) => figure)).toEqual([
      'encode: full / step, D 64, L 4, n 200, B 32',
      'encode: K and V read / copy, D 64, L 4, n 200',
    ]);
    expect(verdicts({ encode: [encoded(100)] }, { encode: [encoded(Number.NaN)] })).toEqual(['REGRESSION', 'ok']);
  });

  it('says what is new, and passes over suites that were not run', () => {
    expect(verdicts({ encode: [encoded(100)] }, { encode: [encoded(100), encoded(37, 200, 8)] })).toEqual(['ok', 'ok', 'new']);
    expect(
      verdicts({ encode: [encoded(100)], gpu: { device: '', pools: [pool(1, 1)], shapes: [] } }, { encode: [encoded(100)] }),
    ).toEqual(['ok', 'ok']);
  });

  it('takes the better of two runs, so that a regression must show twice', () => {
    const [baseline, bad, good]: Figures[] = [{ encode: [encoded(100)] }, { encode: [encoded(50)] }, { encode: [encoded(95)] }];
    expect(verdicts(baseline!, bad!, good!)).toEqual(['ok', 'ok']);
    expect(verdicts(baseline!, bad!, bad!)).toEqual(['REGRESSION', 'ok']);
  });

  it('gives every figure of a suite a name of its own', () => {
    const figures = [encoded(100), encoded(100, 200), encoded(100, 1000, 1)];
    const names = ratiosOf('encode', figures).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});
