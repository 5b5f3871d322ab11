/**
 * Golden vectors of Meta's STU stack through the real runtime: by one full pass, and from the cached history plus candidates in
 * micro-batches of any size. `GOLDEN_DIR=folder` runs the vectors of another folder.
 */
import { createHash } from 'node:crypto';
import { afterAll, describe, expect, it } from 'vitest';
import { KvCache } from '../../models/kv-cache/kv-cache.ts';
import { EncoderEngine, type EngineOptions } from '../../models/worker/engine.ts';
import { Deviation, worstOf } from '../support/deviation.ts';
import { prefix, segmentOf } from '../support/encode-segments.ts';
import { goldenFolder } from '../support/golden-vectors.ts';
import { bundleOf, candidatesOf, historyOf, type StuCase, type StuVectors, stuVectors, TASKS } from './stu-golden.ts';

/** Relative to max(1, |y|): the reference itself moves by 1e-5 between float32 and float64. */
const TOLERANCE = 3e-5;
/** Between two ways of the same runtime. */
const SAME = 1e-5;
const MODES: Partial<EngineOptions>[] = [{}, { prefillRows: 3, candidateRows: 1 }, { prefillRows: 7, candidateRows: 5 }];

const engines: EncoderEngine[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));

/** An engine and its cache. */
function start(vectors: StuVectors, golden: StuCase, options: Partial<EngineOptions> = {}) {
  let cache: KvCache | undefined;
  const engine = new EncoderEngine(bundleOf(vectors, golden), { kvBudgetBytes: 2 ** 22, ...options }, (given) => {
    cache = new KvCache(given);
    return cache;
  });
  engines.push(engine);
  return { engine, cache: cache! };
}

/** Both divided by max(1, |expected|). */
const relative = (actual: ArrayLike<number>, expected: readonly number[]): [number[], number[]] => {
  const scales = expected.map((value) => Math.max(1, Math.abs(value)));
  return [Array.from(actual, (value, i) => value / (scales[i] ?? 1)), expected.map((value, i) => value / scales[i]!)];
};

it(`there are STU vectors in ${goldenFolder()}`, () => {
  if (process.env['GOLDEN_DIR'] === undefined) expect(stuVectors().length).toBeGreaterThan(0);
});

