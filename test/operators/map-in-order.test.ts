import fc from 'fast-check';
import { EMPTY, map, type NEVER, of, Subject, timer, VirtualTimeScheduler } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { mapInOrder } from '../../operators/map-in-order.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles } from './fixtures.ts';

describe('mapInOrder', () => {
  operatorContract('mapInOrder', { create: () => mapInOrder((n: number) => Promise.resolve(n + 1), 2), inputs: () => [1, 2, 3] });

  it('holds a result back until those before it have left', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const inner: Record<string, ReturnType<typeof cold>> = { a: cold('-----a|'), b: cold('-b|'), c: cold('--c|') };
      const source$ = cold('  abc--------|');
      const subscribed = '    ^----------!';
      const a = '             ^----!';
      const b = '             -^!';
      const c = '             --^-!';
      const expected = '      -----(abc)-|';
      expectObservable(source$.pipe(mapInOrder((value) => inner[value]!, 3))).toBe(expected);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
      expectSubscriptions(inner['a']!.subscriptions).toBe(a);
      expectSubscriptions(inner['b']!.subscriptions).toBe(b);
      expectSubscriptions(inner['c']!.subscriptions).toBe(c);
    });
  });

  it('starts no more than the bound at once', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const inner: Record<string, ReturnType<typeof cold>> = { a: cold('---a|'), b: cold('-----b|'), c: cold('-c|') };
      const source$ = cold('  abc|');
      const a = '             ^--!';
      const b = '             -^----!';
      const c = '             ---^!';
      const expected = '      ---a--(bc|)';
      expectObservable(source$.pipe(mapInOrder((value) => inner[value]!, 2))).toBe(expected);
      expectSubscriptions(inner['a']!.subscriptions).toBe(a);
      expectSubscriptions(inner['b']!.subscriptions).toBe(b);
      expectSubscriptions(inner['c']!.subscriptions).toBe(c);
    });
  });

  it('passes an error of any projection at once and abandons the others', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const inner: Record<string, ReturnType<typeof cold>> = { a: cold('------a|'), b: cold('--#') };
      const source$ = cold('  ab----|');
      const subscribed = '    ^--!';
      const expected = '      ---#';
      expectObservable(source$.pipe(mapInOrder((value) => inner[value]!, 2))).toBe(expected);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
      expectSubscriptions(inner['a']!.subscriptions).toBe('^--!');
    });
  });

  it('abandons its projections when it is unsubscribed', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const inner$ = cold('   --------a|');
      const source$ = cold('  a---------|');
      const subscribed = '    ^----!';
      expectObservable(source$.pipe(mapInOrder(() => inner$, 1)), subscribed).toBe('');
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
      expectSubscriptions(inner$.subscriptions).toBe(subscribed);
    });
  });

  it('is an error of a projection that gives nothing, or that throws; undefined is a result', () => {
    const errors: unknown[] = [];
    of(1)
      .pipe(mapInOrder(() => EMPTY, 1))
      .subscribe({ error: (error) => errors.push(error) });
    of(1)
      .pipe(
        mapInOrder((): typeof NEVER => {
          throw 'thrown';
        }, 1),
      )
      .subscribe({ error: (error) => errors.push(error) });
    expect(errors).toEqual([expect.objectContaining({ name: 'EmptyError' }), 'thrown']);
    const out: unknown[] = [];
    of(1, 2)
      .pipe(mapInOrder(() => of(undefined), 1))
      .subscribe((value) => out.push(value));
    expect(out).toEqual([undefined, undefined]);
  });

  it('keeps order and bound for any arrivals and durations, starting in order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(5), fc.nat(12)), { maxLength: 40 }),
        fc.integer({ min: 1, max: 5 }),
        (jobs, maxInFlight) => {
          const scheduler = new VirtualTimeScheduler();
          const source$ = new Subject<number>();
          const started: number[] = [];
          const out: number[] = [];
          let running = 0;
          let most = 0;
          let completed = false;
          const work = (id: number) => {
            started.push(id);
            most = Math.max(most, ++running);
            return timer(jobs[id]![1], scheduler).pipe(
              map(() => {
                running--;
                return id;
              }),
            );
          };
          source$
            .pipe(mapInOrder(work, maxInFlight))
            .subscribe({ next: (id) => out.push(id), complete: () => (completed = true) });
          let at = 0;
          jobs.forEach(([gap], id) => {
            at += gap;
            scheduler.schedule(() => source$.next(id), at);
          });
          scheduler.schedule(() => source$.complete(), at);
          scheduler.flush();
          const ids = jobs.map((_, id) => id);
          expect(started).toEqual(ids);
          expect(out).toEqual(ids);
          expect(most).toBeLessThanOrEqual(maxInFlight);
          expect(completed).toBe(true);
        },
      ),
    );
  });
});
