import fc from 'fast-check';
import { from, lastValueFrom, of, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { type ScoreOptions, type Scorer, score } from '../../operators/score.ts';
import { sequence } from '../../operators/sequence.ts';
import type { EncodedUnit, ScoredUnit, SequencedBatch } from '../../schemas/batch.ts';
import type { ScoreRequest, ScoreResult } from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { decodedBatch, type EventSpec, event, fakeResult, marbles, tokenizer, virtualPromise } from './fixtures.ts';
import { eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';

/** A rank is a fingerprint of all that it may depend on: the row, the target, and the seen. */
const rankOf = (row: ArrayLike<number>, target: number, seen: readonly number[]): number =>
  [...Array.from(row), target, ...seen].reduce((sum, x) => (Math.imul(sum, 31) + Math.round(x)) & 0x3fffffff, 7) + 1;
const fakeScore = ({ rows, targets, seen, seenCount, topK }: ScoreRequest): ScoreResult => {
  const count = targets.length;
  const width = rows.length / count;
  const ranks = targets.map((target, r) =>
    target === 0 ? 0 : rankOf(rows.subarray(r * width, (r + 1) * width), target, [...seen.subarray(0, seenCount[r])]),
  );
  const filtered = new Set(seen.subarray(0, seenCount[count - 1]));
  const topEntities = Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9].filter((entity) => !filtered.has(entity)).slice(0, topK));
  return { ranks, topEntities, topScores: Float32Array.from(topEntities, () => rows[(count - 1) * width]!) };
};
const recording = () => {
  const calls: (readonly ScoreRequest[])[] = [];
  const scorer: Scorer = {
    score: async (requests) => {
      calls.push(requests);
      return requests.map(fakeScore);
    },
  };
  return { calls, scorer };
};

const sequenced = (
  events: readonly EventSpec[],
  options = { maxLength: 9, blockLength: 3, seenLimit: 100 },
  publish: 'every-batch' | 'every-event' = 'every-batch',
) => {
  let out: SequencedBatch | undefined;
  of(decodedBatch(0, events))
    .pipe(sequence({ tokenizer, window: options, seenLimit: options.seenLimit, publish }))
    .subscribe((batch) => {
      out = batch;
    });
  return out!;
};
const unitsOf = (batch: SequencedBatch): EncodedUnit[] =>
  batch.updates.length === 0
    ? [{ batch, update: null }]
    : batch.updates.map((update) => ({ batch, update: { update, segments: fakeResult(update.request).segments } }));
const run = (inputs: EncodedUnit[][], options: ScoreOptions): Promise<(readonly ScoredUnit[])[]> =>
  lastValueFrom(from(inputs).pipe(score(options), toArray()));
const history = [
  event('a', 'e0', 1000, 1),
  event('a', 'e1', 2000, 2),
  event('a', 'late', 1500, 3),
  event('a', 'e2', 3000, 4),
  event('b', 'e3', 1000, 5),
];

