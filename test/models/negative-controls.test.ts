/**
 * Caches that are wrong on purpose must break the law, far above its tolerance: attention moves outputs little, and a test that
 * could not see these would prove nothing. Beside each, the real cache passes the same windows.
 */
import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import { kvBytesPerRow } from '../../models/hstu/bundle.ts';
import type { DiskCopy } from '../../models/kv-cache/disk-tier.ts';
import { KvCache, type KvCacheOptions, type KvEntry, type Reuse } from '../../models/kv-cache/kv-cache.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { worstOf } from '../support/deviation.ts';
import { prefix, segmentOf, someWindow, type Window } from '../support/encode-segments.ts';
import { CACHEABLE, VOCABULARY } from './bundles.ts';

const TOLERANCE = 1e-5;
/** What a wrong cache must show at least: a thousand times the tolerance (measured: 0.014 to 0.35). */
const VISIBLE = 1e-2;
const OPTIONS = { kvBudgetBytes: 2 ** 20 };
const plain = CACHEABLE['plain']!;
const window = someWindow(40, VOCABULARY, 7);

/** Trusts the user's id and the number of rows, as public caches do. */
class TrustingCache extends KvCache {
  override reuse(entry: KvEntry | undefined, segment: EncodeSegment): Reuse {
    return { rows: Math.min(entry?.length ?? 0, segment.entities.length), because: entry === undefined ? 'cold' : 'intact' };
  }
}

/** Compares tokens, and forgets that a row's bias knows the time of the next one. */
class NextTimeBlindCache extends KvCache {
  override reuse(entry: KvEntry | undefined, segment: EncodeSegment): Reuse {
    let rows = 0;
    while (
      rows < (entry?.length ?? 0) &&
      entry!.entities[rows] === segment.entities[rows] &&
      entry!.timesS[rows] === segment.timesS[rows]
    )
      rows++;
    return { rows, because: entry === undefined ? 'cold' : 'intact' };
  }
}

/** Its rows are declared and never written: V stays zero. */
class UnwrittenCache extends KvCache {
  override commit(entry: KvEntry, segment: EncodeSegment, length: number): void {
    super.commit(entry, segment, length);
    entry.extent.clear(0, length);
  }
}

/** Forgetting rows leaves their V in place, beyond the length. */
class UnclearedCache extends KvCache {
  override truncate(entry: KvEntry, length: number): void {
    const clear = entry.extent.clear;
    entry.extent.clear = () => undefined;
    super.truncate(entry, length);
    entry.extent.clear = clear;
  }
}

/** Reads the right user's tokens from the disk, and another's rows. */
class MixedUpDiskCache extends KvCache {
  override onDisk(userId: string): DiskCopy | undefined {
    const own = super.onDisk(userId);
    if (own === undefined) return undefined;
    const tokens = { entities: own.entities.slice(), timesS: own.timesS.slice(), pageDigests: own.pageDigests.slice() };
    return { ...own, ...tokens, rows: super.onDisk('another')!.rows };
  }
}

type CacheOf = (options: KvCacheOptions) => KvCache;
const real: CacheOf = (options) => new KvCache(options);

/** How far the rows of the last segment are from a full encode, after the segments before it went through this cache. */
async function deviation(cacheOf: CacheOf, segments: readonly EncodeSegment[]): Promise<number> {
  const engine = new EncoderEngine(plain, OPTIONS, cacheOf);
  const full = new EncoderEngine(plain, { kvBudgetBytes: 0 });
  const [cached] = await engine.encode([{ userId: 'u', segments }]);
  const [fresh] = await full.encode([{ userId: 'u', segments: [segments.at(-1)!] }]);
  await Promise.all([engine.release(), full.release()]);
  return worstOf(cached!.segments.at(-1)!.rows, fresh!.segments[0]!.rows, plain.config.dimension).delta;
}

const append = (n: number): EncodeSegment => segmentOf(prefix(window, n), { from: Math.max(0, n - 2) });
const changed = (
  change: (window: { entities: number[]; timesS: number[] }) => void,
  from: number,
  windowStart = 0,
): EncodeSegment => {
  const copy = { windowStart, entities: window.entities.slice(0, 31), timesS: window.timesS.slice(0, 31) };
  change(copy);
  return segmentOf(copy satisfies Window, { from });
};
const edited = changed(({ entities }) => {
  entities[10] = 1 + (entities[10]! % VOCABULARY);
}, 29);
const inserted = changed(({ entities, timesS }) => {
  entities.splice(10, 0, 5);
  timesS.splice(10, 0, timesS[10]!);
}, 30);
const slid = changed(
  ({ entities, timesS }) => {
    entities.splice(0, 5);
    timesS.splice(0, 5);
  },
  25,
  5,
);
/** A late event an hour before the newest: the tokens of every cached row are the same, the newest one's next time is not. */
const beforeTail = (() => {
  const quiet = {
    entities: window.entities.slice(0, 12),
    timesS: Array.from({ length: 12 }, (_, i) => 978_300_000 + i * 400_000),
  };
  const late = { entities: quiet.entities.toSpliced(3, 0, 9), timesS: quiet.timesS.toSpliced(3, 0, quiet.timesS[2]! + 3) };
  return [segmentOf(quiet), segmentOf(late, { from: 3 })];
})();

