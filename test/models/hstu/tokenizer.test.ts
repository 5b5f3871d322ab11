import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeBundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import { TokenCode } from '../../../models/hstu/token-code.ts';
import { Tokenizer } from '../../../models/hstu/tokenizer.ts';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';

const bundleOf = (changes: Partial<BundleConfig>) =>
  randomBundle({
    dimension: 4,
    layers: 1,
    heads: 1,
    maxSequenceLength: 8,
    vocabularySize: 5,
    actions: { encoded: ['view', 'like', 'rate', 'buy'], skipped: ['tag'] },
    ...changes,
  });
const VALUES = { rate: [2, 3.5, 4.5], buy: [10, 100] };
const layouts = ['additive', 'interleaved'] as const;

describe('Tokenizer without a layout', () => {
  const tokenizer = new Tokenizer(bundleOf({}));
  it('gives the entity’s row whatever the action and the value', () => {
    expect(tokenizer.token({ action: 'view', entity: 'item:2' })).toEqual({ kind: 'token', entity: 2 });
    expect(tokenizer.token({ action: 'rate', entity: 'item:2', value: 4 })).toEqual({ kind: 'token', entity: 2 });
    expect(tokenizer.token({ action: 'tag', entity: 'item:2' })).toEqual({ kind: 'keep' });
  });

  it('refuses what the vocabulary does not have', () => {
    expect(tokenizer.token({ action: 'view', entity: 'item:6' })).toMatchObject({ kind: 'refuse', code: 'ENTITY_UNKNOWN' });
    expect(tokenizer.token({ action: 'view+like', entity: 'item:1' })).toMatchObject({ kind: 'refuse', code: 'ACTION_UNKNOWN' });
  });
});

describe.each(layouts)('Tokenizer, %s', (layout) => {
  const bundle = bundleOf({ tokens: { layout, values: VALUES } });
  const tokenizer = new Tokenizer(bundle);
  const code = new TokenCode(bundle.config);
  const parts = (action: string, value?: number) => {
    const token = tokenizer.token({ action, entity: 'item:3', ...(value !== undefined && { value }) });
    if (token.kind !== 'token') throw new Error(`${action}: ${token.kind}`);
    const all = 'tokens' in token ? token.tokens : [token.entity];
    expect(all.every((one) => code.isToken(one))).toBe(true);
    expect(all.length).toBe(layout === 'additive' ? 1 : 2);
    expect(code.entityOf(token.entity)).toBe(3);
    return code.decode(all.at(-1)!);
  };

  it('sets a bit an action, several at once', () => {
    expect([parts('view'), parts('buy'), parts('view+like+buy'), parts('like+like')].map(({ actionBits }) => actionBits)).toEqual(
      [0b0001, 0b1000, 0b1011, 0b0010],
    );
  });

  it('puts a value into the bucket of its kind: by how many edges it reaches', () => {
    const buckets = [1, 2, 3, 3.5, 4.5, 5].map((value) => parts('rate', value).bucket);
    expect(buckets).toEqual([1, 2, 2, 3, 4, 4]);
    expect([5, 10, 99, 1e9].map((value) => parts('buy', value).bucket)).toEqual([5, 6, 6, 7]);
    expect([parts('rate').bucket, parts('rate', Number.NaN).bucket, parts('like', 4).bucket]).toEqual([0, 0, 0]);
    expect(parts('like+rate', 4).bucket).toBe(3);
  });

  it('refuses an unknown kind, also among several, and keeps a skipped one', () => {
    for (const action of ['share', 'view+share', 'view+', ''])
      expect(tokenizer.token({ action, entity: 'item:1' })).toMatchObject({ kind: 'refuse', code: 'ACTION_UNKNOWN' });
    expect(tokenizer.token({ action: 'tag', entity: 'item:1' })).toEqual({ kind: 'keep' });
  });

  it('names the entity of a token', () => {
    const token = tokenizer.token({ action: 'like', entity: 'item:4' });
    expect(token.kind === 'token' && tokenizer.entityOf(token.entity)).toBe('item:4');
    expect(tokenizer.entityOf(4)).toBe('item:4');
  });
});