describe.each(stuVectors())('$name', (vectors) => {
  for (const [i, golden] of vectors.cases.entries()) {
    const { history, targets, y } = golden;
    const D = y[0]!.length;
    const window = historyOf(golden);
    const segment = segmentOf(window);
    const request = { userId: 'u', segment, candidates: candidatesOf(golden), withRows: true };
    const expectedHistory = y.slice(0, history).flat();
    const expectedTargets = y.slice(history).flat();
    const title = `${vectors.name} case ${i}: ${history} events, ${targets} candidates`;

    it(`${title}: full pass`, async ({ annotate }) => {
      const deviation = new Deviation();
      const { engine } = start(vectors, golden, { kvBudgetBytes: 0 });
      const [encoded] = await engine.encode([{ userId: 'u', segments: [segment] }]);
      deviation.check(...relative(encoded!.segments[0]!.rows, expectedHistory), D, TOLERANCE, 'history');
      const [whole] = await engine.scoreCandidatesInFull([request]);
      deviation.check(...relative(whole!.rows, expectedTargets), D, TOLERANCE, 'candidates');
      await annotate(`${deviation}`);
    });

    it(`${title}: history from the cache plus candidates`, async ({ annotate }) => {
      const deviation = new Deviation();
      for (const mode of MODES) {
        const what = JSON.stringify(mode);
        const { engine, cache } = start(vectors, golden, mode);
        const rows: number[] = [];
        for (let n = 1; n <= history; n++) {
          const [step] = await engine.encode([{ userId: 'u', segments: [segmentOf(prefix(window, n), { from: n - 1 })] }]);
          rows.push(...step!.segments[0]!.rows);
        }
        deviation.check(...relative(rows, expectedHistory), D, TOLERANCE, `history event by event, ${what}`);
        const before = digestOf(cache);
        const [scored] = await engine.scoreCandidates([request]);
        expect(digestOf(cache)).toBe(before);
        expect(scored).toMatchObject({ outcome: 'hit', rowsComputed: 1 });
        deviation.check(...relative(scored!.rows, expectedTargets), D, TOLERANCE, `candidates, ${what}`);
        checkHeads(bundleOf(vectors, golden), scored!, y.slice(history), deviation);

        const { engine: cold } = start(vectors, golden, { ...mode, kvBudgetBytes: 0 });
        const [uncached] = await cold.scoreCandidates([request]);
        expect(uncached).toMatchObject({ outcome: 'uncached', rowsComputed: history });
        deviation.check(...relative(uncached!.rows, expectedTargets), D, TOLERANCE, `candidates, no room, ${what}`);
      }
      await annotate(`${deviation}`);
    });

    if (targets < 2) continue;
    it(`${title}: any order of candidates, any company`, async ({ annotate }) => {
      const deviation = new Deviation();
      for (const mode of MODES) {
        const { engine } = start(vectors, golden, mode);
        const [straight] = await engine.scoreCandidates([request]);
        const order = Array.from(request.candidates, (_, c) => (c * 5 + 3) % targets);
        if (new Set(order).size < targets) order.splice(0, targets, ...[...request.candidates.keys()].reverse());
        const shuffled = Int32Array.from(order, (c) => request.candidates[c]!);
        const crowded = Int32Array.from([...request.candidates].flatMap((candidate) => [candidate, 1, candidate]));
        const [other, crowd] = await engine.scoreCandidates([
          { ...request, candidates: shuffled },
          { ...request, userId: 'v', candidates: crowded },
        ]);
        const back = order.map((_, c) => order.indexOf(c));
        const pick = (from: Float32Array, places: readonly number[]) =>
          places.flatMap((at) => [...from.subarray(at * D, (at + 1) * D)]);
        const expected = Array.from(straight!.rows);
        deviation.check(...relative(pick(other!.rows, back), expected), D, SAME, 'shuffled');
        deviation.check(
          ...relative(
            pick(
              crowd!.rows,
              back.map((_, c) => 3 * c),
            ),
            expected,
          ),
          D,
          SAME,
          'in company',
        );
        for (const { name } of TASKS)
          deviation.check(
            back.map((at) => other!.tasks[name]![at]!),
            straight!.tasks[name]!,
            1,
            SAME,
            name,
          );
      }
      await annotate(`${deviation}`);
    });

    it(`${title}: a candidate that saw another is far off`, async ({ annotate }) => {
      // The wrong model: candidates as plain events, each of which sees those before it. The first has nobody to see.
      const { engine } = start(vectors, golden);
      const { entities, timesS } = window;
      const leaking = segmentOf(
        {
          entities: [...entities, ...request.candidates],
          timesS: [...timesS, ...Array.from(request.candidates, () => timesS.at(-1)!)],
        },
        { from: history },
      );
      const [wrong] = await engine.encode([{ userId: 'u', segments: [leaking] }]);
      const { rows } = wrong!.segments[0]!;
      const first = worstOf(...relative(rows.subarray(0, D), expectedTargets.slice(0, D)), D);
      expect(first.delta).toBeLessThan(TOLERANCE);
      const deltas = Array.from({ length: targets - 1 }, (_, c) => {
        const at = (c + 1) * D;
        return worstOf(...relative(rows.subarray(at, at + D), expectedTargets.slice(at, at + D)), D).delta;
      });
      await annotate(`max |Δ| ${Math.min(...deltas).toPrecision(2)} to ${Math.max(...deltas).toPrecision(2)}`);
      for (const delta of deltas) expect(delta).toBeGreaterThan(100 * TOLERANCE);
    });
  }
});

/** Every byte of K and V of the one user, capacity and all, and what the entry says of itself. */
function digestOf(cache: KvCache): string {
  const { extent, length, entities, timesS } = cache.touch('u')!;
  const hash = createHash('sha256').update(`${length}:${entities.join()}:${timesS.join()}`);
  for (const tensor of [...extent.keys, ...extent.values]) {
    const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest('hex');
}

/** `p = sigmoid(y @ W + b)` and their weighted sum, from the golden rows. */
function checkHeads(
  { tensors }: ReturnType<typeof bundleOf>,
  { tasks, combined }: { tasks: Readonly<Record<string, Float32Array>>; combined: Float32Array },
  rows: readonly (readonly number[])[],
  deviation: Deviation,
): void {
  const weight = tensors.get('ranking.weight')!.data;
  const bias = tensors.get('ranking.bias')!.data;
  const expected = rows.map((row) =>
    TASKS.map((_, k) => 1 / (1 + Math.exp(-row.reduce((sum, value, d) => sum + value * weight[2 * d + k]!, bias[k]!)))),
  );
  for (const [k, { name }] of TASKS.entries())
    deviation.check(
      tasks[name]!,
      expected.map((row) => row[k]!),
      1,
      TOLERANCE,
      name,
    );
  const sums = expected.map((row) => row.reduce((sum, p, k) => sum + p * TASKS[k]!.weight, 0));
  deviation.check(combined, sums, 1, TOLERANCE, 'combined');
}
