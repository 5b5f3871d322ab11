import { describe, expect, it } from 'vitest';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { bundleDifferences } from '../../../streams/model-change/bundle-differences.ts';
import { requireCompatible, signatureOf } from '../../../streams/state-signature.ts';

const small = { dimension: 4, layers: 1, heads: 1, maxSequenceLength: 8, vocabularySize: 6 };
const bundleOf = (changes: Partial<BundleConfig> = {}, entities?: readonly string[]) => {
  const bundle = randomBundle({ ...small, ...changes });
  return entities === undefined ? bundle : { ...bundle, entities };
};
const tokens: BundleConfig['tokens'] = { layout: 'additive', values: { like: [2, 4] } };
const actions = { encoded: ['view', 'like'], skipped: ['tag'] };
const layout = { tokens, actions };

describe('what a next model may not change', () => {
  const window = { maxLength: 8, blockLength: 2 };
  const cases: [string, Partial<BundleConfig>, Partial<BundleConfig>, string[]][] = [
    ['nothing', {}, {}, []],
    ['entities may follow', {}, { vocabularySize: 8 }, []],
    [
      'the window',
      { window },
      { window: { maxLength: 6, blockLength: 3 } },
      ['window.maxLength: 8 became 6', 'window.blockLength: 2 became 3'],
    ],
    ['the layout', {}, layout, ['tokens.layout: entity became additive']],
    [
      'value buckets',
      layout,
      { ...layout, tokens: { ...tokens, values: { like: [2, 5] } } },
      ['tokens.values.like: [2,4] became [2,5]'],
    ],
    [
      'values of an action more',
      layout,
      { ...layout, tokens: { ...tokens, values: { like: [2, 4], view: [1] } } },
      ['tokens.values.view: null became [1]'],
    ],
    ['an action may follow', layout, { ...layout, actions: { ...actions, encoded: ['view', 'like', 'share'] } }, []],
    [
      'actions in another order',
      layout,
      { ...layout, actions: { ...actions, encoded: ['like', 'share', 'view'] } },
      [
        "actions.encoded: 2 moved ('view' from place 1 to 3, 'like' from place 2 to 1)",
        "actions.encoded: 1 added before the end ('share' at place 2)",
      ],
    ],
    ['actions that are no part of a token', {}, { actions }, []],
    [
      'an entity more, where it is a factor of every token',
      layout,
      { ...layout, vocabularySize: 7 },
      ['entities: 6 became 7; with a token layout, or rows out of the vocabulary, none may be added'],
    ],
    [
      'rows out of the vocabulary',
      { unknownEntity: 'hash', outOfVocabulary: 2 },
      { unknownEntity: 'hash', outOfVocabulary: 3 },
      ['outOfVocabulary: 2 became 3'],
    ],
  ];
  it.each(cases)('%s', (_, was, is, refused) => {
    const [served, next] = [bundleOf(was), bundleOf(is)];
    expect(bundleDifferences(served, next).refused).toEqual(refused);
    // What a restart with the next bundle says is the same.
    const restart = () => requireCompatible(signatureOf(served, 9), next, signatureOf(next, 9), 'partition 0');
    if (refused.length === 0) expect(restart).not.toThrow();
    else expect(restart).toThrow('was made with other settings');
  });

  it('entities removed, moved and put between, each counted and the first few named', () => {
    const next = bundleOf({}, ['item:1', 'new', 'item:2', 'item:3', 'item:4', 'other']);
    expect(bundleDifferences(bundleOf(), next).refused).toEqual([
      "entities: 2 removed ('item:5' of place 5, 'item:6' of place 6)",
      "entities: 3 moved ('item:2' from place 2 to 3, 'item:3' from place 3 to 4, 'item:4' from place 4 to 5)",
      "entities: 2 added before the end ('new' at place 2, 'other' at place 6)",
    ]);
    const turned = bundleOf({}, ['item:6', 'item:5', 'item:4', 'item:3', 'item:2', 'item:1']);
    expect(bundleDifferences(bundleOf(), turned).refused).toEqual([expect.stringMatching(/^entities: 6 moved \(.*, …\)$/)]);
  });

  it('and what it may, and readers notice', () => {
    expect(bundleDifferences(bundleOf(), bundleOf({ dimension: 8, vocabularySize: 9, actions })).noticed).toEqual([
      'embedding dimension: 4 became 8',
      'entities: 6 became 9',
      'encoded actions: view became view, like',
    ]);
    expect(bundleDifferences(bundleOf(), bundleOf()).noticed).toEqual([]);
  });
});
