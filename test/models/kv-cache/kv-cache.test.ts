import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KvCache, type KvCacheOptions, type KvEntry, type Reuse } from '../../../models/kv-cache/kv-cache.ts';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { segmentOf, someWindow, type Window } from '../../support/encode-segments.ts';

const shape = { layers: 2, heads: 2, dqk: 3, dv: 2 };
const ROW_BYTES = 4 * shape.layers * shape.heads * (shape.dqk + shape.dv);
const cacheOf = (rows: number, more: Partial<KvCacheOptions> = {}): KvCache =>
  new KvCache({ shape, modelDigest: 'model', budgetBytes: rows * ROW_BYTES, pageLength: 4, maxRows: 100, ...more });

/** Rows that tell whose they are: user, layer, row, place. */
const rowValues = (user: number, l: number, row: number, width: number): Float32Array =>
  Float32Array.from({ length: shape.heads * width }, (_, i) => user * 10_000 + l * 1_000 + row * 10 + i);

/** As the engine does: room for `n - 1` rows, the missing ones written, all but the newest declared final. */
function fill(cache: KvCache, userId: string, segment: EncodeSegment, user = 1): KvEntry | null {
  const length = segment.entities.length - 1;
  const entry = cache.allocate(userId, Math.max(1, length));
  if (entry === null) return null;
  for (let row = entry.length; row < length; row++)
    for (let l = 0; l < shape.layers; l++)
      entry.extent.write(l, row, 1, rowValues(user, l, row, shape.dqk), rowValues(user, l, row, shape.dv), 0);
  cache.commit(entry, segment, length);
  return entry;
}

/** `(H, 1, C, d)` → row `row` of all heads. */
function readRow({ extent }: KvEntry, kind: 'keys' | 'values', l: number, row: number): number[] {
  const width = kind === 'keys' ? shape.dqk : shape.dv;
  const data = extent[kind][l]!.data as Float32Array;
  return Array.from({ length: shape.heads }, (_, h) => [
    ...data.subarray((h * extent.capacity + row) * width, (h * extent.capacity + row + 1) * width),
  ]).flat();
}

function expectRows(entry: KvEntry, user: number): void {
  for (let l = 0; l < shape.layers; l++) {
    for (let row = 0; row < entry.length; row++) {
      expect(readRow(entry, 'keys', l, row), `keys, layer ${l}, row ${row}`).toEqual([...rowValues(user, l, row, shape.dqk)]);
      expect(readRow(entry, 'values', l, row), `values, layer ${l}, row ${row}`).toEqual([...rowValues(user, l, row, shape.dv)]);
    }
    for (let row = entry.length; row < entry.extent.capacity; row++)
      expect(readRow(entry, 'values', l, row), `V beyond the length, layer ${l}, row ${row}`).toEqual([0, 0, 0, 0]);
  }
}

const window = someWindow(80, 1_000, 3);
/** Distinct times, so that every change of a time is a change. */
const base: Window = { entities: window.entities, timesS: window.entities.map((_, i) => 1_000_000 + 100 * i) };
const first = (n: number): Window => ({ entities: base.entities.slice(0, n), timesS: base.timesS.slice(0, n) });
const withEntity = (n: number, at: number): Window => ({ ...first(n), entities: first(n).entities.with(at, 1_001) });
const withTime = (n: number, at: number): Window => ({ ...first(n), timesS: first(n).timesS.with(at, base.timesS[at]! - 1) });
const inserted = (n: number, at: number): Window => ({
  entities: first(n).entities.toSpliced(at, 0, 1_001),
  timesS: first(n).timesS.toSpliced(at, 0, base.timesS[at]! - 1),
});