type Annotate = (message: string) => Promise<unknown>;

/** The law holds for the real cache and visibly fails for the wrong one. */
async function expectNoticed(
  annotate: Annotate,
  wrong: CacheOf,
  segments: readonly EncodeSegment[],
  seenByReal = segments,
): Promise<void> {
  const size = await deviation(wrong, segments);
  await annotate(`max |Δ| ${size.toPrecision(2)}`);
  expect(await deviation(real, seenByReal)).toBeLessThan(TOLERANCE);
  expect(size).toBeGreaterThan(VISIBLE);
}

describe('a cache that is never checked', () => {
  const trusting: CacheOf = (options) => new TrustingCache(options);

  it.for([
    ['an edited event', edited],
    ['a late event', inserted],
    ['a window that slid', slid],
  ] as const)('is far off after %s', ([, segment], { annotate }) => expectNoticed(annotate, trusting, [append(30), segment]));

  it('is far off after a late event right before the newest, even when it compares tokens', ({ annotate }) =>
    expectNoticed(annotate, (options) => new NextTimeBlindCache(options), beforeTail));
});

describe('computing only the new row', () => {
  it('is far off: the row before it had guessed the time of the next event', async ({ annotate }) => {
    // A guest token at the newest event's own time makes the newest row "final" with that guess; the next call meets it in the cache.
    const guessed = (n: number): EncodeSegment => {
      const { entities, timesS } = prefix(window, n);
      return segmentOf({ entities: [...entities, 1], timesS: [...timesS, timesS.at(-1)!] }, { from: n - 1 });
    };
    const ns = Array.from({ length: 29 }, (_, i) => i + 1);
    const last = segmentOf(prefix(window, 30), { from: 29 });
    await expectNoticed(annotate, (options) => new TrustingCache(options), [...ns.map(guessed), last], [...ns.map(append), last]);
  });
});

describe('a cache whose rows are never written', () => {
  it('is far off', ({ annotate }) => expectNoticed(annotate, (options) => new UnwrittenCache(options), [append(30), append(31)]));
});

describe('a cache that forgets rows and leaves their values', () => {
  it('is far off where the runtime reads them, with all that their run has room for', ({ annotate }) =>
    expectNoticed(annotate, (options) => new UnclearedCache(options), [append(30), segmentOf(prefix(window, 25), { from: 12 })]));
});

describe('a disk that gives back the rows of another user', () => {
  /** How far off a user is that had to go for others and came back. */
  const afterReturn = async (cacheOf: CacheOf): Promise<number> => {
    const options = { kvBudgetBytes: 64 * kvBytesPerRow(plain.config), disk: { folder: tmpdir(), budgetBytes: 2 ** 20 } };
    const engine = new EncoderEngine(plain, options, cacheOf);
    const full = new EncoderEngine(plain, { kvBudgetBytes: 0 });
    for (const [seed, userId] of ['u', 'another', 'a third', 'a fourth'].entries())
      await engine.encode([
        { userId, segments: [userId === 'u' ? append(30) : segmentOf(someWindow(30, VOCABULARY, 50 + seed))] },
      ]);
    const asked = [{ userId: 'u', segments: [append(31)] }];
    const [[back], [fresh]] = [await engine.encode(asked), await full.encode(asked)];
    expect(back!.segments[0]).toMatchObject({ outcome: 'hit', rowsComputed: 2 });
    await Promise.all([engine.release(), full.release()]);
    return worstOf(back!.segments[0]!.rows, fresh!.segments[0]!.rows, plain.config.dimension).delta;
  };

  it('is far off', async ({ annotate }) => {
    const size = await afterReturn((options) => new MixedUpDiskCache(options));
    await annotate(`max |Δ| ${size.toPrecision(2)}`);
    expect(await afterReturn(real)).toBeLessThan(TOLERANCE);
    expect(size).toBeGreaterThan(VISIBLE);
  });
});

describe('a cache that fails in the middle of a call', () => {
  it('fails the call, leaves nothing half written behind, and the next call is right', async () => {
    let broken = true;
    class FailingCache extends KvCache {
      override commit(entry: KvEntry, segment: EncodeSegment, length: number): void {
        if (broken && entry.userId === 'b') throw new Error('disk on fire');
        super.commit(entry, segment, length);
      }
    }
    const engine = new EncoderEngine(plain, OPTIONS, (options) => new FailingCache(options));
    const requests = ['a', 'b', 'c'].map((userId) => ({ userId, segments: [append(30)] }));
    await expect(engine.encode(requests)).rejects.toMatchObject({
      code: 'ENCODER_FAILED',
      message: 'encoding of 3 segment(s) failed: disk on fire',
    });
    expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0 });
    broken = false;
    const results = await engine.encode(requests);
    const full = new EncoderEngine(plain, { kvBudgetBytes: 0 });
    const [fresh] = await full.encode([requests[0]!]);
    for (const { segments } of results) {
      expect(segments[0]!.outcome).toBe('cold');
      expect(worstOf(segments[0]!.rows, fresh!.segments[0]!.rows, plain.config.dimension).delta).toBeLessThan(TOLERANCE);
    }
    await Promise.all([engine.release(), full.release()]);
  });
});
