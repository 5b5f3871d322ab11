/** The biases that bulk encoding fills run by run are those that are filled key by key. */
import { expect, test } from 'vitest';
import { AttentionBias } from '../../../models/hstu/attention-bias.ts';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import { BulkBiases } from '../../../models/worker/compute/bulk-biases.ts';
import type { EncodeSegment } from '../../../schemas/encoding.ts';

const LAYERS = 3;
const bundle = randomBundle({ dimension: 8, layers: LAYERS, heads: 1, maxSequenceLength: 64, vocabularySize: 10 });

/** `n` times of which some are equal, some near and some far. */
function timesOf(n: number, seed: number): Float64Array {
  const times = new Float64Array(n);
  let state = seed;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    times[i] = (times[i - 1] ?? 1_600_000_000) + (state % 3) * Math.floor(10 ** (state % 7));
  }
  return times;
}

const segment = (timesS: Float64Array, queryTimeS = timesS.at(-1)! + 5): EncodeSegment => ({
  windowStart: 0,
  entities: new Int32Array(timesS.length).fill(1),
  timesS,
  pageDigests: new Uint32Array(0),
  from: 0,
  queryTimeS,
});

/** The largest number that differs, over all that a row may see. */
function compared(of: Bundle, segments: readonly EncodeSegment[], chunks: number, blank = 0): number {
  const S = Math.ceil(Math.max(...segments.map(({ timesS }) => timesS.length)) / chunks);
  const reach = of.config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
  const filled = new BulkBiases(of).fill(segments, { S, chunks, blank });
  const slow = new AttentionBias(of);
  let largest = 0;
  for (const [b, { timesS, queryTimeS }] of segments.entries())
    for (let i = 0; i < timesS.length; i++) {
      const from = Math.max(0, i - reach);
      const expected = Array.from({ length: LAYERS }, () => new Float32Array(i + 1 - from));
      slow.fillRow(i, timesS[i + 1] ?? queryTimeS, timesS, from, i + 1, expected, 0);
      const c = Math.floor(i / S);
      const at = (b * S + (i % S)) * (c + 1) * S + from;
      expect(filled[c]).toHaveLength(c < blank ? LAYERS - 1 : LAYERS);
      for (const [l, layer] of filled[c]!.entries())
        for (let j = 0; j <= i - from; j++) largest = Math.max(largest, Math.abs(layer[at + j]! - expected[l]![j]!));
    }
  return largest;
}

test.each([
  [1, 0],
  [4, 0],
  [4, 3],
  [8, 6],
])('users of different lengths, %i chunks of which the last layer skips %i', (chunks, blank) => {
  const segments = [61, 1, 7, 40, 64].map((n, i) => segment(timesOf(n, i + 1)));
  expect(compared(bundle, segments, chunks, blank)).toBe(0);
});

test('a query from before the newest event, and times that go back', () => {
  const times = timesOf(30, 5);
  const early = segment(times, times[10]!);
  const unsorted = segment(times.slice().reverse());
  expect(compared(bundle, [early, unsorted, segment(times)], 4)).toBe(0);
});

test('rows that see only the nearest', () => {
  const local = { ...bundle, config: { ...bundle.config, stu: { maxAttnLen: 5 } as never } };
  expect(compared(local, [segment(timesOf(50, 9)), segment(timesOf(20, 3))], 4)).toBe(0);
});

test('a table that the model does not have adds nothing', () => {
  for (const missing of ['time_bias', 'position_bias']) {
    const tensors = new Map([...bundle.tensors].filter(([name]) => !name.endsWith(missing)));
    expect(compared({ ...bundle, tensors }, [segment(timesOf(64, 2))], 4)).toBe(0);
  }
});

test('the comparison would notice: another position table', () => {
  const times = timesOf(20, 4);
  const filled = new BulkBiases(bundle).fill([segment(times)], { S: 20, chunks: 1, blank: 0 })[0]![0]!;
  const row = new Float32Array(20);
  new AttentionBias(bundle).fillRow(18, times[19]!, times, 0, 19, [row], 0);
  expect(filled.subarray(19 * 20, 19 * 20 + 19)).not.toEqual(row.subarray(0, 19));
});
