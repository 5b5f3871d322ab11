import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countOf, epochOf, MAX_EPOCH, ofNewestEpoch, versionOf } from '../../schemas/version.ts';

describe('a version', () => {
  const counts = fc.integer({ min: 1, max: 2 ** 39 });
  const epochs = fc.integer({ min: 0, max: MAX_EPOCH });

  it('grows with the epoch whatever the count, and says both, exactly', () => {
    fc.assert(
      fc.property(counts, counts, epochs, (before, after, epoch) => {
        const version = versionOf(before, epoch);
        expect(Number.isSafeInteger(version)).toBe(true);
        expect([countOf(version), epochOf(version)]).toEqual([before, epoch]);
        if (epoch < MAX_EPOCH) expect(versionOf(after, epoch + 1)).toBeGreaterThan(version);
      }),
    );
  });

  it('is the count in the first epoch, and 0 for nothing in any', () => {
    expect([versionOf(7, 0), versionOf(0, 5)]).toEqual([7, 0]);
  });

  it('of the newest epoch are those that count', () => {
    const versions = new Map([
      [versionOf(9, 0), 'old'],
      [versionOf(3, 2), 'a'],
      [versionOf(4, 2), 'b'],
    ]);
    expect([...ofNewestEpoch(versions)]).toEqual([
      [3, 'a'],
      [4, 'b'],
    ]);
    expect(ofNewestEpoch(new Map())).toEqual(new Map());
  });
});
