import fc from 'fast-check';
import { from, lastValueFrom, of, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { type RankOptions, rank } from '../../operators/rank.ts';
import { sequence } from '../../operators/sequence.ts';
import type { ScoredUnit, SequencedBatch } from '../../schemas/batch.ts';
import type { CandidateRequest } from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { decodedBatch, type EventSpec, event, fakeResult, marbles, tokenizer, virtualPromise } from './fixtures.ts';
import { fakeModel, judge, judgement, unitOf } from './request-fixtures.ts';
import { eventsArbitrary } from './sequence-arbitraries.ts';

/** Units of these events, each publication with `retrieved` entities. */
function unitsOf(
  events: readonly EventSpec[],
  retrieved: readonly number[],
  publish: 'every-batch' | 'every-event' = 'every-batch',
) {
  let batch: SequencedBatch | undefined;
  of(decodedBatch(0, events))
    .pipe(sequence({ tokenizer, window: { maxLength: 9, blockLength: 3 }, publish }))
    .subscribe((sequenced) => {
      batch = sequenced;
    });
  if (batch!.updates.length === 0) return [{ batch: batch!, update: null }];
  return batch!.updates.map((update): ScoredUnit => {
    const published = new Set(update.publish.map(({ segment }) => segment));
    const scores = update.request.segments.map(({ entities, from: first }, k) => ({
      ranks: new Int32Array(entities.length - first).fill(k + 1),
      topEntities: Int32Array.from(published.has(k) ? retrieved : []),
      topScores: Float32Array.from(published.has(k) ? retrieved : [], (row) => 1 / row),
    }));
    return { batch: batch!, update: { update, segments: fakeResult(update.request).segments, scores } };
  });
}
const run = (inputs: readonly (readonly ScoredUnit[])[], options: Partial<RankOptions> = {}) =>
  lastValueFrom(from(inputs).pipe(rank({ scorer: fakeModel().encoder, topK: 3, ...options }), toArray()));
const history = [event('a', 'e0', 1000, 1), event('a', 'e1', 5000, 2), event('a', 'late', 3000, 9), event('b', 'e3', 1500, 5)];

describe('rank', () => {
  operatorContract('rank', {
    create: (scheduler) => rank({ scorer: fakeModel().encoder, topK: 2, scheduler }),
    inputs: () => [unitsOf(history, [4, 5, 6]), unitsOf([], []), unitsOf(history.slice(0, 1), [7])],
    view: (units: readonly ScoredUnit[]) => units.map(({ update }) => update?.scores),
  });

  it('puts what was retrieved in the order of the combined score, keeps the best, and tells every task', async () => {
    const input = unitsOf(history, [4, 5, 6, 7, 8]);
    const [output] = await run([input]);
    for (const [u, { update }] of output!.entries()) {
      const { update: plain, scores } = update!;
      const last = plain.publish.at(-1)!.segment;
      const about = { userId: plain.userId, segment: plain.request.segments[last]! };
      const best = [4, 5, 6, 7, 8].sort((a, b) => judgement(about, b) - judgement(about, a)).slice(0, 3);
      expect(scores[last]).toEqual({
        ranks: input[u]!.update!.scores[last]!.ranks,
        topEntities: Int32Array.from(best),
        topScores: Float32Array.from(best, (row) => judgement(about, row)),
        tasks: {
          like: Float32Array.from(best, (row) => judgement(about, row, 1)),
          buy: Float32Array.from(best, (row) => judgement(about, row, 2)),
        },
      });
      expect(scores.slice(0, last)).toEqual(input[u]!.update!.scores.slice(0, last));
      expect(update!.segments).toBe(input[u]!.update!.segments);
    }
  });

  it('asks nobody where nothing was retrieved, and lets requests and empty batches by', async () => {
    const { calls, encoder } = fakeModel();
    const units = [...unitsOf(history, []), ...unitsOf([], []), unitOf([])];
    expect(await run([units], { scorer: encoder })).toEqual([units]);
    expect(calls).toEqual([]);
  });

  it('gives the same however its calls are cut, for any history', async () => {
    await fc.assert(
      fc.asyncProperty(
        eventsArbitrary(3, 40),
        fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { maxLength: 9 }),
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom('every-batch' as const, 'every-event' as const),
        async (events, retrieved, maxCandidates, publish) => {
          const { calls, encoder } = fakeModel();
          const whole = await run([unitsOf(events, retrieved, publish)], { maxCandidates: 10_000 });
          const cut = await run([unitsOf(events, retrieved, publish)], { scorer: encoder, maxCandidates });
          const view = (out: typeof whole) => out.map((units) => units.map(({ update }) => update?.scores));
          expect(view(cut)).toEqual(view(whole));
          expect(calls.every((candidates) => candidates <= maxCandidates)).toBe(true);
        },
      ),
    );
  });

  it('lets results out in order, several at once, and makes again a call whose worker crashed', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const inputs = { a: unitsOf(history.slice(0, 1), [4]), b: unitsOf(history.slice(3), [5]) };
      const answers = [new PipelineError('WORKER_CRASHED', 'died'), undefined, undefined];
      let call = 0;
      const scoreCandidates = (requests: readonly CandidateRequest[]) => {
        const failure = answers[call++];
        return virtualPromise(scheduler, 2, () => {
          if (failure !== undefined) throw failure;
          return requests.map(judge);
        });
      };
      const withTasks = (units: readonly ScoredUnit[], row: number) =>
        units.map((unit) => {
          const { update } = unit.update!;
          const result = judge({ userId: update.userId, segment: update.request.segments[0]!, candidates: Int32Array.of(row) });
          const scores = [{ ...unit.update!.scores[0]!, topScores: result.combined, tasks: result.tasks }];
          return { ...unit, update: { ...unit.update!, scores } };
        });
      // Two ms until the crash, ten of waiting, two for the call made again.
      const source$ = cold('  ab----------------|', inputs);
      const subscribed = '    ^-----------------!';
      const expected = '      --------------(ab)|';
      const operator = rank({ scorer: { scoreCandidates }, retryDelayMs: 10, scheduler });
      expectObservable(source$.pipe(operator)).toBe(expected, { a: withTasks(inputs.a, 4), b: withTasks(inputs.b, 5) });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('refuses bounds out of range', () => {
    for (const bound of [{ topK: -1 }, { maxInFlight: 0 }, { maxCandidates: 1.5 }])
      expect(() => rank({ scorer: fakeModel().encoder, ...bound })).toThrow(Object.keys(bound)[0]!);
  });
});
