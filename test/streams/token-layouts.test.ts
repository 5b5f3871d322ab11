/** Several actions a token, values and two tokens an event, through the whole topology: cached ≡ full, however cut. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { makeBundle } from '../../models/hstu/bundle.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { UserAction } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { shadowCheck } from '../../streams/shadow-check.ts';
import { TopologyDriver } from '../../streams/topology-driver.ts';
import { RANKING } from '../models/bundles.ts';
import { chunksOf } from '../operators/sequence-arbitraries.ts';

const mapping = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  value: 'value',
  eventTime: { field: 'eventTimeMs', unit: 'ms' as const },
};
const START = 1_500_000_000_000;

/** Nearly in order; kinds alone and together, with and without values, kept ones, unknown ones, entities out of the vocabulary. */
const actionsArbitrary: fc.Arbitrary<UserAction[]> = fc
  .array(
    fc.record({
      userId: fc.constantFrom('ann', 'bob'),
      action: fc.constantFrom('view', 'like', 'rate', 'view+like', 'rate+buy', 'view+like+rate+buy', 'tag', 'dance'),
      item: fc.integer({ min: 1, max: 70 }),
      value: fc.option(fc.constantFrom(0, 2, 3.7, 50, 1_000), { nil: undefined }),
      jitter: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -8, max: 0 }) }),
    }),
    { minLength: 1, maxLength: 110, size: 'max' },
  )
  .map((drawn) =>
    drawn.map(({ userId, action, item, value, jitter }, i) => ({
      eventId: `e${i}`,
      userId,
      action,
      entity: `item:${item}`,
      eventTimeMs: START + 45_000 * (i + jitter),
      ...(value !== undefined && { value }),
    })),
  );

/** The same, of users who speak: languages that change now and then, some that nobody knows, and some said by themselves. */
const spokenArbitrary: fc.Arbitrary<(UserAction & { readonly lang?: string })[]> = fc
  .tuple(actionsArbitrary, fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 12 }))
  .map(([actions, languages]) =>
    actions.map((action, i) => {
      const language = languages[Math.floor(i / 4) % languages.length]!;
      if (i % 9 === 5) return { ...action, action: 'view', entity: `lang:${1 + (language % 5)}` };
      return language === 0 ? action : { ...action, lang: `${language}` };
    }),
  );

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