describe('reuse: how many rows of an entry hold', () => {
  /** An entry made from the first 70 tokens: 69 final rows. */
  const reuse = (asked: Window, change: (entry: KvEntry) => void = () => {}): [number, Reuse['because']] => {
    const cache = cacheOf(200);
    const entry = fill(cache, 'u', segmentOf(first(70)))!;
    change(entry);
    const { rows, because } = cache.reuse(entry, segmentOf(asked));
    return [rows, because];
  };

  it.each<[string, [number, Reuse['because']], [number, Reuse['because']]]>([
    ['the same window', reuse(first(70)), [69, 'intact']],
    ['one event more', reuse(first(71)), [69, 'intact']],
    ['many events more', reuse(first(80)), [69, 'intact']],
    [
      "one event less: all its tokens are there, and its newest row is the encoder's to ask again",
      reuse(first(69)),
      [69, 'intact'],
    ],
    ['many events less', reuse(first(10)), [10, 'diverged']],
    ['another model', reuse(first(71), (entry) => void Object.assign(entry, { modelDigest: 'other' })), [0, 'model']],
    ['the window slid', reuse({ ...first(70), windowStart: 5 }), [0, 'window']],
    ['another first token', reuse(withEntity(71, 0)), [0, 'diverged']],
    ['another token', reuse(withEntity(71, 40)), [40, 'diverged']],
    ['the same token at another time', reuse(withTime(71, 40)), [39, 'diverged']],
    ['another token as the newest: no cached row knows it', reuse(withEntity(70, 69)), [69, 'intact']],
    ['another time of the newest: the row before it dies', reuse(withTime(70, 69)), [68, 'diverged']],
    ['a late event right before the newest: the row before it dies', reuse(inserted(70, 69)), [68, 'diverged']],
    ['a late event at the very beginning', reuse(inserted(70, 0)), [0, 'diverged']],
  ])('%s', (_, actual, expected) => expect(actual).toEqual(expected));

  it('no entry', () => expect(cacheOf(10).reuse(undefined, segmentOf(first(3)))).toEqual({ rows: 0, because: 'cold' }));

  it('an entry of no rows, whose one event had no successor', () => {
    const cache = cacheOf(10);
    expect(cache.reuse(fill(cache, 'u', segmentOf(first(1)))!, segmentOf(first(2)))).toEqual({ rows: 0, because: 'intact' });
  });

  it('after a truncation the newest row kept still knows the time it took for its next event', () => {
    const cache = cacheOf(200);
    const entry = fill(cache, 'u', segmentOf(first(70)))!;
    cache.truncate(entry, 20);
    expect(cache.reuse(entry, segmentOf(first(70)))).toEqual({ rows: 20, because: 'intact' });
    expect(cache.reuse(entry, segmentOf(inserted(40, 20)))).toEqual({ rows: 19, because: 'diverged' });
  });

  it('holds row i iff tokens 0 … i and the time of token i + 1 are the same, for any two windows', () => {
    const tokens = fc.array(fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 0, max: 1 })), {
      minLength: 1,
      maxLength: 100,
    });
    const windowOf = (pairs: readonly (readonly [number, number])[]): Window => {
      let at = 0;
      return {
        entities: pairs.map(([entity]) => entity),
        timesS: pairs.map(([, gap]) => {
          at += gap;
          return at;
        }),
      };
    };
    const property = fc.property(tokens, tokens, fc.nat(100), fc.nat(100), (older, other, shared, kept) => {
      // A common beginning, then whatever; the digest's pages (32) are crossed.
      const before = windowOf(older);
      const after = windowOf([...older.slice(0, shared), ...other]);
      const cache = cacheOf(200);
      const entry = fill(cache, 'u', segmentOf(before))!;
      cache.truncate(entry, kept);
      const holds = (i: number) =>
        i < entry.length &&
        i < after.entities.length &&
        before.entities.slice(0, i + 1).join() === after.entities.slice(0, i + 1).join() &&
        before.timesS.slice(0, i + 1).join() === after.timesS.slice(0, i + 1).join() &&
        (i + 1 >= after.entities.length || before.timesS[i + 1] === after.timesS[i + 1]);
      let rows = 0;
      while (holds(rows)) rows++;
      expect(cache.reuse(entry, segmentOf(after)).rows).toBe(rows);
    });
    fc.assert(property, { numRuns: 500 });
  });

  it('believes the digest of a page: whoever sends tokens with the digests of others gets the rows of the others', () => {
    const cache = cacheOf(200);
    const entry = fill(cache, 'u', segmentOf(first(70)))!;
    const honest = segmentOf(withEntity(70, 3));
    expect(cache.reuse(entry, honest).rows).toBe(3);
    expect(cache.reuse(entry, { ...honest, pageDigests: segmentOf(first(70)).pageDigests }).rows).toBe(69);
  });
});

describe('allocate', () => {
  it('keeps the rows of a user that outgrows its pages', () => {
    const cache = cacheOf(400);
    for (const n of [3, 5, 17, 18, 40, 80]) {
      const entry = fill(cache, 'u', segmentOf(first(n)), 7)!;
      expect(entry.extent.capacity).toBeGreaterThanOrEqual(n - 1);
      expectRows(entry, 7);
    }
    expect(cache.users).toBe(1);
    expect(cache.evictions).toBe(0);
  });

  it('clears what its memory held before', () => {
    const cache = cacheOf(40);
    fill(cache, 'a', segmentOf(first(30)), 1);
    cache.free('a');
    expectRows(fill(cache, 'b', segmentOf(first(3)), 2)!, 2);
  });

  it('evicts the least recently used first', () => {
    const cache = cacheOf(24);
    for (const user of ['a', 'b', 'c']) fill(cache, user, segmentOf(first(9)));
    cache.touch('a');
    fill(cache, 'd', segmentOf(first(9)));
    expect(['a', 'b', 'c', 'd'].filter((user) => cache.touch(user) !== undefined)).toEqual(['a', 'c', 'd']);
    expect(cache.evictions).toBe(1);
  });

  it('never evicts a pinned entry, and answers null when only those are left', () => {
    const cache = cacheOf(24);
    for (const user of ['a', 'b', 'c']) fill(cache, user, segmentOf(first(9)))!.pinned = user !== 'b';
    expect(fill(cache, 'd', segmentOf(first(9)))).not.toBeNull();
    cache.touch('d')!.pinned = true;
    expect(fill(cache, 'e', segmentOf(first(9)))).toBeNull();
    expect(['a', 'b', 'c', 'd', 'e'].filter((user) => cache.touch(user) !== undefined)).toEqual(['a', 'c', 'd']);
  });

  it('answers null for more rows than the whole pool has, and evicts nobody for it', () => {
    const cache = cacheOf(24);
    fill(cache, 'a', segmentOf(first(9)));
    expect(cache.allocate('b', 25)).toBeNull();
    expect([cache.users, cache.evictions]).toEqual([1, 0]);
    expect(cacheOf(0).allocate('a', 1)).toBeNull();
  });

  it('leaves an entry as pinned as it was, also when it grew or could not', () => {
    const cache = cacheOf(24);
    fill(cache, 'a', segmentOf(first(3)));
    fill(cache, 'a', segmentOf(first(9)));
    expect(cache.touch('a')!.pinned).toBe(false);
    expect(cache.allocate('a', 20)).toBeNull();
    expect(cache.touch('a')!.pinned).toBe(false);
  });

  it('moves runs together when the free pages are scattered, and every row survives', () => {
    const cache = cacheOf(32);
    for (const [i, user] of ['a', 'b', 'c', 'd'].entries()) fill(cache, user, segmentOf(first(9)), i + 1);
    cache.free('a');
    cache.free('c');
    const entry = fill(cache, 'e', segmentOf(first(16)), 5)!;
    expect(cache.evictions).toBe(0);
    expectRows(entry, 5);
    expectRows(cache.touch('b')!, 2);
    expectRows(cache.touch('d')!, 4);
  });
});

