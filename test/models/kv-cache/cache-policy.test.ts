import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CachePolicy, type CachePolicyName, cachePolicy } from '../../../models/kv-cache/cache-policy.ts';
import { FrequencySketch } from '../../../models/kv-cache/frequency-sketch.ts';
import { KvCache } from '../../../models/kv-cache/kv-cache.ts';

/** Long windows cost more a row than short ones, as attention does. */
const costOf = (rows: number): number => 100 * rows + rows * rows;
const NAMES: readonly CachePolicyName[] = ['lru', 'cost-aware'];

function asked(policy: CachePolicy, userId: string, times: number): void {
  for (let i = 0; i < times; i++) policy.asked(userId);
}

/** Asked for so often, and held with so many rows. */
function hold(policy: CachePolicy, userId: string, times: number, rows = 8): void {
  asked(policy, userId, times);
  policy.held(userId, rows);
}

describe('lru', () => {
  it('names the least recently used first, and prefers whoever comes', () => {
    const policy = cachePolicy('lru', costOf);
    for (const userId of ['a', 'b', 'c']) hold(policy, userId, 1);
    policy.asked('a');
    policy.asked('nobody');
    expect([...policy.order()]).toEqual(['b', 'c', 'a']);
    expect(policy.prefers('d', 1, 'a')).toBe(true);
  });
});

describe('cost-aware', () => {
  it('names those first who are asked for least, whoever came last', () => {
    const policy = cachePolicy('cost-aware', costOf);
    hold(policy, 'often', 9);
    hold(policy, 'rare', 2);
    hold(policy, 'once', 1);
    expect([...policy.order()]).toEqual(['once', 'rare', 'often']);
    asked(policy, 'once', 20);
    expect([...policy.order()]).toEqual(['rare', 'often', 'once']);
  });

  it('keeps, of two asked for as often, whose rows cost more to encode anew a byte', () => {
    const policy = cachePolicy('cost-aware', costOf);
    hold(policy, 'long', 3, 400);
    hold(policy, 'short', 3, 8);
    expect([...policy.order()]).toEqual(['short', 'long']);
  });

  it('has no room for a newcomer of less worth, until the worth of those held has faded', () => {
    const policy = cachePolicy('cost-aware', costOf);
    hold(policy, 'old', 9);
    policy.asked('new');
    expect(policy.prefers('new', 8, 'old')).toBe(false);
    let refusals = 0;
    for (; !policy.prefers('new', 8, 'old') && refusals < 100; refusals++) policy.refused('new', 8);
    expect(refusals).toBeGreaterThan(1);
    expect(refusals).toBeLessThan(10);
  });
});

describe.each(NAMES)('%s', (name) => {
  it('names everybody held once, whatever happened, also when the iteration is broken off', () => {
    const user = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
    const kind = fc.constantFrom('asked', 'held', 'dropped', 'evicted', 'refused', 'peek');
    fc.assert(
      fc.property(fc.array(fc.tuple(kind, user, fc.integer({ min: 1, max: 300 })), { maxLength: 200 }), (happenings) => {
        const policy = cachePolicy(name, costOf);
        const held = new Set<string>();
        for (const [what, userId, rows] of happenings) {
          if (what === 'asked') policy.asked(userId);
          else if (what === 'refused') policy.refused(userId, rows);
          else if (what === 'held') {
            policy.held(userId, rows);
            held.add(userId);
          } else if (what === 'peek') {
            for (const _ of policy.order()) break;
          } else {
            if (what === 'evicted' && held.has(userId)) policy.evicted(userId);
            else policy.dropped(userId);
            held.delete(userId);
          }
          expect([...policy.order()].sort()).toEqual([...held].sort());
        }
      }),
    );
  });
});

describe('the cache under a scan of users who come once', () => {
  /** Hits of ten regulars, who come in turn, each time after many others. */
  const hitsOfRegulars = (name: CachePolicyName): number => {
    const shape = { layers: 1, heads: 1, dqk: 1, dv: 1 };
    const policy = cachePolicy(name, costOf);
    const cache = new KvCache({ shape, modelDigest: '', budgetBytes: 20 * 8 * 8, pageLength: 8, maxRows: 8, policy });
    let hits = 0;
    for (let turn = 0; turn < 40; turn++)
      for (let i = 0; i < 10; i++) {
        for (let other = 0; other < 4; other++) ask(`once ${turn} ${i} ${other}`);
        if (ask(`regular ${i}`)) hits += 1;
      }
    function ask(userId: string): boolean {
      const found = cache.touch(userId) !== undefined;
      cache.allocate(userId, 8);
      return found;
    }
    return hits;
  };

  it('keeps the regulars where it counts them, and none where it only knows who was last', () => {
    expect(hitsOfRegulars('lru')).toBe(0);
    expect(hitsOfRegulars('cost-aware')).toBeGreaterThan(200);
  });
});

describe('the sketch', () => {
  it('never counts too few, and forgets half now and then', () => {
    const sketch = new FrequencySketch(64);
    for (let i = 0; i < 8; i++) sketch.add('a', 1_000);
    for (let i = 0; i < 100; i++) sketch.add(`user ${i}`, 1_000);
    expect(sketch.count('a')).toBeGreaterThanOrEqual(8);
    const before = sketch.count('a');
    sketch.add('b', 1);
    expect(sketch.count('a')).toBeLessThanOrEqual(Math.ceil((before + 1) / 2));
  });
});
