import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bundle, makeBundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import { TokenCode } from '../../../models/hstu/token-code.ts';
import { Scorer } from '../../../models/worker/compute/scorer.ts';
import { Sessions } from '../../../models/worker/compute/sessions.ts';
import type { ScoreRequest } from '../../../schemas/encoding.ts';
import { Deviation } from '../../support/deviation.ts';
import { referenceScores } from '../../support/reference-hstu.ts';

const D = 6;
const VOCABULARY = 30;
const TOLERANCE = 1e-6;

/** Entities 7, 8 and 9 look the same, and 10 points their way at twice the length: they always tie. */
const bundle = ((): Bundle => {
  const parts = randomBundle({ dimension: D, layers: 1, heads: 1, maxSequenceLength: 4, vocabularySize: VOCABULARY });
  const data = Float32Array.from(parts.tensors.get('entity_embedding')!.data);
  for (const [copy, scale] of [
    [8, 1],
    [9, 1],
    [10, 2],
  ] as const)
    for (let d = 0; d < D; d++) data[copy * D + d] = scale * data[7 * D + d]!;
  return makeBundle({
    ...parts,
    tensors: new Map([...parts.tensors, ['entity_embedding', { shape: [VOCABULARY + 1, D], data }]]),
  });
})();
let sessions: Sessions;
let scorer: Scorer;
beforeAll(() => {
  sessions = new Sessions(bundle);
  scorer = new Scorer(bundle, sessions);
});
afterAll(() => sessions.release());

const request = (
  rows: number[][],
  more: Partial<Record<'targets' | 'seen' | 'seenCount', number[]>> & { topK?: number } = {},
): ScoreRequest => ({
  rows: Float32Array.from(rows.flat()),
  targets: Int32Array.from(more.targets ?? rows.map(() => 0)),
  seen: Int32Array.from(more.seen ?? []),
  seenCount: Int32Array.from(more.seenCount ?? rows.map(() => more.seen?.length ?? 0)),
  topK: more.topK ?? 0,
});
const row = [0.3, -0.2, 0.5, 0.1, -0.7, 0.4];
describe('named candidates', () => {
  it('are scored for the last row, repeated or not, in their order', async () => {
    const other = row.map((x) => -x);
    const candidates = Int32Array.of(7, 30, 1, 7);
    const [asked, silent] = await scorer.score([{ ...request([other, row]), candidates }, request([row])]);
    const scores = referenceScores(bundle, Float32Array.from(row));
    for (const [i, candidate] of candidates.entries())
      expect(Math.abs(asked!.candidateScores![i]! - scores[candidate - 1]!)).toBeLessThan(TOLERANCE);
    expect('candidateScores' in silent!).toBe(false);
  });

  it('out of the table are refused', async () => {
    for (const outside of [0, VOCABULARY + 1])
      await expect(scorer.score([{ ...request([row]), candidates: Int32Array.of(1, outside) }])).rejects.toMatchObject({
        code: 'ENCODER_FAILED',
        message: expect.stringContaining(`${outside}`),
      });
  });
});

const best = (scores: Float64Array, hidden: readonly number[] = []): number[] =>
  [...scores.keys()]
    .map((index) => index + 1)
    .filter((entity) => !hidden.includes(entity))
    .sort((a, b) => scores[b - 1]! - scores[a - 1]! || a - b);

