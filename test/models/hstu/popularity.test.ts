import { describe, expect, it } from 'vitest';
import { makeBundle } from '../../../models/hstu/bundle.ts';
import { Popularity } from '../../../models/hstu/popularity.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';

const { digest: _, ...parts } = randomBundle({ dimension: 2, layers: 1, heads: 1, maxSequenceLength: 4, vocabularySize: 4 });
const popularity = { shape: [4], data: Float32Array.of(3, 7, 3, 9) };
const bundleWith = (config: { popularity?: boolean }, tensors: readonly (readonly [string, typeof popularity])[]) =>
  makeBundle({ ...parts, config: { ...parts.config, ...config }, tensors: new Map([...parts.tensors, ...tensors]) });

describe('popularity', () => {
  it('orders the vocabulary, ties by row, and knows nothing of other rows', () => {
    const known = Popularity.of(bundleWith({ popularity: true }, [['popularity', popularity]]))!;
    expect([...known.order()]).toEqual([4, 2, 1, 3]);
    expect([0, 1, 4, 5].map((row) => known.valueOf(row))).toEqual([0, 3, 9, 0]);
    expect(Popularity.of(parts)).toBeUndefined();
  });

  it('is part of a bundle that says so, and of its identity', () => {
    const bundle = bundleWith({ popularity: true }, [['popularity', popularity]]);
    const other = bundleWith({ popularity: true }, [['popularity', { ...popularity, data: Float32Array.of(1, 7, 3, 9) }]]);
    expect(bundle.digest).not.toBe(other.digest);
    expect(() => bundleWith({ popularity: true }, [])).toThrow('tensor popularity is missing (expected shape [4])');
    expect(() => bundleWith({}, [['popularity', popularity]])).toThrow('tensor popularity is not part of this architecture');
    const wrong = { shape: [3], data: Float32Array.of(1, 2, 3) };
    expect(() => bundleWith({ popularity: true }, [['popularity', wrong]])).toThrow('has shape [3], expected [4]');
    const notANumber = { shape: [4], data: Float32Array.of(1, Number.NaN, 3, 4) };
    expect(() => bundleWith({ popularity: true }, [['popularity', notANumber]])).toThrow('NaN at index 1');
  });
});
