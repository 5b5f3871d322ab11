import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AttentionBias } from '../../../models/hstu/attention-bias.ts';
import { type Bundle, makeBundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import { bucketByLogarithm, TIME_BUCKETS, timeBucketThresholds } from '../../../models/hstu/time-buckets.ts';

const thresholds = timeBucketThresholds();
const bucketOf = (seconds: number) => thresholds.filter((threshold) => threshold <= Math.max(1, seconds)).length;

describe('time buckets', () => {
  it('begin as the reference has them', () => {
    expect(thresholds.slice(0, 16)).toEqual([2, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 38, 51, 68, 92, 124]);
  });

  it.each([
    [0, 0],
    [1, 0],
    [2, 2],
    [60, 13],
    [3_600, 27],
    [86_400, 37],
    [7 * 86_400, 44],
    [365 * 86_400, 57],
  ])('%i s is in bucket %i', (seconds, bucket) => expect(bucketOf(seconds)).toBe(bucket));

  it('are those of the logarithm in float32, at every edge and everywhere between', () => {
    for (const threshold of thresholds) {
      expect(bucketOf(threshold)).toBe(bucketByLogarithm(threshold));
      if (threshold > 2) expect(bucketOf(threshold - 1)).toBe(bucketByLogarithm(threshold - 1));
    }
    const distance = fc.oneof(
      fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      fc.maxSafeInteger().map((value) => Math.abs(value) + 1),
    );
    fc.assert(fc.property(distance, (seconds) => void expect(bucketOf(seconds)).toBe(bucketByLogarithm(seconds))));
  });

  it('never decrease, and are fewer than a table has', () => {
    expect(thresholds.every((value, i) => i === 0 || value >= thresholds[i - 1]!)).toBe(true);
    expect(thresholds.length).toBeLessThan(TIME_BUCKETS);
  });
});

describe('AttentionBias', () => {
  const plain = randomBundle({ dimension: 2, layers: 2, heads: 1, maxSequenceLength: 40, vocabularySize: 2 });
  const times = fc
    .array(fc.integer({ min: 0, max: 10_000_000 }), { minLength: 1, maxLength: 40 })
    .map((values) => values.sort((a, b) => a - b));

  it('is the sum of both tables, for any row, any keys, and times in or out of order', () => {
    const naive = ({ config, tensors }: Bundle, l: number, i: number, j: number, next: number, timesS: number[]): number =>
      (tensors.get(`layers.${l}.time_bias`)?.data[bucketOf(Math.abs(next - timesS[j]!))] ?? 0) +
      (tensors.get(`layers.${l}.position_bias`)?.data[config.paddedLength - 1 + j - i] ?? 0);
    const switches = fc.record({ timeBias: fc.boolean(), positionBias: fc.boolean() });
    const unsorted = fc.array(fc.integer({ min: 0, max: 10_000_000 }), { minLength: 1, maxLength: 40 });
    const property = fc.property(
      fc.oneof(times, unsorted),
      switches,
      fc.nat(),
      fc.nat(),
      fc.nat(),
      fc.nat(20_000_000),
      (timesS, flags, a, b, c, next) => {
        const bundle = makeBundle({
          ...plain,
          config: { ...plain.config, ...flags },
          tensors: new Map(
            [...plain.tensors].filter(
              ([name]) =>
                (flags.timeBias || !name.endsWith('time_bias')) && (flags.positionBias || !name.endsWith('position_bias')),
            ),
          ),
        });
        const n = timesS.length;
        const i = a % n;
        const [from, to] = [b % (n + 1), c % (n + 1)].sort((x, y) => x - y) as [number, number];
        const out = [new Float32Array(50).fill(9), new Float32Array(50).fill(9)];
        new AttentionBias(bundle).fillRow(i, next, Float64Array.from(timesS), from, to, out, 5);
        for (const [l, layer] of out.entries())
          for (let at = 0; at < 50; at++) {
            const j = from + at - 5;
            const expected = j >= from && j < to ? Math.fround(naive(bundle, l, i, j, next, timesS)) : 9;
            expect(layer[at], `layer ${l}, key ${j}`).toBe(expected);
          }
      },
    );
    fc.assert(property, { numRuns: 200 });
  });
});