describe('score', () => {
  operatorContract('score', {
    create: (scheduler) => score({ scorer: recording().scorer, topK: 2, maxInFlight: 2, scheduler }),
    inputs: () => [unitsOf(sequenced(history)), unitsOf(sequenced([])), unitsOf(sequenced(history.slice(0, 2)))],
    view: (units: readonly ScoredUnit[]) => units.map(({ update }) => update?.scores),
  });

  it('makes one call for a micro-batch, with a request for every segment something is asked of', async () => {
    const { calls, scorer } = recording();
    const [units] = await run([[...unitsOf(sequenced(history)), ...unitsOf(sequenced([]))]], { scorer, topK: 2 });
    expect(calls.length).toBe(1);
    expect(calls[0]!.map(({ targets, seen, seenCount, topK }) => [[...targets], [...seen], [...seenCount], topK])).toEqual([
      [[2], [1], [1], 0],
      [[4, 0], [1, 2, 3, 4], [3, 4], 2],
      [[0], [5], [1], 2],
    ]);
    expect(units!.map(({ update }) => update?.scores.map(({ ranks, topEntities }) => [ranks.length, [...topEntities]]))).toEqual([
      [
        [2, []],
        [2, [5, 6]],
      ],
      [[1, [1, 2]]],
      undefined,
    ]);
  });

  it('asks once for a segment that is both ranked and published, every event of it', async () => {
    const { calls, scorer } = recording();
    await run([unitsOf(sequenced(history.slice(0, 2), undefined, 'every-event'))], { scorer, topK: 2 });
    expect(calls[0]!.map(({ targets, topK }) => [[...targets], topK])).toEqual([
      [[0], 2],
      [[2, 0], 2],
    ]);
  });

  it('does not filter the published entities where that is off, and ranks as ever', async () => {
    const { calls, scorer } = recording();
    await run([unitsOf(sequenced(history))], { scorer, topK: 2, seenFilter: false });
    expect(calls[0]!.map(({ seen, seenCount }) => [[...seen], [...seenCount]])).toEqual([
      [[1], [1]],
      [
        [1, 2, 3],
        [3, 0],
      ],
      [[], [0]],
    ]);
  });

  it('asks for ranks alone where topK is 0, and nothing where nobody asks', async () => {
    const { calls, scorer } = recording();
    const [ranked, first, empty] = await run(
      [unitsOf(sequenced(history.slice(0, 2))), unitsOf(sequenced(history.slice(0, 1))), unitsOf(sequenced([]))],
      { scorer, topK: 0 },
    );
    expect(calls.map((requests) => requests.map(({ targets, topK }) => [[...targets], topK]))).toEqual([[[[2], 0]]]);
    expect(ranked![0]!.update!.scores[0]!.ranks.length).toBe(2);
    expect(first![0]!.update!.scores).toEqual([
      { ranks: new Int32Array(1), topEntities: new Int32Array(0), topScores: new Float32Array(0) },
    ]);
    expect(empty![0]!.update).toBe(null);
  });

  it('asks nothing where the model does not retrieve', async () => {
    const { calls, scorer } = recording();
    const [units] = await run([unitsOf(sequenced(history))], { scorer, topK: 3, retrieves: false });
    expect(calls).toEqual([]);
    for (const { update } of units!)
      for (const { ranks, topEntities } of update!.scores)
        expect([...ranks, ...topEntities].every((each) => each === 0)).toBe(true);
  });

  it('gives each target the rank by its own row and seen, and each publication its entities, for any history', async () => {
    await fc.assert(
      fc.asyncProperty(
        optionsArbitrary,
        fc.array(eventsArbitrary(3, 60), { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        fc.constantFrom('every-batch' as const, 'every-event' as const),
        async (options, histories, seenFilter, publish) => {
          const input = histories.flatMap((events) => unitsOf(sequenced(events, options, publish)));
          const [output] = await run([input], { scorer: recording().scorer, topK: 3, seenFilter });
          expect(output!.map(({ batch }) => batch)).toEqual(input.map(({ batch }) => batch));
          for (const { update: scored } of output!) {
            if (scored === null) continue;
            const { update, segments, scores } = scored;
            expect(scores.length).toBe(segments.length);
            const wanted = segments.map(({ rows }) => new Int32Array(rows.length / 2));
            for (const { segment, row, entity, seenStart, seenCount } of update.targets)
              wanted[segment]![row] = rankOf(segments[segment]!.rows.subarray(2 * row, 2 * row + 2), entity, [
                ...update.seen.subarray(seenStart, seenCount),
              ]);
            expect(scores.map(({ ranks }) => ranks)).toEqual(wanted);
            const published = new Map(update.publish.map((point) => [point.segment, point]));
            scores.forEach(({ topEntities, topScores }, k) => {
              const point = published.get(k);
              if (point === undefined) {
                expect(topEntities.length).toBe(0);
                return;
              }
              const seen = new Set(seenFilter ? update.seen.subarray(point.seenStart, point.seenCount) : []);
              expect([...topEntities]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].filter((entity) => !seen.has(entity)).slice(0, 3));
              if (topScores.length > 0) expect(topScores[0]).toBe(segments[k]!.rows.at(-2));
            });
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('lets results out in order, several calls at once, and makes again a call whose worker crashed', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const inputs = { a: unitsOf(sequenced(history)), b: unitsOf(sequenced(history.slice(0, 1))) };
      const answers = [new PipelineError('WORKER_CRASHED', 'died'), 1, 1];
      let call = 0;
      const scorer: Scorer = {
        score: (requests) => {
          const answer = answers[call++];
          return virtualPromise(scheduler, 1, () => {
            if (answer instanceof Error) throw answer;
            return requests.map(fakeScore);
          });
        },
      };
      const scored = (units: EncodedUnit[]) => units.map(() => expect.objectContaining({ update: expect.anything() }));
      const source$ = cold('  ab-------|', inputs);
      const subscribed = '    ^--------!';
      const expected = '      -----(ab)|';
      expectObservable(source$.pipe(score({ scorer, retryDelayMs: 3, scheduler }))).toBe(expected, {
        a: scored(inputs.a),
        b: scored(inputs.b),
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it.each<[string, (results: ScoreResult[]) => ScoreResult[]]>([
    ['too few', (results) => results.slice(0, -1)],
    ['too many', (results) => [...results, results[0]!]],
    ['of another shape', ([first, ...rest]) => [{ ...first!, ranks: new Int32Array(9) }, ...rest]],
  ])('refuses results that are %s', async (_, spoil) => {
    const scorer: Scorer = { score: async (requests) => spoil(requests.map(fakeScore)) };
    await expect(run([unitsOf(sequenced(history))], { scorer })).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
  });

  it('refuses bad options when called', () => {
    for (const options of [{ topK: -1 }, { topK: 1.5 }, { maxInFlight: 0 }, { maxRetries: -1 }])
      expect(() => score({ scorer: recording().scorer, ...options })).toThrowError(
        expect.objectContaining({ code: 'CONFIG_INVALID' }),
      );
  });
});
