import { defer, from, mergeMap, type Observable, of, throwError } from 'rxjs';
import type { TestScheduler } from 'rxjs/testing';
import { describe, expect, it, vi } from 'vitest';
import { encode, gather, microBatch, orderedCommit, publish, spread } from '../../operators/index.ts';
import { mapInOrder } from '../../operators/map-in-order.ts';
import type { EncodedUnit, OutputBatch, ScoredUnit, SequencedBatch, SourceBatch, UpdateUnit } from '../../schemas/batch.ts';
import { type PipelineObserver, stepTimer } from '../../streams/instrument.ts';
import { fakeResult, marbles, outputBatch, sequencedBatch, virtualPromise } from '../operators/fixtures.ts';

/** What was told, as `id seconds events offsets`, at which time. */
function recorder(scheduler: TestScheduler) {
  const told: string[] = [];
  const observer: PipelineObserver = {
    step: (id, seconds, events, batches) =>
      told.push(`${scheduler.now()}: ${id} ${seconds} ${events} of ${batches.map(({ nextOffset }) => nextOffset).join('+')}`),
    failed: (id, error) => told.push(`${scheduler.now()}: ${id} failed: ${String(error)}`),
  };
  return { told, timed: stepTimer(observer, () => scheduler.now()) };
}

const a = sequencedBatch(1, ['ann', 'bob']);
const b = sequencedBatch(2, ['cyd'], 1);
const nothing = sequencedBatch(3, []);

describe('stepTimer', () => {
  it('times a micro-batch from its first user, an encode from its start, a gather until the batch is whole', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const { told, timed } = recorder(scheduler);
      const encoder = {
        encode: (all: Parameters<typeof fakeResult>[0][]) => virtualPromise(scheduler, 7, () => all.map(fakeResult)),
      };
      const out$ = cold('a-b|', { a, b }).pipe(
        spread(),
        timed('microBatch', 'user', microBatch<UpdateUnit>({ maxRows: 4, maxDelayMs: 5, scheduler })),
        timed('encode', 'user', encode({ encoder: encoder as never })),
        mergeMap((units) => from(units.map((unit) => [unit as EncodedUnit & ScoredUnit]))),
        timed('gather', 'batch', gather()),
      );
      // The source completes at 3, which flushes the micro-batch; encoding takes 7.
      expectObservable(out$.pipe(mergeMap(({ batch }) => of(batch.source.nextOffset)))).toBe('10ms (xy|)', { x: 1, y: 2 });
      flush();
      expect(told).toEqual([
        '3: microBatch 0.003 3 of 1+2',
        '10: encode 0.007 3 of 1+2',
        '10: gather 0 0 of 1',
        '10: gather 0 0 of 2',
      ]);
    });
  });

  it('times a batch that comes in parts from the first of them', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const { told, timed } = recorder(scheduler);
      const [ann, bob] = a.updates.map((update): ScoredUnit[] => [{ batch: a, update: { update, segments: [], scores: [] } }]);
      const out$ = cold('-x---y', { x: ann!, y: bob! }).pipe(timed('gather', 'batch', gather()));
      expectObservable(out$.pipe(mergeMap(({ updates }) => of(updates.length)))).toBe('-----n', { n: 2 });
      flush();
      expect(told).toEqual(['5: gather 0.004 0 of 1']);
    });
  });

  it('times what waits for its turn with its wait, and batches that overtake each other by themselves', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const { told, timed } = recorder(scheduler);
      const [x, y] = [outputBatch(1, 0), outputBatch(2, 1)];
      const slowFirst = (batch: OutputBatch) => virtualPromise(scheduler, batch === x ? 9 : 1, () => undefined);
      const out$ = cold('xy', { x, y }).pipe(
        timed('publish', 'batch', publish({ publisher: { publish: slowFirst } })),
        timed('commit', 'batch', orderedCommit({ committer: { commit: slowFirst } })),
      );
      expectObservable(out$).toBe('10ms y 7ms x', { x, y });
      flush();
      expect(told).toEqual([
        '9: publish 0.009 0 of 1',
        '9: publish 0.008 0 of 2',
        '10: commit 0.001 0 of 2',
        '18: commit 0.009 0 of 1',
      ]);
    });
  });

  it('tells of a batch without users, and of a batch that passes a second time', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const { told, timed } = recorder(scheduler);
      const later = mapInOrder((batch: SequencedBatch) => defer(() => virtualPromise(scheduler, 2, () => batch)), 4);
      const out$ = cold('n---n', { n: nothing }).pipe(timed('sequence', 'batch', later), mergeMap(spread0));
      expectObservable(out$.pipe(timed('microBatch', 'user', microBatch<UpdateUnit>({ maxRows: 1, scheduler })))).toBe(
        '--u---u',
        {
          u: [{ batch: nothing, update: null }],
        },
      );
      flush();
      expect(told).toEqual([
        '2: sequence 0.002 0 of 3',
        '2: microBatch 0 1 of 3',
        '6: sequence 0.002 0 of 3',
        '6: microBatch 0 1 of 3',
      ]);
    });
  });

  it('names the step that failed, once, and forwards the error', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const { told, timed } = recorder(scheduler);
      const fail = mapInOrder((_: SequencedBatch) => throwError((): unknown => 'broken') as Observable<SequencedBatch>, 1);
      const pass = mapInOrder((batch: SequencedBatch) => of(batch), 1);
      const out$ = cold('-a', { a }).pipe(
        timed('one', 'batch', pass),
        timed('two', 'batch', fail),
        timed('three', 'batch', pass),
      );
      expectObservable(out$).toBe('-#', {}, 'broken');
      flush();
      expect(told).toEqual(['1: one 0 0 of 1', '1: two failed: broken']);
    });
  });

  it('wraps nothing without an observer, and shares nothing between subscriptions', () => {
    const operator = mapInOrder((batch: SourceBatch) => of(batch), 1);
    expect(stepTimer(undefined)('decode', 'batch', operator)).toBe(operator);
    const step = vi.fn();
    const timed$ = of(a.source).pipe(stepTimer({ step })('decode', 'batch', operator));
    timed$.subscribe();
    timed$.subscribe();
    expect(step).toHaveBeenCalledTimes(2);
    expect(step.mock.calls[0]![1]).toBeGreaterThanOrEqual(0);
  });
});

const spread0 = (batch: SequencedBatch): UpdateUnit[] => [{ batch, update: null }];
