import fc from 'fast-check';
import { range, Subject, take, tap, VirtualTimeScheduler } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { microBatch } from '../../operators/micro-batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles } from './fixtures.ts';

describe('microBatch', () => {
  operatorContract('microBatch', {
    create: (scheduler) => microBatch<number>({ maxRows: 3, maxDelayMs: 5, scheduler }),
    inputs: () => [1, 2, 3, 4],
  });

  it('closes a batch when it is full', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const source$ = cold('  ab-cd--|');
      const subscribed = '    ^------!';
      const expected = '      -x--y--|';
      expectObservable(source$.pipe(microBatch({ maxRows: 2, maxDelayMs: 5, scheduler }))).toBe(expected, {
        x: ['a', 'b'],
        y: ['c', 'd'],
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('closes a batch when its first row has waited long enough, and never gives an empty one', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const source$ = cold('  -a-b------------c------|');
      const subscribed = '    ^----------------------!';
      const expected = '      ------x--------------y-|';
      //                       .....           .....
      expectObservable(source$.pipe(microBatch({ maxRows: 9, maxDelayMs: 5, scheduler }))).toBe(expected, {
        x: ['a', 'b'],
        y: ['c'],
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('starts the timer anew after a full batch: the old one does not cut the next batch short', () => {
    marbles((scheduler, { cold, expectObservable }) => {
      const source$ = cold('  abc------|');
      const expected = '      -x-----y-|';
      //                        .....
      expectObservable(source$.pipe(microBatch({ maxRows: 2, maxDelayMs: 5, scheduler }))).toBe(expected, {
        x: ['a', 'b'],
        y: ['c'],
      });
    });
  });

  it('flushes the open batch on completion and drops it on error', () => {
    marbles((scheduler, { cold, expectObservable }) => {
      const batched = microBatch<string>({ maxRows: 9, maxDelayMs: 5, scheduler });
      expectObservable(cold('-ab|').pipe(batched)).toBe('---(x|)', { x: ['a', 'b'] });
      expectObservable(cold('-ab#').pipe(batched)).toBe('---#');
    });
  });

  it('waits no longer than the first row may, and waits 5 ms where nothing is said', () => {
    marbles((scheduler, { cold, expectObservable }) => {
      expectObservable(cold('abc-d---|').pipe(microBatch({ maxRows: 9, maxDelayMs: 3, scheduler }))).toBe('---x---y|', {
        x: ['a', 'b', 'c'],
        y: ['d'],
      });
      expectObservable(cold('a------|').pipe(microBatch({ maxRows: 9, scheduler }))).toBe('-----x-|', { x: ['a'] });
    });
  });

  it('loses no row, repeats none, keeps their order and both bounds, for any arrivals', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(8), { maxLength: 60 }),
        fc.integer({ min: 1, max: 7 }),
        fc.nat(6),
        (gaps, maxRows, maxDelayMs) => {
          const scheduler = new VirtualTimeScheduler();
          const rows$ = new Subject<{ id: number; at: number }>();
          const out: { id: number; at: number }[] = [];
          rows$.pipe(microBatch({ maxRows, maxDelayMs, scheduler })).subscribe((batch) => {
            expect(batch.length).toBeGreaterThan(0);
            expect(batch.length).toBeLessThanOrEqual(maxRows);
            for (const { at } of batch) expect(scheduler.now() - at).toBeLessThanOrEqual(maxDelayMs);
            // Full, or its first row had waited its time.
            if (batch.length < maxRows && !rows$.closed && !ended) expect(scheduler.now() - batch[0]!.at).toBe(maxDelayMs);
            out.push(...batch);
          });
          let at = 0;
          let ended = false;
          gaps.forEach((gap, id) => {
            at += gap;
            const arrival = at;
            scheduler.schedule(() => rows$.next({ id, at: arrival }), arrival);
          });
          scheduler.schedule(() => {
            ended = true;
            rows$.complete();
          }, at + 1);
          scheduler.flush();
          expect(out.map(({ id }) => id)).toEqual(gaps.map((_, id) => id));
        },
      ),
    );
  });

  it('may be fed from within its own output', () => {
    const rows$ = new Subject<number>();
    const out: number[][] = [];
    rows$.pipe(microBatch({ maxRows: 2, scheduler: new VirtualTimeScheduler() })).subscribe((batch) => {
      out.push(batch);
      if (batch[0]! < 3) rows$.next(batch[0]! + 2);
    });
    rows$.next(1);
    rows$.next(2);
    rows$.next(4);
    rows$.complete();
    expect(out).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  it('stops a source that emits while it is being subscribed to', () => {
    let read = 0;
    const out: number[][] = [];
    range(0, 100)
      .pipe(
        tap(() => read++),
        microBatch({ maxRows: 4 }),
        take(2),
      )
      .subscribe((batch) => void out.push(batch));
    expect(out.flat()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(read).toBe(8);
  });

  it('without a delay lets go what has come as soon as it is its turn, with no timer', async () => {
    const rows$ = new Subject<number>();
    const out: number[][] = [];
    rows$.pipe(microBatch({ maxRows: 4, maxDelayMs: 0 })).subscribe((batch) => out.push(batch));
    for (const row of [1, 2]) rows$.next(row);
    expect(out).toEqual([]);
    await Promise.resolve();
    expect(out).toEqual([[1, 2]]);
    rows$.next(3);
    await Promise.resolve();
    expect(out).toEqual([[1, 2], [3]]);
  });

  it.each([{ maxRows: 0 }, { maxRows: 1.5 }, { maxRows: 1, maxDelayMs: -1 }, { maxRows: 1, maxDelayMs: Number.NaN }])(
    'refuses %j when called',
    (options) => {
      expect(() => microBatch(options)).toThrowError(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    },
  );
});
