import { describe, expect, it } from 'vitest';
import { GPU_SHARE, lruHitRatio, plan, UTILISATION } from '../../streams/plan.ts';

/** An LRU under requests drawn by Zipf: what the formula stands for. */
function simulatedHitRatio(users: number, size: number, skew: number, requests: number): number {
  const weights = Array.from({ length: users }, (_, k) => (k + 1) ** -skew);
  const total = weights.reduce((a, b) => a + b, 0);
  const cumulative: number[] = [];
  let sum = 0;
  for (const weight of weights) {
    sum += weight / total;
    cumulative.push(sum);
  }
  let state = 42;
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const cache = new Map<number, true>();
  let hits = 0;
  for (let i = 0; i < requests; i++) {
    const u = random();
    let low = 0;
    let high = users - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! < u) low = middle + 1;
      else high = middle;
    }
    const hit = cache.delete(low);
    cache.set(low, true);
    if (cache.size > size) cache.delete(cache.keys().next().value!);
    // The first half fills the cache.
    if (hit && i >= requests / 2) hits++;
  }
  return hits / (requests / 2);
}

describe('plan', () => {
  it.each([
    [2_000, 200, 0.8],
    [2_000, 1_000, 0.8],
    [2_000, 500, 0],
    [5_000, 250, 1.1],
  ])('foretells the hit ratio of an LRU: %i users, %i cached, skew %f', (users, size, skew) => {
    expect(Math.abs(lruHitRatio(users, size, skew) - simulatedHitRatio(users, size, skew, 200_000))).toBeLessThan(0.015);
  });

  it('knows the ends: a cache for all hits always, none never', () => {
    expect(lruHitRatio(100, 100, 1)).toBe(1);
    expect(lruHitRatio(100, 0, 1)).toBe(0);
  });

  const input = {
    users: 1_000,
    eventsPerSecond: 10_000,
    kvBudgetBytes: 1e9,
    diskBudgetBytes: 0,
    kvBytesPerUser: 1e5,
    stepUs: 70,
    prefillUs: 5_000,
    returnUs: Number.NaN,
    skew: 0.8,
    windowLength: 200,
    blockLength: 50,
    dimension: 64,
    gpuBytes: 1e7,
  };

  it('adds up', () => {
    const planned = plan(input);
    // Of 200 events 150 are encoded anew every 50: 5,000 µs × 0.75 / 50.
    expect(planned).toMatchObject({ cachedUsers: 1_000, hitRatio: 1, slideUsPerEvent: 75, encodeUsPerEvent: 145 });
    expect(planned.cores).toBeCloseTo(1.45 / UTILISATION);
    expect(planned.gpus).toBe(Math.ceil(1e8 / (1e7 * GPU_SHARE)));
  });

  it('adds up with a disk: what memory and disk hold together, without what memory holds', () => {
    const all = plan({ ...input, kvBudgetBytes: 2e7, diskBudgetBytes: 1e9, returnUs: 300 });
    expect(all).toMatchObject({ cachedUsers: 200, diskUsers: 800 });
    expect(all.hitRatio + all.restoreRatio).toBeCloseTo(1);
    expect(all.encodeUsPerEvent).toBeCloseTo(all.hitRatio * (70 + 75) + (1 - all.hitRatio) * (300 + 75));
    const some = plan({ ...input, kvBudgetBytes: 2e7, diskBudgetBytes: 2e7, returnUs: 300 });
    expect(some).toMatchObject({ cachedUsers: 200, diskUsers: 200, hitRatio: all.hitRatio });
    expect(some.hitRatio + some.restoreRatio).toBeCloseTo(lruHitRatio(1_000, 400, 0.8));
    expect(some.encodeUsPerEvent).toBeGreaterThan(all.encodeUsPerEvent);
    expect(some.encodeUsPerEvent).toBeLessThan(plan({ ...input, kvBudgetBytes: 2e7 }).encodeUsPerEvent);
  });

  it('takes a hundred million users as fast as a thousand', () => {
    const began = performance.now();
    const ratio = lruHitRatio(1e8, 1e6, 0.9);
    expect(performance.now() - began).toBeLessThan(500);
    expect(ratio).toBeGreaterThan(0.3);
    expect(ratio).toBeLessThan(0.8);
  });
});
