/** The float64 reference of the ranking layer is itself held to the vectors of Meta's modules. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Deviation } from '../support/deviation.ts';
import { referenceStuRows } from '../support/reference-stu.ts';
import { bundleOf, candidatesOf, historyOf, stuVectors } from './stu-golden.ts';

/** The vectors' last norm runs in float32. */
const TOLERANCE = 1e-5;
const vectors = stuVectors(fileURLToPath(new URL('../golden/stu', import.meta.url)));

it('has vectors', () => expect(vectors.length).toBeGreaterThan(0));

describe.each(vectors)('$name', (stu) => {
  it.each([...stu.cases.entries()])('case %i', async (_, golden) => {
    const actual = referenceStuRows(bundleOf(stu, golden), historyOf(golden), 2_000_000, [...candidatesOf(golden)]);
    const expected = golden.y.flat();
    const scaled = (values: ArrayLike<number>) => Array.from(values, (value, i) => value / Math.max(1, Math.abs(expected[i]!)));
    new Deviation().check(scaled(actual), scaled(expected), golden.y[0]!.length, TOLERANCE, 'rows');
  });
});
