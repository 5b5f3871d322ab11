import fc from 'fast-check';
import { from, lastValueFrom, Subject, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { type AnswerOptions, answer } from '../../operators/answer.ts';
import type { RequestAnswer, ScoredUnit, SequencedRequest } from '../../schemas/batch.ts';
import type { CallTerms, CandidateRequest } from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { fakeResult, marbles, virtualPromise } from './fixtures.ts';
import { askedOf, dotProduct, fakeModel, judge, judgement, unitOf, VOCABULARY_SIZE, vocabulary } from './request-fixtures.ts';

const BOTH = { retrieval: true, ranking: true };
const RETRIEVAL = { retrieval: true, ranking: false };
const RANKING = { retrieval: false, ranking: true };

const optionsOf = (options: Partial<AnswerOptions> = {}): AnswerOptions => ({
  encoder: fakeModel().encoder,
  heads: BOTH,
  vocabularySize: VOCABULARY_SIZE,
  entityOf: vocabulary.entityOf,
  now: () => 5_000,
  ...options,
});
const run = (inputs: readonly (readonly ScoredUnit[])[], options: Partial<AnswerOptions> = {}) =>
  lastValueFrom(from(inputs).pipe(answer(optionsOf(options)), toArray()));
async function answersTo(
  asked: readonly SequencedRequest[],
  options: Partial<AnswerOptions> = {},
): Promise<readonly RequestAnswer[]> {
  const [units] = await run([[unitOf(asked)]], options);
  return units![0]!.answers!;
}
const names = (answerOf: RequestAnswer) => answerOf.candidates.map(({ entity }) => entity);
const movies = (...rows: number[]) => rows.map((row) => `movie:${row}`);
const segmentOf = ({ request, window }: SequencedRequest) => ({ userId: request.userId, segment: window });

describe('answer', () => {
  operatorContract('answer', {
    create: (scheduler) => answer({ ...optionsOf(), scheduler }),
    inputs: () => [
      [unitOf(undefined), unitOf([askedOf('ann', [1, 2], { entities: movies(3, 4) })])],
      [unitOf(undefined, 1)],
      [unitOf([askedOf('bob', [], { topK: 3 })], 1)],
    ],
    view: (units: readonly ScoredUnit[]) => units.map(({ answers }) => answers),
  });

  it('scores what was named by the task heads, best first, with every task', async () => {
    const asked = askedOf('ann', [1, 2], { entities: movies(3, 4, 5, 6) });
    const [result] = await answersTo([asked]);
    const byScore = [3, 4, 5, 6].sort((a, b) => judgement(segmentOf(asked), b) - judgement(segmentOf(asked), a));
    expect(names(result!)).toEqual(movies(...byScore));
    expect(result!.candidates.map(({ score }) => score)).toEqual(
      byScore.map((row) => Math.fround(judgement(segmentOf(asked), row))),
    );
    expect(result!.tasks).toEqual({
      like: Float32Array.from(byScore, (row) => judgement(segmentOf(asked), row, 1)),
      buy: Float32Array.from(byScore, (row) => judgement(segmentOf(asked), row, 2)),
    });
    expect(result!.disposition).toBe('answered');
  });

  it('scores by dot product where there are no task heads', async () => {
    const asked = askedOf('ann', [1, 2], { entities: movies(3, 4, 5, 6) });
    const [result] = await answersTo([asked], { heads: RETRIEVAL });
    const { rows } = fakeResult({ userId: 'ann', segments: [{ ...asked.window, from: 1 }] }).segments[0]!;
    const byScore = [3, 4, 5, 6].sort((a, b) => dotProduct(rows, b) - dotProduct(rows, a));
    expect(names(result!)).toEqual(movies(...byScore));
    expect(result!.tasks).toBe(undefined);
  });

  it('keeps the best topK of a list', async () => {
    const all = await answersTo([askedOf('ann', [1], { entities: movies(3, 4, 5, 6) })]);
    const [best] = await answersTo([askedOf('ann', [1], { entities: movies(3, 4, 5, 6), topK: 2 })]);
    expect(best!.candidates).toEqual(all[0]!.candidates.slice(0, 2));
    expect(best!.tasks!['like']!.length).toBe(2);
  });

  it('takes the best of the catalogue: retrieved, then ranked', async () => {
    const asked = { ...askedOf('ann', [1, 2], { topK: 2 }), hidden: Int32Array.of(9, 1, 2) };
    const { rows } = fakeResult({ userId: 'ann', segments: [{ ...asked.window, from: 1 }] }).segments[0]!;
    const retrieved = Array.from({ length: VOCABULARY_SIZE }, (_, i) => i + 1)
      .filter((row) => ![9, 1, 2].includes(row))
      .sort((a, b) => dotProduct(rows, b) - dotProduct(rows, a));
    const best = (count: number) =>
      retrieved.slice(0, count).sort((a, b) => judgement(segmentOf(asked), b) - judgement(segmentOf(asked), a));
    expect(names((await answersTo([asked]))[0]!)).toEqual(movies(...best(10).slice(0, 2)));
    expect(names((await answersTo([asked], { retrieve: 4 }))[0]!)).toEqual(movies(...best(4).slice(0, 2)));
    expect(names((await answersTo([asked], { retrieve: 1 }))[0]!)).toEqual(movies(...best(2)));
    expect(names((await answersTo([asked], { heads: RETRIEVAL }))[0]!)).toEqual(movies(...retrieved.slice(0, 2)));
    const everything = [...retrieved].sort((a, b) => judgement(segmentOf(asked), b) - judgement(segmentOf(asked), a));
    expect(names((await answersTo([asked], { heads: RANKING }))[0]!)).toEqual(movies(...everything.slice(0, 2)));
  });

  it('marks a cold start: judged without history, or in the order of the request with zeros where the model cannot', async () => {
    const listed = askedOf('new', [], { entities: movies(6, 3) });
    const catalogue = { ...askedOf('new', [], { topK: 3 }), hidden: Int32Array.of(2) };
    const ranked = await answersTo([listed, catalogue]);
    expect(ranked.map(({ disposition }) => disposition)).toEqual(['cold-start', 'cold-start']);
    expect(names(ranked[0]!).sort()).toEqual(movies(3, 6));
    const all = [1, ...Array.from({ length: VOCABULARY_SIZE - 2 }, (_, i) => i + 3)];
    const byScore = all.sort((a, b) => judgement(segmentOf(catalogue), b) - judgement(segmentOf(catalogue), a));
    expect(names(ranked[1]!)).toEqual(movies(...byScore.slice(0, 3)));
    const zeros = await answersTo([listed, catalogue], { heads: RETRIEVAL });
    expect(zeros.map(({ candidates }) => candidates)).toEqual([
      movies(6, 3).map((entity) => ({ entity, score: 0 })),
      movies(1, 3, 4).map((entity) => ({ entity, score: 0 })),
    ]);
  });

  it('gives a user without a history what is popular, as scores of one stage and as the first of two, marked as a cold start', async () => {
    /** Every row as popular as its number, but for 5, which nobody knows. */
    const popular = (row: number) => (row === 5 || row > VOCABULARY_SIZE ? 0 : row);
    const rows = Array.from({ length: VOCABULARY_SIZE }, (_, i) => i + 1);
    const order = () => Int32Array.from([...rows].sort((a, b) => popular(b) - popular(a) || a - b));
    const popularity = { valueOf: popular, order };
    const listed = askedOf('new', [], { entities: movies(6, 5, 9) });
    const catalogue = { ...askedOf('new', [], { topK: 3 }), hidden: Int32Array.of(19) };
    const asked = [listed, catalogue, askedOf('ann', [1, 2], { topK: 3 })];
    const single = await answersTo(asked, { heads: RETRIEVAL, popularity });
    expect(single.map(({ disposition }) => disposition)).toEqual(['cold-start', 'cold-start', 'answered']);
    const scored = (...best: number[]) => best.map((row) => ({ entity: `movie:${row}`, score: popular(row) }));
    expect(single[0]!.candidates).toEqual(scored(9, 6, 5));
    expect(single[1]!.candidates).toEqual(scored(20, 18, 17));
    const without = await answersTo(asked, { heads: RETRIEVAL });
    expect(single[2]!.candidates).toEqual(without[2]!.candidates);

    const two = await answersTo(asked, { heads: BOTH, popularity, retrieve: 4 });
    const byScore = [20, 18, 17, 16].sort((a, b) => judgement(segmentOf(catalogue), b) - judgement(segmentOf(catalogue), a));
    expect(names(two[1]!)).toEqual(movies(...byScore.slice(0, 3)));
    expect(two[1]).toMatchObject({ disposition: 'cold-start', tasks: { like: expect.anything() } });
    expect(names(two[0]!)).toEqual(names((await answersTo([listed]))[0]!));
  });

  it('answers an empty list with nothing, asking nobody', async () => {
    for (const heads of [BOTH, RETRIEVAL, RANKING]) {
      const { calls, encoder } = fakeModel();
      const [none] = await answersTo([askedOf('ann', [1], { entities: [] })], { encoder, heads });
      expect(none).toMatchObject({ disposition: 'answered', candidates: [] });
      expect(calls).toEqual([]);
    }
  });

  it('does not score what is past its deadline by now', async () => {
    const { calls, encoder } = fakeModel();
    const entities = movies(1, 2);
    const asked = [
      askedOf('ann', [1], { entities, deadlineMs: 4_999 }),
      askedOf('ann', [1], { entities, deadlineMs: 5_000 }),
      { ...askedOf('ann', [1], { entities }), expired: true },
    ];
    const answers = await answersTo(asked, { encoder });
    expect(answers.map(({ disposition, candidates }) => [disposition, candidates.length])).toEqual([
      ['expired', 0],
      ['answered', 2],
      ['expired', 0],
    ]);
    expect(answers.map((one) => one.asked)).toEqual(asked);
    expect(calls).toEqual([2]);
  });

  it('cuts long lists and joins short ones, at most maxCandidates a call', async () => {
    const { calls, encoder } = fakeModel();
    await answersTo(
      [askedOf('a', [1], { entities: movies(1, 2, 3, 4, 5, 6, 7) }), askedOf('b', [1], { entities: movies(1, 2) })],
      {
        encoder,
        maxCandidates: 3,
      },
    );
    expect(calls).toEqual([3, 3, 3]);
  });

  it('gives the same answers however lists are cut, in whatever order candidates are named', async () => {
    const list = fc.uniqueArray(fc.integer({ min: 1, max: VOCABULARY_SIZE }), { maxLength: 15 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ user: fc.constantFrom('a', 'b', 'new'), rows: list, topK: fc.option(fc.integer({ min: 1, max: 6 })) }),
          {
            maxLength: 6,
          },
        ),
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom(BOTH, RETRIEVAL, RANKING),
        async (drawn, maxCandidates, heads) => {
          const asked = (order: (rows: number[]) => number[]) =>
            drawn.map(({ user, rows, topK }) =>
              askedOf(user, user === 'new' ? [] : [user.charCodeAt(0), 3], {
                entities: movies(...order(rows)),
                ...(topK !== null && { topK }),
              }),
            );
          const view = (answers: readonly RequestAnswer[]) => answers.map(({ candidates, tasks }) => ({ candidates, tasks }));
          const whole = await answersTo(
            asked((rows) => rows),
            { heads },
          );
          expect(
            view(
              await answersTo(
                asked((rows) => rows),
                { heads, maxCandidates },
              ),
            ),
          ).toEqual(view(whole));
          // Equal scores are in the order of the request.
          if (heads.ranking)
            expect(
              view(
                await answersTo(
                  asked((rows) => rows.toReversed()),
                  { heads, maxCandidates },
                ),
              ),
            ).toEqual(view(whole));
          for (const [i, { candidates }] of whole.entries())
            expect(candidates.length).toBe(
              drawn[i]!.rows.length === 0 ? (drawn[i]!.topK ?? 0) : Math.min(drawn[i]!.rows.length, drawn[i]!.topK ?? 99),
            );
        },
      ),
    );
  });

  it('holds up the partition that asks, and no other, and makes again a call whose worker crashed', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const asked = unitOf([askedOf('ann', [1], { entities: movies(1, 2) })]);
      const [after, elsewhere] = [unitOf(undefined, 0, 5), unitOf(undefined, 1)];
      const answers = [new PipelineError('WORKER_CRASHED', 'died'), undefined];
      let call = 0;
      const scoreCandidates = (requests: readonly CandidateRequest[]) => {
        const failure = answers[call++];
        return virtualPromise(scheduler, 2, () => {
          if (failure !== undefined) throw failure;
          return requests.map(judge);
        });
      };
      const encoder = { ...fakeModel().encoder, scoreCandidates };
      // Two ms until the crash, ten of waiting, two for the call made again.
      const source$ = cold('  a-(bc)-d-----------|', { a: [asked], b: [after], c: [elsewhere], d: [after, elsewhere] });
      const subscribed = '    ^------------------!';
      const expected = '      --c----d------e----|';
      const done = {
        ...asked,
        answers: [
          {
            asked: asked.batch.requests![0]!,
            disposition: 'answered',
            ...(() => {
              const { combined, tasks } = judge({ ...segmentOf(asked.batch.requests![0]!), candidates: Int32Array.of(1, 2) });
              const order = combined[0]! >= combined[1]! ? [0, 1] : [1, 0];
              return {
                candidates: order.map((i) => ({ entity: `movie:${i + 1}`, score: combined[i]! })),
                tasks: Object.fromEntries(
                  Object.entries(tasks).map(([task, values]) => [task, Float32Array.from(order, (i) => values[i]!)]),
                ),
              };
            })(),
          },
        ],
      };
      const operator = answer({ ...optionsOf({ encoder }), retryDelayMs: 10, scheduler });
      expectObservable(source$.pipe(operator)).toBe(expected, { c: [elsewhere], d: [elsewhere], e: [done, after, after] });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('answers several batches at once, each partition in order', async () => {
    const gates = new Map<string, () => void>();
    const encoder = {
      ...fakeModel().encoder,
      scoreCandidates: (requests: readonly CandidateRequest[]) =>
        new Promise<ReturnType<typeof judge>[]>((resolve) => gates.set(requests[0]!.userId, () => resolve(requests.map(judge)))),
    };
    const out: string[] = [];
    const source$ = new Subject<ScoredUnit[]>();
    source$
      .pipe(answer(optionsOf({ encoder, maxInFlight: 2 })))
      .subscribe((units) => out.push(units.map(({ batch }) => batch.requests![0]!.request.userId).join('+')));
    for (const [user, partition] of [
      ['a', 0],
      ['b', 0],
      ['c', 1],
      ['d', 1],
    ] as const)
      source$.next([unitOf([askedOf(user, [1], { entities: movies(1) })], partition)]);
    const settle = async (user: string) => {
      gates.get(user)!();
      for (let i = 0; i < 20; i++) await Promise.resolve();
    };
    expect([...gates.keys()]).toEqual(['a', 'b']);
    await settle('b');
    expect([...gates.keys()]).toEqual(['a', 'b', 'c']);
    await settle('c');
    await settle('a');
    await settle('d');
    expect(out).toEqual(['c', 'a+b', 'd']);
  });

  it('asks before what can wait, by partition, until the last deadline; what that passed is expired', async () => {
    const told: (CallTerms | undefined)[] = [];
    const late = new PipelineError('DEADLINE_PASSED', 'too late');
    const encoder = {
      ...fakeModel().encoder,
      scoreCandidates: (requests: readonly CandidateRequest[], terms?: CallTerms) => {
        told.push(terms);
        return requests[0]!.userId === 'late' ? Promise.reject(late) : Promise.resolve(requests.map(judge));
      },
    };
    const of = (user: string, deadlineMs?: number) =>
      askedOf(user, [1], { entities: movies(1), ...(deadlineMs !== undefined && { deadlineMs }) });
    const batches = [
      [of('late', 7_000), of('later', 9_000)],
      [of('a', 7_000), of('b')],
    ];
    const out = await run([batches.map((asked, partition) => unitOf(asked, partition))], { encoder });
    const answers = out.flat().map((unit) => unit.answers!.map(({ disposition }) => disposition));
    expect(answers).toEqual(
      expect.arrayContaining([
        ['expired', 'expired'],
        ['answered', 'answered'],
      ]),
    );
    expect(told).toEqual([
      { workClass: 'request', key: 0, deadlineMs: 9_000 },
      { workClass: 'request', key: 1, deadlineMs: Number.POSITIVE_INFINITY },
    ]);
  });

  it('fails where the results are not those of the requests, and for bounds out of range', async () => {
    const encoder = { ...fakeModel().encoder, scoreCandidates: async () => [] };
    await expect(answersTo([askedOf('a', [1], { entities: movies(1) })], { encoder })).rejects.toMatchObject({
      code: 'ENCODER_FAILED',
    });
    for (const bound of [{ maxInFlight: 0 }, { maxCandidates: 0 }, { retrieve: 0.5 }])
      expect(() => answer(optionsOf(bound))).toThrow(Object.keys(bound)[0]!);
  });
});
