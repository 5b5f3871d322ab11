/** Golden vectors against one kind of engine: whole windows, and one event at a time through its cache. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import { importResearch } from '../../models/hstu/import-research.ts';
import type { EncoderEngine, EngineOptions } from '../../models/worker/engine.ts';
import { Deviation } from '../support/deviation.ts';
import { prefix, segmentOf } from '../support/encode-segments.ts';
import { goldenTensors, goldenVectors, type ResearchCase } from '../support/golden-vectors.ts';
import { referenceScores } from '../support/reference-hstu.ts';

type Engine = Pick<EncoderEngine, 'encode' | 'score' | 'release'>;

export interface GoldenSubject {
  readonly engineOf: (bundle: Bundle, options: EngineOptions) => Engine;
  readonly tolerance: number;
  /** Every case is run in each. */
  readonly modes: readonly Partial<EngineOptions>[];
  /** How many of a case's events, its last, come one at a time. @default all */
  readonly steps?: number;
}

/** The ranking layer's own have a test of their own. */
const vectors = goldenVectors().filter(({ architecture }) => architecture !== 'stu');
const example = (path: string) => fileURLToPath(new URL(`../../examples/movielens/${path}`, import.meta.url));

export function goldenCases(subject: GoldenSubject): void {
  describe.each(vectors)('$name', ({ name, config, cases, architecture, weights }) => {
    if (weights === undefined) it.skip(`no ${name}.safetensors beside ${name}.json`);
    else if (architecture !== 'research')
      for (const i of cases.keys()) it.skip(`${name} case ${i}: architecture ${architecture} is not served yet`);
    else researchCases(subject, name, cases, async () => importResearch(goldenTensors(weights), config, name));
  });

  describe('examples/movielens/bundle', () => {
    const { cases } = JSON.parse(readFileSync(example('bundle-check.json'), 'utf8')) as { cases: ResearchCase[] };
    it('has cases', () => expect(cases.length).toBeGreaterThan(0));
    researchCases(subject, 'bundle-check', cases, () => loadBundle(example('bundle')));
  });
}

function researchCases(
  { engineOf, tolerance, modes, steps: stepwise = Number.POSITIVE_INFINITY }: GoldenSubject,
  name: string,
  cases: readonly ResearchCase[],
  load: () => Promise<Bundle>,
): void {
  let loaded: Promise<Bundle> | undefined;
  const engines: Engine[] = [];
  const start = async () => {
    loaded ??= load();
    const bundle = await loaded;
    for (const mode of modes.slice(engines.length)) engines.push(engineOf(bundle, { kvBudgetBytes: 64 * 2 ** 20, ...mode }));
    return bundle;
  };

  for (const [i, { ids, timestamps, queryTime, rows, top10, top10Scores }] of cases.entries()) {
    it(`${name} case ${i}: ${ids.length} events`, async ({ annotate }) => {
      const bundle = await start();
      const { dimension: D } = bundle.config;
      const window = { entities: ids, timesS: timestamps };
      const expected = rows.flat();
      const deviation = new Deviation();

      for (const [m, engine] of engines.entries()) {
        const mode = `prefillRows ${modes[m]!.prefillRows ?? 'default'}`;
        const whole = await encode(engine, `whole ${i}`, [segmentOf(window, { queryTimeS: queryTime })]);
        deviation.check(whole[0]!.rows, expected, D, tolerance, `full encode, ${mode}`);

        // One event at a time: the row before it is final now, the new one is asked about the query time at the end.
        const steps = [];
        const first = Math.max(1, ids.length - stepwise);
        for (let n = first; n <= ids.length; n++) {
          const wanted = { from: Math.max(0, n - 2), ...(n === ids.length && { queryTimeS: queryTime }) };
          steps.push(...(await encode(engine, `stepwise ${i}`, [segmentOf(prefix(window, n), wanted)])));
        }
        const final = steps.slice(1).flatMap((step) => [...step.rows.subarray(0, D)]);
        deviation.check(
          [...final, ...steps.at(-1)!.rows.slice(-D)],
          expected.slice((first - 1) * D),
          D,
          tolerance,
          `one event at a time, ${mode}`,
        );
        expect(steps.slice(1).every(({ outcome, rowsComputed }) => outcome === 'hit' && rowsComputed === 2)).toBe(true);

        for (const embedding of [whole[0]!.rows.slice(-D), steps.at(-1)!.rows.slice(-D)]) {
          const [scored] = await engine.score([
            {
              rows: embedding,
              targets: Int32Array.of(0),
              seen: new Int32Array(0),
              seenCount: Int32Array.of(0),
              topK: top10.length,
            },
          ]);
          deviation.check(scored!.topScores, top10Scores, 1, tolerance, `top ${top10.length} scores, ${mode}`);
          expectRanking([...scored!.topEntities], top10, referenceScores(bundle, expected.slice(-D)), tolerance);
        }
      }
      await annotate(`${deviation}`);
    });
  }
}

async function encode(engine: Engine, userId: string, segments: ReturnType<typeof segmentOf>[]) {
  const [result] = await engine.encode([{ userId, segments }]);
  return result!.segments;
}

/** The same ids in the same order; only ids whose true scores are closer than the tolerance may change places. */
function expectRanking(actual: readonly number[], expected: readonly number[], scores: Float64Array, tolerance: number): void {
  if (actual.join() === expected.join()) return;
  for (const [place, id] of actual.entries()) {
    const difference = Math.abs(scores[id - 1]! - scores[expected[place]! - 1]!);
    if (id !== expected[place] && !(difference <= tolerance)) expect(actual, `place ${place}`).toEqual(expected);
  }
}
