import fc from 'fast-check';
import { from, of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { InMemorySequenceStore } from '../../operators/in-memory-sequence-store.ts';
import { type SequenceOptions, sequence, type Tokenizer } from '../../operators/sequence.ts';
import { sideFeatures } from '../../operators/side-features.ts';
import type { PositionedAction } from '../../schemas/action.ts';
import type { DecodedBatch, SequencedBatch } from '../../schemas/batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles, sourceBatch } from './fixtures.ts';
import { chunksOf } from './sequence-arbitraries.ts';

const NAMES = ['lang', 'city'];
/** `movie:7` is 7; `lang:3` is 103, `city:3` is 203, from 1 to 5; all other languages and cities share row 300. */
const tokenizer: Tokenizer = {
  token: ({ action, entity }) => {
    const [namespace, number] = entity.split(':') as [string, string];
    if (action === 'nonsense') return { kind: 'refuse', code: 'ACTION_UNKNOWN', message: 'no such action' };
    if (namespace === 'movie') return { kind: 'token', entity: Number(number) };
    const known = Number(number) >= 1 && Number(number) <= 5;
    return { kind: 'token', entity: known ? 100 * (1 + NAMES.indexOf(namespace)) + Number(number) : 300 };
  },
};
const entityOf = (token: number) =>
  token === 300 ? 'row:300' : token > 200 ? `city:${token - 200}` : token > 100 ? `lang:${token - 100}` : `movie:${token}`;

const actionOf = (offset: number, more: Partial<PositionedAction> = {}): PositionedAction => ({
  eventId: `e${offset}`,
  userId: 'u',
  action: 'view',
  entity: 'movie:1',
  eventTimeMs: 1000 * offset,
  position: { topic: 'actions', partition: 0, offset },
  ...more,
});
const batchOf = (actions: readonly PositionedAction[]): DecodedBatch => ({
  source: sourceBatch(0, []),
  actions,
  deadLetters: [],
});
const options = { names: NAMES, action: 'has' };
const run = (batch: DecodedBatch): DecodedBatch => {
  let out: DecodedBatch | undefined;
  of(batch)
    .pipe(sideFeatures(options))
    .subscribe((decoded) => {
      out = decoded;
    });
  return out!;
};

describe('sideFeatures', () => {
  operatorContract('sideFeatures', {
    create: () => sideFeatures(options),
    inputs: () => [batchOf([actionOf(1, { context: { lang: 'en' } })]), batchOf([actionOf(2)])],
    view: ({ actions }: DecodedBatch) => actions,
  });

  it('gives a batch for a batch, in its own time', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = {
        a: batchOf([actionOf(1, { context: { city: '3', device: 'tv', lang: 'en' } })]),
        b: batchOf([actionOf(2)]),
      };
      const source$ = cold('  -a--(b|)', batches);
      const subscribed = '    ^---!';
      const expected = '      -a--(b|)';
      const feature = (name: string, value: string) => ({
        ...actionOf(1, { eventId: `e1#${name}`, action: 'has', entity: `${name}:${value}` }),
        derived: true,
      });
      expectObservable(source$.pipe(sideFeatures(options))).toBe(expected, {
        a: { ...batches.a, actions: [feature('lang', 'en'), feature('city', '3'), batches.a.actions[0]] },
        b: batches.b,
      });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('keeps every action as it was, in its place, whatever the context', () => {
    const context = fc.option(fc.dictionary(fc.constantFrom('lang', 'city', 'device', 'toString'), fc.string(), { maxKeys: 4 }), {
      nil: undefined,
    });
    fc.assert(
      fc.property(fc.array(context, { maxLength: 20 }), (contexts) => {
        const actions = contexts.map((each, i) => actionOf(i, each === undefined ? {} : { context: each }));
        const out = run(batchOf(actions)).actions;
        expect(out.filter(({ derived }) => derived === undefined)).toEqual(actions);
        const expected = actions.flatMap((one) => [
          ...NAMES.filter((name) => (one.context?.[name] ?? '') !== '').map((name) => `${name}:${one.context![name]}`),
          one.eventId,
        ]);
        expect(out.map(({ derived, entity, eventId }) => (derived ? entity : eventId))).toEqual(expected);
        expect(new Set(out.map(({ eventId }) => eventId)).size).toBe(out.length);
      }),
    );
  });
});

function runSequence(chunks: readonly (readonly PositionedAction[])[], more: Partial<SequenceOptions> = {}) {
  const store = new InMemorySequenceStore();
  const out: SequencedBatch[] = [];
  from(chunks.map(batchOf))
    .pipe(
      sideFeatures(options),
      sequence({
        tokenizer,
        window: { maxLength: 12, blockLength: 4 },
        store,
        featureRuns: { namespaces: NAMES, entityOf },
        publish: 'every-event',
        ...more,
      }),
    )
    .subscribe((batch) => out.push(batch));
  return { out, store };
}
const tokensOf = (store: InMemorySequenceStore, userId = 'u') =>
  Array.from(store.get(userId)?.snapshot().entities ?? [], entityOf);
const dispositions = (out: readonly SequencedBatch[]) =>
  out.flatMap(({ processed }) => processed.map(({ action, disposition }) => `${action.eventId} ${disposition}`));

describe('runs of side features', () => {
  const has = (offset: number, entity: string, more: Partial<PositionedAction> = {}) =>
    actionOf(offset, { action: 'has', entity, ...more });

  it('keep their earliest event, each feature by itself, and a value that comes back is new', () => {
    const actions = [
      has(1, 'lang:1'),
      has(2, 'city:1'),
      has(3, 'lang:1'),
      actionOf(4),
      has(5, 'lang:2'),
      has(6, 'city:1'),
      has(7, 'lang:1'),
      has(8, 'lang:1'),
    ];
    const { out, store } = runSequence([actions]);
    expect(tokensOf(store)).toEqual(['lang:1', 'city:1', 'movie:1', 'lang:2', 'lang:1']);
    expect(dispositions(out).filter((line) => line.endsWith('duplicate'))).toEqual([
      'e3 duplicate',
      'e6 duplicate',
      'e8 duplicate',
    ]);
  });

  it('are judged at the time of the event, also of a late one', () => {
    const { store } = runSequence([[has(1, 'lang:1'), has(5, 'lang:2'), has(3, 'lang:1'), has(4, 'lang:2'), has(6, 'lang:2')]]);
    expect(tokensOf(store)).toEqual(['lang:1', 'lang:2', 'lang:2']);
  });

  it('come from contexts, where the repeated and the unknown leave no trace', () => {
    const context = (lang: string) => ({ context: { lang } });
    const { out, store } = runSequence([
      [actionOf(1, context('1')), actionOf(2, context('1')), actionOf(3, context('xx')), actionOf(4, context('2'))],
    ]);
    expect(tokensOf(store)).toEqual(['lang:1', 'movie:1', 'movie:1', 'movie:1', 'lang:2', 'movie:1']);
    expect(dispositions(out)).toEqual(['e1#lang', 'e1', 'e2', 'e3', 'e4#lang', 'e4'].map((id) => `${id} appended`));
    expect(out.map(({ unknownFeatures }) => [...(unknownFeatures ?? [])])).toEqual([[['lang', 1]]]);
    const nonsense = runSequence([[actionOf(1, { ...context('1'), action: 'nonsense' })]]);
    expect(nonsense.out[0]!.deadLetters.map(({ action }) => action)).toEqual(['nonsense']);
  });

  it('are not ranked: nobody recommends a language', () => {
    const { out } = runSequence([[actionOf(1), has(2, 'lang:1'), actionOf(3), has(4, 'lang:2')]]);
    expect(out[0]!.updates[0]!.targets.map(({ action }) => action.eventId)).toEqual(['e3']);
  });

  it('are the same by definition, and however the events are cut', () => {
    const drawn = fc.array(
      fc.record({
        user: fc.constantFrom('u', 'v'),
        kind: fc.constantFrom('movie', 'lang', 'city'),
        value: fc.integer({ min: 1, max: 3 }),
        context: fc.option(fc.constantFrom('1', '2', 'xx'), { nil: undefined }),
        jitter: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -6, max: 0 }) }),
      }),
      { maxLength: 60, size: 'max' },
    );
    fc.assert(
      fc.property(drawn, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }), (events, sizes) => {
        const actions = events.map(({ user, kind, value, context, jitter }, i) =>
          actionOf(i, {
            userId: user,
            action: kind === 'movie' ? 'view' : 'has',
            entity: `${kind}:${value}`,
            eventTimeMs: 1000 * (Math.floor(i / 2) + jitter),
            ...(context !== undefined && { context: { lang: context } }),
          }),
        );
        // Windows that never slide, so that the definition needs no window.
        const window = { maxLength: 200, blockLength: 50 };
        const { store } = runSequence([actions], { window });
        for (const user of ['u', 'v']) {
          const expected: { entity: string; timeMs: number }[] = [];
          const append = (entity: string, timeMs: number) => {
            const before = expected.filter((each) => each.timeMs <= timeMs);
            const namespace = entity.split(':')[0]!;
            const inForce = before.filter((each) => each.entity.startsWith(`${namespace}:`)).at(-1);
            if (namespace !== 'movie' && inForce?.entity === entity) return;
            expected.splice(before.length, 0, { entity, timeMs });
          };
          for (const { userId, entity, eventTimeMs, context } of actions) {
            if (userId !== user) continue;
            if (context !== undefined && context['lang'] !== 'xx') append(`lang:${context['lang']}`, eventTimeMs);
            append(entity, eventTimeMs);
          }
          expect(tokensOf(store, user)).toEqual(expected.map(({ entity }) => entity));
        }
        // In windows that slide: the same however cut, all that is published with it.
        const whole = runSequence([actions]);
        const cut = runSequence(chunksOf(actions, sizes));
        expect(dispositions(cut.out).sort()).toEqual(dispositions(whole.out).sort());
        const published = (out: readonly SequencedBatch[]) =>
          out
            .flatMap(({ updates }) =>
              updates.flatMap(({ userId, publish }) => publish.map((p) => `${userId} ${p.version} ${p.sequenceDigest}`)),
            )
            .sort();
        expect(published(cut.out)).toEqual(published(whole.out));
        const ranked = (out: readonly SequencedBatch[]) =>
          out
            .flatMap(({ updates }) =>
              updates.flatMap(({ targets }) => targets.map((t) => `${t.action.eventId} ${t.sequenceDigest}`)),
            )
            .sort();
        expect(ranked(cut.out)).toEqual(ranked(whole.out));
      }),
    );
  });
});
