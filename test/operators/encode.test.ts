import fc from 'fast-check';
import { from, lastValueFrom, Subject, toArray, VirtualTimeScheduler } from 'rxjs';
import type { TestScheduler } from 'rxjs/testing';
import { describe, expect, it } from 'vitest';
import { type Encoder, encode } from '../../operators/encode.ts';
import type { EncodedUnit, UpdateUnit } from '../../schemas/batch.ts';
import type { EncodeRequest, EncodeResult } from '../../schemas/encoding.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { fakeResult, marbles, sequencedBatch, updateOf, virtualPromise } from './fixtures.ts';

const unit = (userId: string | null, entity = 1): UpdateUnit => {
  const batch = sequencedBatch(0, []);
  return { batch, update: userId === null ? null : updateOf(userId, entity) };
};
const encoded = ({ batch, update }: UpdateUnit): EncodedUnit => ({
  batch,
  update: update === null ? null : { update, segments: fakeResult(update.request).segments },
});
const instant: Encoder = { encode: async (requests) => requests.map(fakeResult) };

/** Answers the n-th call after `delays[n]` ms, or fails it with an error; remembers whom it was asked about. */
const virtualEncoder = (scheduler: TestScheduler | VirtualTimeScheduler, answers: readonly (number | Error)[]) => {
  const calls: string[] = [];
  const encode = (requests: readonly EncodeRequest[]): Promise<readonly EncodeResult[]> => {
    const answer = answers[calls.length];
    calls.push(requests.map(({ userId }) => userId).join('+'));
    return virtualPromise(scheduler, typeof answer === 'number' ? answer : 1, () => {
      if (answer instanceof Error) throw answer;
      return requests.map(fakeResult);
    });
  };
  return { calls, encode };
};

