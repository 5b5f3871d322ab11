/** Requests for candidates through the whole topology: real operators, model and cache. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { UserAction } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { CandidateRequest } from '../../schemas/avro/requests.ts';
import type { CandidateScores } from '../../schemas/output.ts';
import { TopologyDriver, type TopologyDriverOptions } from '../../streams/topology-driver.ts';
import { CACHEABLE, RANKING } from '../models/bundles.ts';

const mapping = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  value: 'value',
  eventTime: { field: 'eventTimeMs', unit: 'ms' as const },
};
const START = 1_500_000_000_000;
const MINUTE = 60_000;
const action = (userId: string, n: number, more: Partial<UserAction> = {}): UserAction => ({
  eventId: `${userId}-${n}`,
  userId,
  action: 'view',
  entity: `item:${1 + ((n * 7) % 50)}`,
  eventTimeMs: START + n * MINUTE,
  ...more,
});
const codec = new AvroCodec();
const request = (more: Partial<CandidateRequest> = {}): CandidateRequest => ({
  requestId: 'r',
  userId: 'ann',
  entities: ['item:3', 'item:44', 'item:9'],
  queryTimeMs: START + 1_000 * MINUTE,
  ...more,
});

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
function driver(bundle: Bundle, settings: TopologyDriverOptions['settings'] = {}): TopologyDriver {
  const made = new TopologyDriver({ bundle, mapping, settings });
  closing.push(() => made.close());
  return made;
}
const pipe = (target: TopologyDriver, actions: readonly UserAction[]) => target.pipe(actions.map((one) => JSON.stringify(one)));
const ask = (target: TopologyDriver, requests: readonly CandidateRequest[]) =>
  target.ask(requests.map((one, i) => (i % 2 === 0 ? codec.encode('CandidateRequest', one) : JSON.stringify(one))));
async function answerTo(target: TopologyDriver, one: CandidateRequest): Promise<CandidateScores> {
  const { scores } = await ask(target, [one]);
  expect(scores).toHaveLength(1);
  return scores[0]!;
}

/** The same scores by full passes over the user's window, no cache, one candidate at a time. */
async function inFull(bundle: Bundle, target: TopologyDriver, userId: string, entities: readonly string[], queryTimeMs: number) {
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  closing.push(() => engine.release());
  const window = target.store.get(userId)!.snapshot();
  const segment = { ...window, queryTimeS: Math.floor(queryTimeMs / 1000) };
  const tokenizer = new Tokenizer(bundle);
  const scores = new Map<string, number>();
  for (const entity of entities) {
    const candidates = Int32Array.of(tokenizer.rowOf(entity)!);
    if (bundle.config.ranking !== undefined) {
      const [result] = await engine.scoreCandidatesInFull([{ userId, segment, candidates }]);
      scores.set(entity, result!.combined[0]!);
    } else {
      const [encoded] = await engine.encode([{ userId, segments: [{ ...segment, from: window.entities.length - 1 }] }]);
      const rows = encoded!.segments[0]!.rows;
      const table = bundle.tensors
        .get('entity_embedding')!
        .data.subarray(candidates[0]! * rows.length, (candidates[0]! + 1) * rows.length);
      const norm = Math.hypot(...table);
      scores.set(
        entity,
        rows.reduce((sum, x, d) => sum + (x * table[d]!) / norm, 0),
      );
    }
  }
  return scores;
}

const retrieval = CACHEABLE['plain']!;
const both = RANKING['STU']!;
const additive = RANKING['STU, additive tokens, values, both biases']!;
const rankingOnly: Bundle = { ...both, config: { ...both.config, retrieval: false } };

