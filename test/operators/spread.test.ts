import { describe, expect, it } from 'vitest';
import { spread } from '../../operators/spread.ts';
import type { UpdateUnit } from '../../schemas/batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles, sequencedBatch } from './fixtures.ts';

describe('spread', () => {
  operatorContract('spread', {
    create: () => spread(),
    inputs: () => [sequencedBatch(0, ['a', 'b']), sequencedBatch(2, [])],
    view: ({ batch, update }: UpdateUnit) => [batch.source.nextOffset, update?.userId],
  });

  it('gives a unit an update, and one of null for a batch without', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: sequencedBatch(0, ['u', 'v']), b: sequencedBatch(2, []), c: sequencedBatch(2, ['w']) };
      const source$ = cold('  -a---b-c|', batches);
      const subscribed = '    ^-------!';
      const expected = '      -(uv)n-w|';
      expectObservable(source$.pipe(spread())).toBe(expected, {
        u: { batch: batches.a, update: batches.a.updates[0] },
        v: { batch: batches.a, update: batches.a.updates[1] },
        n: { batch: batches.b, update: null },
        w: { batch: batches.c, update: batches.c.updates[0] },
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('keeps the very batch with every unit', () => {
    const batch = sequencedBatch(0, ['a', 'b']);
    const seen: UpdateUnit[] = [];
    marbles((_, { cold, flush }) => {
      cold('a|', { a: batch })
        .pipe(spread())
        .subscribe((unit) => seen.push(unit));
      flush();
    });
    expect(seen.length).toBe(2);
    for (const unit of seen) expect(unit.batch).toBe(batch);
  });
});
