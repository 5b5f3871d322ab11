/** The float64 reference that the laws are measured against is itself held to the vectors of Meta's modules. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { importResearch } from '../../models/hstu/import-research.ts';
import { Deviation } from '../support/deviation.ts';
import { goldenTensors, goldenVectors } from '../support/golden-vectors.ts';
import { referenceRows, referenceScores } from '../support/reference-hstu.ts';

/** The files hold twelve decimals. */
const TOLERANCE = 1e-11;
const vectors = goldenVectors(fileURLToPath(new URL('../golden/hstu-research', import.meta.url)));

it('has vectors', () => expect(vectors.length).toBeGreaterThan(0));

describe.each(vectors)('$name', ({ name, config, cases, weights }) => {
  const bundle = importResearch(goldenTensors(weights!), config, name);
  const { dimension: D } = bundle.config;

  it.each([...cases.entries()])('case %i', async (_, { ids, timestamps, queryTime, rows, top10, top10Scores }) => {
    const deviation = new Deviation();
    const actual = referenceRows(bundle, { entities: ids, timesS: timestamps }, queryTime);
    deviation.check(actual, rows.flat(), D, TOLERANCE, 'rows');
    const scores = referenceScores(bundle, actual.subarray(-D));
    deviation.check(
      top10.map((id) => scores[id - 1]!),
      top10Scores,
      1,
      TOLERANCE,
      'scores',
    );
    const best = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, top10.length);
    expect(best.map((index) => index + 1)).toEqual(top10);
  });
});