describe('encode', () => {
  operatorContract('encode', {
    create: (scheduler) => encode({ encoder: instant, maxInFlight: 2, scheduler }),
    inputs: () => [[unit('a'), unit(null)], [unit(null)], [unit('b', 7)], [unit('a', 2)]],
    view: (units: readonly EncodedUnit[]) => units.map(({ update }) => update?.segments),
  });

  it('has several calls under way and lets the results out in order', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: [unit('a')], b: [unit('b'), unit('c')], c: [unit('d')] };
      const encoder = virtualEncoder(scheduler, [5, 1, 1]);
      const source$ = cold('  abc--------|', batches);
      const subscribed = '    ^----------!';
      const expected = '      -----(abc)-|';
      // The first call ends at 5, the second at 2; the third begins at 2, when a place is free, and ends at 3.
      expectObservable(source$.pipe(encode({ encoder, maxInFlight: 2, scheduler }))).toBe(expected, {
        a: batches.a.map(encoded),
        b: batches.b.map(encoded),
        c: batches.c.map(encoded),
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('asks nothing of the encoder for units without an update, and keeps their place', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const batches = { a: [unit(null), unit('a'), unit(null)], n: [unit(null)] };
      const encoder = virtualEncoder(scheduler, [3]);
      const source$ = cold('  an------|', batches);
      const expected = '      ---(an)-|';
      expectObservable(source$.pipe(encode({ encoder, scheduler }))).toBe(expected, {
        a: batches.a.map(encoded),
        n: batches.n.map(encoded),
      });
      flush();
      expect(encoder.calls).toEqual(['a']);
    });
  });

  it('makes a call again whose worker crashed, and those behind it wait', () => {
    marbles((scheduler, { cold, expectObservable, flush }) => {
      const batches = { a: [unit('a')], b: [unit('b')] };
      const crashed = new PipelineError('WORKER_CRASHED', 'worker 0 died');
      const encoder = virtualEncoder(scheduler, [crashed, 1, 1]);
      const source$ = cold('  ab-----------|', batches);
      const expected = '      ------(ab)---|';
      //                       .~~~~. fails at 1, waits 4, answers at 6
      expectObservable(source$.pipe(encode({ encoder, retryDelayMs: 4, scheduler }))).toBe(expected, {
        a: batches.a.map(encoded),
        b: batches.b.map(encoded),
      });
      flush();
      expect(encoder.calls).toEqual(['a', 'b', 'a']);
    });
  });

  it('gives up after maxRetries, and at once where trying again cannot help', () => {
    const crashed = new PipelineError('WORKER_CRASHED', 'worker 0 died');
    const failed = new PipelineError('ENCODER_FAILED', 'NaN');
    marbles((scheduler, { cold, expectObservable, expectSubscriptions, flush }) => {
      const dying = virtualEncoder(scheduler, [crashed, crashed, crashed, crashed]);
      const source$ = cold('  a--------|', { a: [unit('a')] });
      const subscribed = '    ^-----!';
      expectObservable(source$.pipe(encode({ encoder: dying, maxRetries: 2, retryDelayMs: 1, scheduler }))).toBe(
        '------#',
        undefined,
        crashed,
      );
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
      const failing = virtualEncoder(scheduler, [failed]);
      expectObservable(cold('a|', { a: [unit('a')] }).pipe(encode({ encoder: failing, scheduler }))).toBe(
        '-#',
        undefined,
        failed,
      );
      flush();
      expect([dying.calls.length, failing.calls.length]).toEqual([3, 1]);
    });
  });

  it.each<[string, (results: EncodeResult[]) => EncodeResult[]]>([
    ['too few', (results) => results.slice(1)],
    ['too many', (results) => [...results, results[0]!]],
    ["another user's", (results) => [...results].reverse()],
    ['short of a segment', ([first, ...rest]) => [{ ...first!, segments: [] }, ...rest]],
  ])('refuses results that are %s', async (_, spoil) => {
    const encoder: Encoder = { encode: async (requests) => spoil(requests.map(fakeResult)) };
    const out$ = from([[unit('a'), unit('b')]]).pipe(encode({ encoder }), toArray());
    await expect(lastValueFrom(out$)).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
  });

  it('takes an encoder that throws for one that fails', async () => {
    const failure = new Error('closed');
    const encoder: Encoder = {
      encode: () => {
        throw failure;
      },
    };
    await expect(lastValueFrom(from([[unit('a')]]).pipe(encode({ encoder })))).rejects.toBe(failure);
  });

  it('gives every unit its own result, in order, asking in order and within the bound, for any durations and crashes', () => {
    const call = fc.record({
      users: fc.array(fc.option(fc.constantFrom('a', 'b', 'c')), { minLength: 1, maxLength: 4 }),
      gapMs: fc.nat(4),
      tookMs: fc.nat(9),
      crashes: fc.nat(2),
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 20 }), fc.integer({ min: 1, max: 4 }), (calls, maxInFlight) => {
        const scheduler = new VirtualTimeScheduler();
        let entity = 0;
        const inputs = calls.map(({ users }) => users.map((user) => unit(user, ++entity)));
        const attempts = new Map<number, number>();
        const firstAsked: number[] = [];
        let running = 0;
        const encoder: Encoder = {
          encode: (requests) => {
            const index = inputs.findIndex((units) => units.some(({ update }) => update?.request === requests[0]));
            const attempt = (attempts.get(index) ?? 0) + 1;
            attempts.set(index, attempt);
            if (attempt === 1) firstAsked.push(index);
            expect(++running).toBeLessThanOrEqual(maxInFlight);
            return virtualPromise(scheduler, calls[index]!.tookMs, () => {
              running--;
              if (attempt <= calls[index]!.crashes) throw new PipelineError('WORKER_CRASHED', 'died');
              return requests.map(fakeResult);
            });
          },
        };
        const source$ = new Subject<UpdateUnit[]>();
        const out: (readonly EncodedUnit[])[] = [];
        source$.pipe(encode({ encoder, maxInFlight, scheduler })).subscribe((units) => void out.push(units));
        let at = 0;
        inputs.forEach((units, i) => {
          at += calls[i]!.gapMs;
          scheduler.schedule(() => source$.next(units), at);
        });
        scheduler.flush();
        expect(out).toEqual(inputs.map((units) => units.map(encoded)));
        expect(firstAsked).toEqual([...firstAsked].sort((a, b) => a - b));
      }),
    );
  });

  it('refuses bad options when called', () => {
    for (const options of [{ maxInFlight: 0 }, { maxRetries: -1 }, { retryDelayMs: -1 }])
      expect(() => encode({ encoder: instant, ...options })).toThrowError(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });
});