describe.each([
  ['retrieves', retrieval],
  ['ranks and retrieves', both],
  ['ranks tokens of several actions', additive],
  ['only ranks', rankingOnly],
])('a bundle that %s', (_, bundle) => {
  it('answers from the cached history as a full encode and score would, and the state stays as it was', async () => {
    const target = driver(bundle, { scores: { topK: 0 } });
    for (let n = 0; n < 90; n += 9)
      await pipe(
        target,
        Array.from({ length: 9 }, (_unused, i) => action(i % 3 === 0 ? 'bob' : 'ann', n + i)),
      );
    const before = [target.store.get('ann')!.digest, target.store.get('ann')!.version, target.store.size];
    const asked = request({ entities: ['item:3', 'item:44', 'item:9', 'item:3', 'item:50'] });
    const answer = await answerTo(target, asked);
    expect([target.store.get('ann')!.digest, target.store.get('ann')!.version, target.store.size]).toEqual(before);
    expect(answer).toMatchObject({
      requestId: 'r',
      userId: 'ann',
      version: 60,
      queryTimeMs: asked.queryTimeMs,
      ageMs: asked.queryTimeMs - (START + 89 * MINUTE),
      lineage: { topic: 'driver-requests', offset: 0, sequenceDigest: before[0], modelDigest: bundle.digest },
    });
    expect('coldStart' in answer || 'leftOut' in answer).toBe(false);
    const expected = await inFull(bundle, target, 'ann', ['item:3', 'item:44', 'item:9', 'item:50'], asked.queryTimeMs);
    expect(answer.candidates.map(({ entity }) => entity).sort()).toEqual([...expected.keys()].sort());
    for (const { entity, score } of answer.candidates) expect(Math.abs(score - expected.get(entity)!)).toBeLessThan(1e-4);
    const scores = answer.candidates.map(({ score }) => score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(Object.keys(answer.tasks ?? {})).toEqual(bundle.config.ranking?.tasks.map(({ name }) => name) ?? []);
    // Asked about another time, or after one more event, the answer is another one: the test would notice a stale window.
    await pipe(target, [action('ann', 95)]);
    const later = await answerTo(target, asked);
    expect(later.version).toBe(61);
    expect(later.candidates).not.toEqual(answer.candidates);
  });

  it('marks the answer to a user it has never seen', async () => {
    const target = driver(bundle);
    await pipe(target, [action('bob', 1)]);
    const answer = await answerTo(target, request());
    expect(answer).toMatchObject({ coldStart: true, version: 0 });
    expect('ageMs' in answer).toBe(false);
    expect(answer.candidates).toHaveLength(3);
    expect(answer.candidates.every(({ score }) => (bundle === retrieval ? score === 0 : score !== 0))).toBe(true);
    expect(target.store.size).toBe(1);
    const { requests } = await ask(target, [request(), request({ userId: 'bob' }), request({ deadlineMs: 1 })]);
    expect(requests!.map(({ disposition }) => disposition)).toEqual(['cold-start', 'answered', 'expired']);
  });

  it('gives the best of the catalogue, without what was seen or denied', async () => {
    const target = driver(bundle, { scores: { topK: 0 } });
    await pipe(
      target,
      Array.from({ length: 20 }, (_unused, n) => action('ann', n)),
    );
    const seen = new Set(Array.from({ length: 20 }, (_unused, n) => action('ann', n).entity));
    const { candidates } = await answerTo(target, request({ entities: [], topK: 5 }));
    expect(candidates).toHaveLength(5);
    expect(candidates.some(({ entity }) => seen.has(entity))).toBe(false);
    const deny = [candidates[0]!.entity, candidates[3]!.entity];
    const again = await answerTo(target, request({ entities: [], topK: 5, deny }));
    expect(again.candidates.some(({ entity }) => deny.includes(entity) || seen.has(entity))).toBe(false);
    expect(again.candidates[0]!.entity).toBe(candidates[1]!.entity);
    expect((await answerTo(target, request({ entities: [] }))).candidates).toEqual([]);
  });
});

describe('requests', () => {
  it('for entities that the model does not know are scored by their shared row, or left out with a reason', async () => {
    const entities = ['item:3', 'song:1', 'song:2', 'item:4'];
    const [hashed, leftOut] = [driver(additive), driver(additive, { scores: { unknownCandidates: 'leave-out' } })];
    for (const target of [hashed, leftOut]) await pipe(target, [action('ann', 1), action('ann', 2)]);
    const answer = await answerTo(hashed, request({ entities }));
    const expected = await inFull(additive, hashed, 'ann', entities, request().queryTimeMs);
    for (const { entity, score } of answer.candidates) expect(Math.abs(score - expected.get(entity)!)).toBeLessThan(1e-4);
    expect(answer.candidates).toHaveLength(4);
    const less = await answerTo(leftOut, request({ entities, deny: ['item:4'] }));
    expect(less.candidates.map(({ entity }) => entity)).toEqual(['item:3']);
    expect(less.leftOut).toEqual([
      { entity: 'song:1', reason: 'unknown-entity' },
      { entity: 'song:2', reason: 'unknown-entity' },
      { entity: 'item:4', reason: 'denied' },
    ]);
    // Without shared rows there is nothing to score them by.
    const rowless = driver(both);
    await pipe(rowless, [action('ann', 1)]);
    expect((await answerTo(rowless, request({ entities }))).leftOut).toHaveLength(2);
  });

  it('of ten thousand, all unknown, or of nothing are answered; one more is a dead letter', async () => {
    const target = driver(additive);
    await pipe(target, [action('ann', 1)]);
    const many = Array.from({ length: 10_000 }, (_, i) => `item:${i}`);
    const answer = await answerTo(target, request({ entities: many }));
    expect(answer.candidates).toHaveLength(10_000);
    expect(answer.tasks!['like']).toHaveLength(10_000);
    const { scores, deadLetters } = await ask(target, [request({ entities: [...many, 'item:x'] }), request({ entities: [] })]);
    expect(deadLetters).toMatchObject([{ step: 'decode', code: 'FIELD_INVALID', message: expect.stringContaining('10001') }]);
    expect(scores).toMatchObject([{ candidates: [] }]);
  });

  it('after an erasure find nobody', async () => {
    const target = driver(both);
    await pipe(target, [action('ann', 1), action('ann', 2)]);
    expect(await answerTo(target, request())).toMatchObject({ version: 2 });
    await pipe(target, [action('ann', 3, { action: 'erase' })]);
    expect(await answerTo(target, request())).toMatchObject({ version: 0, coldStart: true });
  });

  it('that are no requests become dead letters, and the others are answered', async () => {
    const target = driver(retrieval);
    const bad = [
      '',
      '{}',
      JSON.stringify(request({ topK: 0 })),
      JSON.stringify({ ...request(), deny: 'x' }),
      Buffer.from([0, 1, 2]),
    ];
    const output = await target.ask([...bad, JSON.stringify(request())]);
    expect(output.deadLetters).toHaveLength(5);
    expect(output.scores).toHaveLength(1);
    expect(output.requests).toHaveLength(1);
  });

  it('come out the same after a crash, and leave every later output as if nobody had asked', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ user: fc.constantFrom('ann', 'bob'), ask: fc.boolean(), crash: fc.boolean() }), {
          minLength: 5,
          maxLength: 25,
        }),
        async (script) => {
          const [asked, silent] = [driver(both), driver(both)];
          for (const [n, { user, ask: asks, crash }] of script.entries()) {
            if (asks) {
              const one = request({
                userId: user,
                topK: 3,
                entities: n % 2 === 0 ? [] : ['item:1', 'item:2', 'item:5', 'item:8'],
              });
              const answer = await answerTo(asked, one);
              if (crash) {
                await asked.crash();
                const again = await answerTo(asked, one);
                expect(again.lineage.sequenceDigest).toBe(answer.lineage.sequenceDigest);
                for (const [i, { score }] of again.candidates.entries())
                  expect(score).toBeCloseTo(answer.candidates[i]!.score, 4);
              }
            }
            const [a, b] = [await pipe(asked, [action(user, n)]), await pipe(silent, [action(user, n)])];
            expect(a.embeddings[0]!.lineage).toEqual(b.embeddings[0]!.lineage);
            for (const [d, x] of a.embeddings[0]!.embedding.entries()) expect(x).toBeCloseTo(b.embeddings[0]!.embedding[d]!, 4);
          }
        },
      ),
      { numRuns: 5 },
    );
  });
});
