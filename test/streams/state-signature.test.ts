import { describe, expect, it } from 'vitest';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { requireCompatible, signatureOf } from '../../streams/state-signature.ts';

const bundleOf = (changes: Partial<BundleConfig> = {}) =>
  randomBundle({ dimension: 4, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize: 5, ...changes });
const check = (was: Partial<BundleConfig>, is: Partial<BundleConfig>) => () =>
  requireCompatible(signatureOf(bundleOf(was), 9), bundleOf(is), signatureOf(bundleOf(is), 9), 'partition 0');
const tokens = { layout: 'additive', values: {} } as const;
const actions = { encoded: ['view', 'like'], skipped: [] };

describe('a state goes on', () => {
  it('with the same bundle, and with one whose vocabulary begins with its own', () => {
    expect(check({}, {})).not.toThrow();
    expect(check({}, { vocabularySize: 7 })).not.toThrow();
    expect(check({ tokens, actions }, { tokens, actions })).not.toThrow();
    expect(check({ tokens, actions }, { tokens, actions: { ...actions, encoded: ['view', 'like', 'share'] } })).not.toThrow();
    expect('tokens' in signatureOf(bundleOf(), 9)).toBe(false);
  });

  it('not where the numbers of its tokens would mean others', () => {
    const message = 'token layout, encoded actions or size of the vocabulary';
    expect(check({}, { tokens, actions })).toThrow(message);
    expect(check({ tokens, actions }, { tokens: { ...tokens, layout: 'interleaved' }, actions })).toThrow(message);
    expect(check({ tokens, actions }, { tokens, actions: { ...actions, encoded: ['like', 'view'] } })).toThrow(message);
    expect(check({ tokens, actions }, { tokens: { ...tokens, values: { like: [2] } }, actions })).toThrow(message);
    expect(check({ tokens, actions }, { tokens, actions, vocabularySize: 7 })).toThrow(message);
    const hashed = { unknownEntity: 'hash', outOfVocabulary: 2 } as const;
    expect(check(hashed, { ...hashed, vocabularySize: 7 })).toThrow(message);
  });

  it('not with an interleaved window that would cut events in two', () => {
    const window = { maxLength: 8, blockLength: 3 };
    expect(() => bundleOf({ tokens: { ...tokens, layout: 'interleaved' }, actions, window })).toThrow('must be even');
    expect(() => bundleOf({ tokens, actions, window })).not.toThrow();
  });
});