describe('score', () => {
  it('is the naive ranking: ranks by who scores strictly higher, the best first, the seen left out, a target never by itself', async ({
    annotate,
  }) => {
    const deviation = new Deviation();
    const number = fc.double({ min: -1, max: 1, noNaN: true });
    const entity = fc.integer({ min: 1, max: VOCABULARY });
    const requests = fc.array(
      fc.record({
        rows: fc.array(
          fc.tuple(fc.array(number, { minLength: D, maxLength: D }), fc.integer({ min: 0, max: VOCABULARY }), fc.nat(40)),
          { maxLength: 4 },
        ),
        seen: fc.array(entity, { maxLength: 40 }),
        topK: fc.integer({ min: 0, max: VOCABULARY + 5 }),
      }),
      { maxLength: 4 },
    );
    const property = fc.asyncProperty(requests, async (asked) => {
      const results = await scorer.score(
        asked.map(({ rows, seen, topK }) =>
          request(
            rows.map(([values]) => values),
            {
              targets: rows.map(([, target]) => target),
              seen,
              seenCount: rows.map(([, , count]) => Math.min(count, seen.length)),
              topK,
            },
          ),
        ),
      );
      expect(results).toHaveLength(asked.length);
      for (const [i, { rows, seen, topK }] of asked.entries()) {
        const { ranks, topEntities, topScores } = results[i]!;
        expect(ranks).toHaveLength(rows.length);
        for (const [r, [values, target, count]] of rows.entries()) {
          const scores = referenceScores(bundle, Float32Array.from(values));
          const hidden = seen.slice(0, count).filter((other) => other !== target);
          const others = best(scores, hidden);
          // Entities as close as float32 rounds may stand on either side.
          const above = (margin: number) => others.filter((other) => scores[other - 1]! > scores[target - 1]! + margin).length;
          if (target === 0) expect(ranks[r]).toBe(0);
          else {
            expect(ranks[r]).toBeGreaterThanOrEqual(1 + above(TOLERANCE));
            expect(ranks[r]).toBeLessThanOrEqual(1 + above(-TOLERANCE));
          }
          if (r < rows.length - 1) continue;
          const expected = others.slice(0, topK);
          expect(topEntities).toHaveLength(expected.length);
          expect(new Set(topEntities).size).toBe(expected.length);
          for (const other of topEntities) expect(hidden).not.toContain(other);
          const scoresOf = (entities: Iterable<number>) => Array.from(entities, (other) => scores[other - 1]!);
          deviation.check(topScores, scoresOf(expected), 1, TOLERANCE, 'scores, best first');
          deviation.check(topScores, scoresOf(topEntities), 1, TOLERANCE, 'scores of the entities named');
        }
        if (rows.length === 0) expect(topEntities).toHaveLength(0);
      }
    });
    await fc.assert(property, { numRuns: 150 });
    await annotate(`${deviation}`);
  });

  it('answers nothing for nothing', async () => {
    expect(await scorer.score([])).toEqual([]);
    expect(await scorer.score([request([], { topK: 5 })])).toEqual([
      { ranks: new Int32Array(0), topEntities: new Int32Array(0), topScores: new Float32Array(0) },
    ]);
  });

  it('lists only the last row, whatever other requests ask for', async () => {
    const other = row.map((value) => -value);
    const [long, none, two] = await scorer.score([
      request([other, row], { topK: VOCABULARY + 10 }),
      request([row]),
      request([row], { topK: 2 }),
    ]);
    const expected = best(referenceScores(bundle, Float32Array.from(row)));
    expect([...long!.topEntities]).toEqual(expected);
    expect(none!.topEntities).toHaveLength(0);
    expect([...two!.topEntities]).toEqual(expected.slice(0, 2));
  });

  it('lists nobody when all have been seen', async () => {
    const seen = Array.from({ length: VOCABULARY }, (_, i) => i + 1);
    const [all, but12] = await scorer.score([
      request([row], { seen, topK: 5 }),
      request([row], { seen: seen.filter((entity) => entity !== 12), topK: 5 }),
    ]);
    expect(all!.topEntities).toHaveLength(0);
    expect(all!.topScores).toHaveLength(0);
    expect([...but12!.topEntities]).toEqual([12]);
  });

  it('counts of the seen only as many as the row had seen, and the same one twice once', async () => {
    const away = row.map((value) => -value);
    const [first, second] = best(referenceScores(bundle, Float32Array.from(away)));
    const [result] = await scorer.score([
      request([away, away, away], {
        targets: [second!, second!, second!],
        seen: [first!, first!, second!],
        seenCount: [0, 2, 3],
        topK: 1,
      }),
    ]);
    expect([...result!.ranks]).toEqual([2, 1, 1]);
    expect([...result!.topEntities]).toEqual([second]);
  });

  it('gives equals the same rank, and lists the lower row first', async () => {
    const table = bundle.tensors.get('entity_embedding')!.data;
    const towards = [...table.subarray(7 * D, 8 * D)];
    const [result] = await scorer.score([request([towards, towards, towards, towards], { targets: [7, 8, 9, 10], topK: 4 })]);
    expect([...result!.ranks]).toEqual([1, 1, 1, 1]);
    expect([...result!.topEntities]).toEqual([7, 8, 9, 10]);
    expect(new Set(result!.topScores).size).toBe(1);
  });

  it('takes any number of rows, in runs of bounded size', async () => {
    const rows = Array.from({ length: 700 }, (_, i) => row.map((value, d) => value * Math.cos(i + d)));
    const targets = rows.map((_, i) => 1 + (i % VOCABULARY));
    const [whole] = await scorer.score([request(rows, { targets })]);
    for (const i of [0, 1, 350, 699]) {
      const [one] = await scorer.score([request([rows[i]!], { targets: [targets[i]!] })]);
      expect(whole!.ranks[i]).toBe(one!.ranks[0]);
    }
  });
});

describe('score, of tokens that say more than their entity', () => {
  it('ranks by the entity; one outside the vocabulary has no rank and hides nothing', async () => {
    const { config } = bundle;
    const actions = { encoded: ['view', 'like'], skipped: [] };
    const more = { tokens: { layout: 'additive', values: {} }, unknownEntity: 'hash', outOfVocabulary: 2, actions } as const;
    const code = new TokenCode({ ...config, ...more });
    const table = bundle.tensors.get('entity_embedding')!;
    const wide = new Float32Array((VOCABULARY + 3) * D);
    wide.set(table.data);
    const tensors = new Map([
      ...bundle.tensors,
      ['entity_embedding', { shape: [VOCABULARY + 3, D], data: wide }] as const,
      ['action_embedding', { shape: [3, D], data: new Float32Array(3 * D) }] as const,
    ]);
    const other = makeBundle({ ...bundle, config: { ...config, ...more }, tensors });
    const others = new Sessions(other);
    const liked = (entity: number) => code.encode({ entity, actionBits: 2, bucket: 0 });
    const [expected] = await scorer.score([request([row, row], { targets: [3, 0], seen: [4, 5], topK: 5 })]);
    const [actual] = await new Scorer(other, others).score([
      request([row, row], { targets: [liked(3), liked(32)], seen: [liked(4), liked(31), 5], topK: 5 }),
    ]);
    expect(actual).toEqual(expected);
    await others.release();
  });
});
