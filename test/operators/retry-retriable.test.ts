import { describe, expect, it } from 'vitest';
import { retryRetriable } from '../../operators/retry-retriable.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles } from './fixtures.ts';

describe('retryRetriable', () => {
  operatorContract('retryRetriable', { create: (scheduler) => retryRetriable<number>({ scheduler }), inputs: () => [1, 2] });

  const crashed = new PipelineError('WORKER_CRASHED', 'worker 0 died');

  it('tries again after a wait that doubles, then passes the error', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const source$ = cold('  -#', undefined, crashed);
      const subscribed = ['   ^!', '---^!', '--------^!'];
      const expected = '      ---------#';
      //                        ..  ....
      expectObservable(source$.pipe(retryRetriable({ maxRetries: 2, retryDelayMs: 2, scheduler }))).toBe(
        expected,
        undefined,
        crashed,
      );
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('passes an error that trying again cannot help, at once', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      for (const error of [
        new PipelineError('ENCODER_FAILED', 'no'),
        new Error('unknown'),
        { code: 'WORKER_CRASHED', retriable: true },
      ]) {
        const source$ = cold('-#', undefined, error);
        expectObservable(source$.pipe(retryRetriable({ scheduler }))).toBe('-#', undefined, error);
        expectSubscriptions(source$.subscriptions).toBe('^!');
      }
    });
  });

  it('tries 3 times after 100, 200 and 400 ms where nothing is said, and not at all where 0 is', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const source$ = cold('#', undefined, crashed);
      expectObservable(source$.pipe(retryRetriable({ scheduler }))).toBe('700ms #', undefined, crashed);
      expectSubscriptions(source$.subscriptions).toBe(['(^!)', '100ms (^!)', '300ms (^!)', '700ms (^!)']);
      expectObservable(cold('#', undefined, crashed).pipe(retryRetriable({ maxRetries: 0, scheduler }))).toBe(
        '#',
        undefined,
        crashed,
      );
    });
  });

  it('leaves no timer when it is unsubscribed while it waits', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const source$ = cold('  -#', undefined, crashed);
      const subscribed = '    ^----!';
      expectObservable(source$.pipe(retryRetriable({ retryDelayMs: 9, scheduler })), subscribed).toBe('');
      expectSubscriptions(source$.subscriptions).toBe('^!');
    });
  });

  it.each([{ maxRetries: -1 }, { maxRetries: 0.5 }, { retryDelayMs: -1 }])('refuses %j when called', (options) => {
    expect(() => retryRetriable(options)).toThrowError(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });
});
