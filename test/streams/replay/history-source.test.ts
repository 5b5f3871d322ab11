/** The head of a backfill: no faster than was allowed, no more under way than was allowed, and it stops when told. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { PositionedAction } from '../../../schemas/action.ts';
import type { DecodedHistories } from '../../../streams/replay/bulk-flow.ts';
import { historySource } from '../../../streams/replay/history-source.ts';

const EVENTS = 100;

/** Six batches of 100 events. */
const batches = () =>
  Array.from({ length: 6 }, (_, i) => ({
    actions: Array.from({ length: EVENTS }, () => ({}) as PositionedAction),
    continues: undefined,
    nextPosition: EVENTS * (i + 1),
  }));

describe('the head of a backfill', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  const run = (options: { readonly maxRate?: number; readonly maxInFlightBatches?: number; readonly signal?: AbortSignal }) => {
    const taken: DecodedHistories[] = [];
    let complete = false;
    historySource({ batches: batches(), maxInFlightBatches: 10, now: () => 0, ...options }).subscribe({
      next: (batch) => taken.push(batch),
      complete: () => {
        complete = true;
      },
    });
    return { taken, isComplete: () => complete };
  };

  it('reads no event before its time: at 50 events a second a batch of 100 every two seconds', async () => {
    const { taken } = run({ maxRate: 50 });
    expect(taken).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1_900);
    expect(taken).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(taken).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(taken).toHaveLength(6);
  });

  it('without a limit reads as fast as batches are acknowledged, and completes with the last', async () => {
    const { taken, isComplete } = run({ maxInFlightBatches: 2 });
    expect(taken).toHaveLength(2);
    taken[0]!.source.ack();
    await vi.advanceTimersByTimeAsync(1);
    expect(taken).toHaveLength(3);
    for (let i = 1; i < 6; i++) {
      taken[i]!.source.ack();
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(taken.map(({ source }) => source.nextOffset)).toEqual([100, 200, 300, 400, 500, 600]);
    expect(isComplete()).toBe(true);
  });

  it('told to stop, reads nothing more, not even what was only waiting for its time', async () => {
    const stop = new AbortController();
    const { taken, isComplete } = run({ maxRate: 50, signal: stop.signal });
    stop.abort();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(taken).toHaveLength(1);
    expect(isComplete()).toBe(false);
    taken[0]!.source.ack();
    await vi.advanceTimersByTimeAsync(1);
    expect(isComplete()).toBe(true);
  });
});