describe.each([
  ['additive', RANKING['STU, additive tokens, values, both biases']!, 1],
  ['interleaved', RANKING['STU, interleaved tokens, values, local']!, 2],
] as const)('layout %s', (_, bundle, tokensAnEvent) => {
  // The last five entities of the catalogue are languages.
  const speaking = makeBundle({ ...bundle, entities: bundle.entities.map((entity, i) => (i < 45 ? entity : `lang:${i - 44}`)) });
  const driver = (publish: 'every-batch' | 'every-event', speaks = false) => {
    const sequence = { sideFeatures: { namespaces: ['lang'], contextAction: 'view' } };
    const made = speaks
      ? new TopologyDriver({
          bundle: speaking,
          mapping: { ...mapping, context: { lang: 'lang' } },
          settings: { publish, sequence },
        })
      : new TopologyDriver({ bundle, mapping, settings: { publish } });
    closing.push(() => made.close());
    return made;
  };
  const pipe = (target: TopologyDriver, actions: readonly UserAction[]) => target.pipe(actions.map((one) => JSON.stringify(one)));

  it.each([
    ['alone', false],
    ['with side features merged in, from contexts and by themselves', true],
  ])('gives what a full encode gives, by any batches and through crashes, and ranks alike: %s', async (_case, speaks) => {
    let [tokens, slid, features, repeated] = [0, 0, 0, 0];
    await fc.assert(
      fc.asyncProperty(
        speaks ? spokenArbitrary : actionsArbitrary,
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 9 }),
        async (actions, sizes, crashEvery) => {
          const [batched, single] = [driver('every-batch', speaks), driver('every-event', speaks)];
          const outputs: OutputBatch[] = [];
          for (const [i, chunk] of chunksOf(actions, sizes).entries()) {
            outputs.push(await pipe(batched, chunk));
            if (i % crashEvery === crashEvery - 1) await batched.crash();
          }
          const whole = await pipe(single, actions);
          const ranks = (all: readonly OutputBatch[]) =>
            all.flatMap(({ quality }) => quality.map(({ eventId, rank }) => `${eventId}=${rank}`)).sort();
          expect(ranks(outputs)).toEqual(ranks([whole]));
          for (const [target, all] of [[batched, outputs] as const, [single, [whole]] as const]) {
            const last = new Map(all.flatMap(({ embeddings }) => embeddings.map((one) => [one.userId, one] as const)));
            const published = new Map(
              [...last].map(([userId, { embedding, lineage, queryTimeMs }]) => [
                userId,
                { embedding, sequenceDigest: lineage.sequenceDigest, queryTimeMs },
              ]),
            );
            const check = await shadowCheck(speaks ? speaking : bundle, target.store, published);
            expect(check.digestMismatches).toBe(0);
            if (check.users > 0) expect(check.maxDelta).toBeLessThan(1e-5);
          }
          const accepted = whole.processed.filter(({ disposition }) => disposition === 'appended' || disposition === 'inserted');
          const versions = ['ann', 'bob'].map((userId) => single.store.get(userId)?.version ?? 0);
          expect(versions[0]! + versions[1]!).toBe(tokensAnEvent * accepted.length);
          expect(whole.deadLetters.map(({ code, action }) => `${code} ${action}`).sort()).toEqual(
            actions.filter(({ action }) => action === 'dance').map(() => 'ACTION_UNKNOWN dance'),
          );
          tokens += versions[0]! + versions[1]!;
          features += accepted.filter(({ action }) => action.entity.startsWith('lang:')).length;
          repeated += whole.processed.filter(({ disposition }) => disposition === 'duplicate').length;
          slid += ['ann', 'bob'].filter((userId) => (single.store.get(userId)?.windowStart ?? 0) > 0).length;
        },
      ),
      // Seeded: what was tried is known to be long enough, every time.
      { numRuns: speaks ? 8 : 12, seed: 2 },
    );
    // The eyes are open: windows were long, and slid.
    expect(tokens).toBeGreaterThan(200);
    if (tokensAnEvent === 2) expect(slid).toBeGreaterThan(0);
    if (speaks) expect(Math.min(features, repeated)).toBeGreaterThan(5);
  });

  it('takes side features from contexts, the earliest of each run, and stays equal to a full encode', async () => {
    const actions = Array.from({ length: 50 }, (_unused, i) => ({
      eventId: `e${i}`,
      userId: 'ann',
      action: 'view+like',
      entity: `item:${1 + ((i * 7) % 40)}`,
      eventTimeMs: START + 60_000 * (i % 9 === 8 ? i - 4 : i),
      lang: String(1 + (Math.floor(i / 12) % 2)),
    }));
    const [whole, cut] = [driver('every-batch', true), driver('every-batch', true)];
    const outputs = [await pipe(whole, actions)];
    const cutOutputs: OutputBatch[] = [];
    for (const [i, chunk] of chunksOf(actions, [3, 5]).entries()) {
      cutOutputs.push(await pipe(cut, chunk));
      if (i % 4 === 3) await cut.crash();
    }
    const ranks = (all: readonly OutputBatch[]) =>
      all.flatMap(({ quality }) => quality.map(({ eventId, rank }) => `${eventId}=${rank}`));
    expect(ranks(cutOutputs).sort()).toEqual(ranks(outputs).sort());
    expect(ranks(outputs).some((line) => line.includes('#'))).toBe(false);
    const features = outputs[0]!.processed.filter(({ action }) => action.derived).map(({ action }) => action.entity);
    expect(features.slice(0, 2)).toEqual(['lang:1', 'lang:2']);
    expect(features.length).toBeLessThan(12);
    for (const [target, all] of [[whole, outputs] as const, [cut, cutOutputs] as const]) {
      const { embedding, lineage, queryTimeMs } = all.at(-1)!.embeddings.at(-1)!;
      const published = new Map([['ann', { embedding, sequenceDigest: lineage.sequenceDigest, queryTimeMs }]]);
      const check = await shadowCheck(speaking, target.store, published);
      expect(check.digestMismatches).toBe(0);
      expect(check.maxDelta).toBeLessThan(1e-5);
    }
    expect(whole.store.get('ann')!.digest).toBe(cut.store.get('ann')!.digest);
    const dancing = { sequence: { sideFeatures: { namespaces: ['lang'], contextAction: 'dance' } } };
    const wrong = new TopologyDriver({ bundle: speaking, mapping, settings: dancing });
    closing.push(() => wrong.close());
    await expect(wrong.pipe(['{}'])).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('contextAction'),
    });
  });

  it('answers requests from such a history as a full pass does', async () => {
    const target = driver('every-batch');
    const kinds = ['view', 'view+like', 'rate', 'buy+like'];
    const actions = Array.from({ length: 60 }, (_unused, i) => ({
      eventId: `e${i}`,
      userId: 'ann',
      action: kinds[i % 4]!,
      entity: `item:${1 + ((i * 7) % 50)}`,
      eventTimeMs: START + 60_000 * i,
      value: i % 6,
    }));
    for (const chunk of chunksOf(actions, [7])) await pipe(target, chunk);
    const entities = Array.from({ length: 40 }, (_unused, i) => `item:${i + 1}`);
    const queryTimeMs = START + 4_000_000;
    const { scores } = await target.ask([JSON.stringify({ requestId: 'r', userId: 'ann', entities, queryTimeMs })]);
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
    closing.push(() => engine.release());
    const segment = { ...target.store.get('ann')!.snapshot(), queryTimeS: Math.floor(queryTimeMs / 1000) };
    expect(segment.windowStart > 0).toBe(tokensAnEvent === 2);
    const rows = Int32Array.from(scores[0]!.candidates, ({ entity }) => Number(entity.slice('item:'.length)));
    const [full] = await engine.scoreCandidatesInFull([{ userId: 'ann', segment, candidates: rows }]);
    for (const [i, { score }] of scores[0]!.candidates.entries()) expect(Math.abs(score - full!.combined[i]!)).toBeLessThan(1e-4);
    for (const [task, probabilities] of Object.entries(full!.tasks))
      for (const [i, p] of probabilities.entries()) expect(Math.abs(p - scores[0]!.tasks![task]![i]!)).toBeLessThan(1e-4);
  });
});