describe('truncate', () => {
  it('clears V of the rows it forgets and keeps the others', () => {
    const cache = cacheOf(100);
    const entry = fill(cache, 'u', segmentOf(first(40)), 3)!;
    cache.truncate(entry, 12);
    expect([entry.length, entry.nextTimeS]).toEqual([12, base.timesS[12]]);
    expectRows(entry, 3);
    cache.truncate(entry, 30);
    expect(entry.length).toBe(12);
  });
});

describe('scratch rows', () => {
  it('lie outside the pool and are not remembered', () => {
    const cache = cacheOf(0);
    const entry = cache.scratch('u', 10);
    expect(entry.extent.capacity).toBeGreaterThanOrEqual(10);
    expectRows(entry, 1);
    expect([cache.users, cache.bytesUsed, cache.touch('u')]).toEqual([0, 0, undefined]);
  });
});

describe('whatever is asked of it', () => {
  it('uses no byte above its budget, loses no row of a user that it still has, and counts its users', () => {
    const step = fc.record({
      user: fc.nat(5),
      do: fc.oneof(
        { arbitrary: fc.constant('fill' as const), weight: 6 },
        fc.constantFrom('free' as const, 'truncate' as const, 'pin' as const),
      ),
      n: fc.integer({ min: 1, max: 40 }),
    });
    const property = fc.property(
      fc.integer({ min: 0, max: 90 }),
      fc.array(step, { maxLength: 40, size: 'max' }),
      (rows, steps) => {
        const cache = cacheOf(rows, { maxRows: 40 });
        for (const { user, do: what, n } of steps) {
          const userId = `${user}`;
          if (what === 'fill') {
            const held = cache.touch(userId);
            fill(cache, userId, segmentOf(first(Math.max(n, (held?.length ?? 0) + 1))), user);
          } else if (what === 'free') {
            const there = cache.touch(userId) !== undefined;
            expect(cache.free(userId)).toBe(there);
          } else if (what === 'truncate') {
            const held = cache.touch(userId);
            if (held !== undefined) cache.truncate(held, n);
          } else {
            const held = cache.touch(userId);
            if (held !== undefined) held.pinned = !held.pinned;
          }
          const held = Array.from({ length: 6 }, (_, i) => [i, cache.touch(`${i}`)] as const).filter(
            ([, entry]) => entry !== undefined,
          );
          expect(cache.users).toBe(held.length);
          expect(cache.bytesBudget).toBeLessThanOrEqual(rows * ROW_BYTES);
          expect(cache.bytesUsed).toBe(held.reduce((sum, [, entry]) => sum + entry!.extent.capacity * ROW_BYTES, 0));
          expect(cache.bytesUsed).toBeLessThanOrEqual(cache.bytesBudget);
          for (const [i, entry] of held) expectRows(entry!, i);
        }
      },
    );
    fc.assert(property, { numRuns: 60 });
  });
});

describe('a full cache', () => {
  it('moves everybody for many newcomers, not for each', () => {
    const cache = cacheOf(6_400);
    const held = cache.allocate('held', 40)!;
    held.pinned = true;
    let moves = 0;
    let { extent } = held;
    for (let i = 0; i < 2_000; i++) {
      expect(cache.allocate(`user-${i}`, 20 + ((i * 37) % 80))).not.toBe(null);
      if (held.extent === extent) continue;
      moves += 1;
      extent = held.extent;
    }
    // Every time that newcomers do not fit as the others lie: 545.
    expect(moves).toBeLessThan(100);
  });
});