describe('entities out of the vocabulary', () => {
  const tokenizer = new Tokenizer(bundleOf({ unknownEntity: 'hash', outOfVocabulary: 3 }));
  it('take one of the shared rows, always the same, and none of the vocabulary’s', () => {
    const rows = Array.from({ length: 50 }, (_, i) => tokenizer.rowOf(`movie:${i}`)!);
    expect(new Set(rows)).toEqual(new Set([6, 7, 8]));
    expect(Array.from({ length: 50 }, (_, i) => tokenizer.rowOf(`movie:${i}`)!)).toEqual(rows);
    expect(tokenizer.rowOf('item:5')).toBe(5);
    expect(tokenizer.token({ action: 'view', entity: 'movie:1' })).toEqual({ kind: 'token', entity: rows[1] });
  });
});

describe('TokenCode', () => {
  it.each(layouts)('is one number for one token: %s', (layout) => {
    const code = new TokenCode(bundleOf({ tokens: { layout, values: VALUES } }).config);
    const part = fc.record({ entity: fc.nat(5), actionBits: fc.nat(15), bucket: fc.nat(7) });
    fc.assert(
      fc.property(part, (parts) => {
        expect(code.decode(code.encode(parts))).toEqual(parts);
      }),
    );
  });

  it('knows which tokens a layout has', () => {
    const of = (tokens?: BundleConfig['tokens']) => new TokenCode(bundleOf({ ...(tokens && { tokens }) }).config);
    const [plain, additive, interleaved] = [
      of(),
      of({ layout: 'additive', values: VALUES }),
      of({ layout: 'interleaved', values: VALUES }),
    ];
    const both = additive.encode({ entity: 2, actionBits: 1, bucket: 0 });
    const action = additive.encode({ entity: 0, actionBits: 1, bucket: 3 });
    const judged = [0, 5, 6, both, action, -1, 1.5, 2 ** 31].map((token) =>
      [plain, additive, interleaved].map((code) => code.isToken(token)),
    );
    expect(judged).toEqual([
      [false, false, false],
      [true, false, true],
      [false, false, false],
      [false, true, false],
      [false, false, true],
      [false, false, false],
      [false, false, false],
      [false, false, false],
    ]);
  });
});

describe('a bundle’s configuration is refused', () => {
  const stu = { divisor: 8, alpha: 1, groupNorm: false, maxAttnLen: null, embeddingScale: 1 };
  const ranking = { tasks: [{ name: 'like', weight: 1 }], hidden: 0 };
  it.each([
    ['values of a kind that is not encoded', { tokens: { layout: 'additive', values: { tag: [1] } } }, "values of 'tag'"],
    ['edges that do not ascend', { tokens: { layout: 'additive', values: { rate: [2, 2] } } }, "value edges of 'rate'"],
    [
      'more tokens than an integer has',
      { vocabularySize: 20_000_000, tokens: { layout: 'additive', values: VALUES } },
      'at most 2147483648',
    ],
    ['shared rows that nothing takes', { outOfVocabulary: 3 }, "for unknownEntity 'hash'"],
    ['hashing without rows', { unknownEntity: 'hash' }, "for unknownEntity 'hash'"],
    ['STU switches for another architecture', { stu }, 'stu: must be given for architecture hstu-stu'],
    ['the STU architecture without switches', { architecture: 'hstu-stu', concatUa: true }, 'stu: must be given'],
    ['STU that does not project u and o', { architecture: 'hstu-stu', stu }, 'concatUa'],
    ['candidates that history would see', { ranking, attention: 'bidirectional' }, 'ranking: candidates need causal attention'],
    ['candidates at a moving position', { ranking, positions: 'from-end' }, 'positions from the start'],
    [
      'candidates without a position',
      { ranking, paddedLength: 8 },
      'paddedLength: candidates take the position after the window',
    ],
    ['a task twice', { ranking: { ...ranking, tasks: [...ranking.tasks, ...ranking.tasks] } }, "task 'like' is there twice"],
    ['a bundle that serves nothing', { retrieval: false }, 'must serve retrieval'],
  ] as const)('for %s', (_, changes, message) => {
    // A table of the right size would be large: the configuration is judged first.
    const { tensors, entities, config } = bundleOf({});
    expect(() => makeBundle({ tensors, entities, config: { ...config, ...changes } as unknown as BundleConfig })).toThrow(
      message,
    );
  });
});
