/** Golden vectors made by the reference implementations, through the cache on the GPU. */
import { afterAll, describe, expect, it } from 'vitest';
import { GpuEngine } from '../../../models/gpu/gpu-engine.ts';
import { Deviation } from '../../support/deviation.ts';
import { prefix, segmentOf } from '../../support/encode-segments.ts';
import { goldenCases } from '../golden-cases.ts';
import { bundleOf, candidatesOf, historyOf, stuVectors } from '../stu-golden.ts';
import { describeOnGpu } from './describe-on-gpu.ts';

const TOLERANCE = 1e-4;
const engines: GpuEngine[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));

describeOnGpu('on the GPU', () => {
  goldenCases({
    engineOf: (bundle, options) => new GpuEngine(bundle, options),
    tolerance: TOLERANCE,
    modes: [{ prefillRows: 80 }],
    steps: 50,
  });

  describe.each(stuVectors())('$name', (vectors) => {
    for (const [i, golden] of vectors.cases.entries())
      it(`${vectors.name} case ${i}: ${golden.history} events one at a time, ${golden.targets} candidates`, async ({
        annotate,
      }) => {
        const { history, y } = golden;
        const D = y[0]!.length;
        const window = historyOf(golden);
        const deviation = new Deviation();
        const engine = new GpuEngine(bundleOf(vectors, golden), { kvBudgetBytes: 2 ** 20, prefillRows: 7 });
        engines.push(engine);
        // The stack's outputs are not normalised: both are divided by max(1, |expected|).
        const check = (rows: Float32Array, expected: readonly (readonly number[])[], what: string) => {
          const scales = expected.flat().map((value) => Math.max(1, Math.abs(value)));
          const relative = (values: ArrayLike<number>) => Array.from(values, (value, k) => value / (scales[k] ?? 1));
          deviation.check(relative(rows), relative(expected.flat()), D, TOLERANCE, what);
        };
        for (let n = 1; n <= history; n++) {
          const [step] = await engine.encode([{ userId: 'u', segments: [segmentOf(prefix(window, n), { from: n - 1 })] }]);
          check(step!.segments[0]!.rows, [y[n - 1]!], `event ${n}`);
        }
        const request = { userId: 'u', segment: segmentOf(window), candidates: candidatesOf(golden), withRows: true };
        const [scored] = await engine.scoreCandidates([request]);
        expect(scored).toMatchObject({ outcome: history > 0 ? 'hit' : 'cold', rowsComputed: Math.min(1, history) });
        check(scored!.rows, y.slice(history), 'candidates');
        await annotate(`${deviation}`);
      });
  });
});
