import fc from 'fast-check';
import { Subject, VirtualTimeScheduler } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { type Publisher, publish } from '../../operators/publish.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles, outputBatch, virtualPromise } from './fixtures.ts';

describe('publish', () => {
  operatorContract('publish', {
    create: () => publish({ publisher: { publish: async () => {} }, maxInFlight: 2 }),
    inputs: () => [outputBatch(0), outputBatch(2), outputBatch(4)],
    view: ({ source }: OutputBatch) => source.nextOffset,
  });

  const batches = { a: outputBatch(0), b: outputBatch(1), c: outputBatch(2) };

  it('publishes several at once and lets each on after all before it', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions, flush }) => {
      const delays = new Map([
        [batches.a, 4],
        [batches.b, 1],
        [batches.c, 6],
      ]);
      const started: [OutputBatch, number][] = [];
      const publisher: Publisher = {
        publish: (batch) => {
          started.push([batch, scheduler.now()]);
          return virtualPromise(scheduler, delays.get(batch)!, () => {});
        },
      };
      const source$ = cold('  abc---------|', batches);
      const subscribed = '    ^-----------!';
      const expected = '      ----(ab)c---|';
      expectObservable(source$.pipe(publish({ publisher, maxInFlight: 2 }))).toBe(expected, batches);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
      flush();
      expect(started).toEqual([
        [batches.a, 0],
        [batches.b, 1],
        [batches.c, 2],
      ]);
    });
  });

  it('lets nothing on behind a batch that failed', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const failure = new PipelineError('STORE_FAILED', 'disk full');
      const publisher: Publisher = {
        publish: (batch) =>
          virtualPromise(scheduler, batch === batches.b ? 3 : 1, () => {
            if (batch === batches.b) throw failure;
          }),
      };
      const source$ = cold('  abc-----|', batches);
      const subscribed = '    ^---!';
      const expected = '      -a--#';
      expectObservable(source$.pipe(publish({ publisher }))).toBe(expected, batches, failure);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('keeps order and bound, and lets on only what is published, for any durations', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { maxLength: 30 }), fc.integer({ min: 1, max: 4 }), (delays, maxInFlight) => {
        const scheduler = new VirtualTimeScheduler();
        const inputs = delays.map((_, i) => outputBatch(i));
        const done = new Set<OutputBatch>();
        let running = 0;
        const publisher: Publisher = {
          publish: (batch) => {
            expect(++running).toBeLessThanOrEqual(maxInFlight);
            return virtualPromise(scheduler, delays[inputs.indexOf(batch)]!, () => {
              running--;
              done.add(batch);
            });
          },
        };
        const source$ = new Subject<OutputBatch>();
        const out: OutputBatch[] = [];
        source$.pipe(publish({ publisher, maxInFlight })).subscribe((batch) => {
          expect(done.has(batch)).toBe(true);
          out.push(batch);
        });
        for (const batch of inputs) source$.next(batch);
        scheduler.flush();
        expect(out.length).toBe(inputs.length);
        expect(out.every((batch, i) => batch === inputs[i])).toBe(true);
      }),
    );
  });

  it('refuses a bound that is none when called', () => {
    expect(() => publish({ publisher: { publish: async () => {} }, maxInFlight: 0 })).toThrowError(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });
});
