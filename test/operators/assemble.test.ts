import fc from 'fast-check';
import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { assemble } from '../../operators/assemble.ts';
import { sequence } from '../../operators/sequence.ts';
import type { OutputBatch, RequestAnswer, ScoredBatch, ScoredUpdate, SequencedBatch } from '../../schemas/batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { decodedBatch, type EventSpec, event, fakeResult, marbles, tokenizer } from './fixtures.ts';
import { askedOf } from './request-fixtures.ts';
import { eventsArbitrary } from './sequence-arbitraries.ts';

const options = { modelDigest: 'm1', entityOf: (row: number) => `movie:${row}`, now: () => 1_000_250 };

const scoredOf = (
  events: readonly EventSpec[],
  publish: 'every-batch' | 'every-event' = 'every-batch',
  topK = 2,
): ScoredBatch => {
  let batch: SequencedBatch | undefined;
  of(decodedBatch(40, events))
    .pipe(sequence({ tokenizer, window: { maxLength: 9, blockLength: 3 }, publish }))
    .subscribe((sequenced) => {
      batch = sequenced;
    });
  const updates = batch!.updates.map((update): ScoredUpdate => {
    const last = update.request.segments.length - 1;
    const segments = fakeResult(update.request).segments.map(
      (segment, k) => ({ ...segment, outcome: k === last ? segment.outcome : 'cold' }) as const,
    );
    const scores = segments.map(({ rows }, k) => ({
      ranks: Int32Array.from({ length: rows.length / 2 }, (_, r) => 100 * k + r + 1),
      topEntities: Int32Array.from({ length: topK }, (_, i) => 7 + i),
      topScores: Float32Array.from({ length: topK }, (_, i) => 1 - i / 2),
    }));
    return { update, segments, scores };
  });
  return { batch: batch!, updates };
};
const run = (input: ScoredBatch): OutputBatch => {
  let out: OutputBatch | undefined;
  of(input)
    .pipe(assemble(options))
    .subscribe((output) => {
      out = output;
    });
  return out!;
};
const history = [
  event('a', 'e0', 1000, 1),
  event('a', 'e1', 5000, 2),
  event('a', 'late', 3000, 9),
  event('a', 'e2', 6000, 3),
  event('b', 'e3', 1500, 5),
];

describe('assemble', () => {
  operatorContract('assemble', {
    create: () => assemble(options),
    inputs: () => [scoredOf(history), scoredOf([])],
    view: ({ embeddings, scores, quality }: OutputBatch) => ({ embeddings, scores, quality }),
  });

  it('gives a batch for a batch, in its own time', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: scoredOf(history), b: scoredOf([]) };
      const source$ = cold('  -a--(b|)', batches);
      const subscribed = '    ^---!';
      const expected = '      -a--(b|)';
      expectObservable(source$.pipe(assemble(options))).toBe(expected, { a: run(batches.a), b: run(batches.b) });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it('makes the records of a batch', () => {
    const input = scoredOf(history);
    const { source, processed, deadLetters, embeddings, scores, quality } = run(input);
    const [a, b] = input.updates as [ScoredUpdate, ScoredUpdate];
    const place = (offset: number, sequenceDigest: string) => ({
      topic: 'actions',
      partition: 0,
      offset,
      sequenceDigest,
      modelDigest: 'm1',
    });
    expect(source).toBe(input.batch.source);
    expect(processed).toBe(input.batch.processed);
    expect(deadLetters).toBe(input.batch.deadLetters);
    expect(embeddings).toEqual([
      {
        userId: 'a',
        version: 4,
        embedding: a.segments[1]!.rows.slice(-2),
        sequenceLength: 4,
        lastEventTimeMs: 6000,
        queryTimeMs: 6000,
        lineage: place(43, a.update.publish[0]!.sequenceDigest),
        computedAtMs: 1_000_250,
        latencyMs: 250,
        // Both segments were computed for this one embedding: rows 0 … 1, then 2 … 3.
        rowsComputed: 4,
        outcome: 'hit',
      },
      expect.objectContaining({
        userId: 'b',
        version: 1,
        lineage: place(44, b.update.publish[0]!.sequenceDigest),
        rowsComputed: 1,
      }),
    ]);
    expect(scores[0]).toEqual({
      userId: 'a',
      version: 4,
      candidates: [
        { entity: 'movie:7', score: 1 },
        { entity: 'movie:8', score: 0.5 },
      ],
      lineage: embeddings[0]!.lineage,
      computedAtMs: 1_000_250,
    });
    expect(scores.length).toBe(2);
    const rank = { userId: 'a', action: 'rating' };
    expect(quality).toEqual([
      {
        ...rank,
        eventId: 'e1',
        entity: 'movie:2',
        eventTimeMs: 5000,
        priorEvents: 1,
        rank: 1,
        lineage: place(41, a.update.targets[0]!.sequenceDigest),
      },
      {
        ...rank,
        eventId: 'e2',
        entity: 'movie:3',
        eventTimeMs: 6000,
        priorEvents: 3,
        rank: 101,
        lineage: place(43, a.update.targets[1]!.sequenceDigest),
      },
    ]);
  });

  it('gives no rank to what has none', () => {
    const input = scoredOf(history);
    input.updates[0]!.scores[0]!.ranks.fill(0);
    expect(run(input).quality.map(({ eventId }) => eventId)).toEqual(['e2']);
  });

  it('gives an answer to every request but those past their deadline, and says what became of each', () => {
    const asked = [
      askedOf('a', [1, 2], { requestId: 'x', entities: ['movie:1'], queryTimeMs: 9_000 }),
      askedOf('b', [], { requestId: 'y' }),
      askedOf('c', [1], { requestId: 'z' }),
    ];
    const answers: RequestAnswer[] = [
      {
        asked: asked[0]!,
        disposition: 'answered',
        candidates: [{ entity: 'movie:1', score: 1 }],
        tasks: { like: Float32Array.of(1) },
      },
      { asked: { ...asked[1]!, leftOut: [{ entity: 'q', reason: 'denied' }] }, disposition: 'cold-start', candidates: [] },
      { asked: asked[2]!, disposition: 'expired', candidates: [] },
    ];
    const { scores, requests } = run({ ...scoredOf([]), answers });
    const lineage = { topic: 'requests', partition: 0, offset: 0, sequenceDigest: '0'.repeat(16), modelDigest: 'm1' };
    const computedAtMs = 1_000_250;
    expect(scores).toEqual([
      {
        userId: 'a',
        version: 2,
        requestId: 'x',
        candidates: [{ entity: 'movie:1', score: 1 }],
        tasks: { like: Float32Array.of(1) },
        queryTimeMs: 9_000,
        ageMs: 7_000,
        lineage,
        computedAtMs,
      },
      {
        userId: 'b',
        version: 0,
        requestId: 'y',
        candidates: [],
        leftOut: [{ entity: 'q', reason: 'denied' }],
        coldStart: true,
        queryTimeMs: 10_000,
        lineage,
        computedAtMs,
      },
    ]);
    expect(requests).toEqual(asked.map(({ request }, i) => ({ request, disposition: answers[i]!.disposition })));
    expect('requests' in run(scoredOf([]))).toBe(false);
  });

  it('gives no candidates where none were asked for', () => {
    const { embeddings, scores } = run(scoredOf(history, 'every-batch', 0));
    expect([embeddings.length, scores.length]).toEqual([2, 0]);
  });

  it("copies the embedding out of the encoder's rows", () => {
    const input = scoredOf(history);
    const { embedding } = run(input).embeddings[0]!;
    const before = embedding.slice();
    input.updates[0]!.segments[1]!.rows.fill(0);
    expect(embedding).toEqual(before);
    expect(embedding.buffer.byteLength).toBe(8);
  });

  it('publishes what was asked, once, and accounts for every computed row, for any history', () => {
    fc.assert(
      fc.property(eventsArbitrary(3, 60), fc.constantFrom('every-batch' as const, 'every-event' as const), (events, publish) => {
        const input = scoredOf(events, publish);
        const { embeddings, scores, quality, processed } = run(input);
        const versions = (list: readonly { userId: string; version: number }[]) =>
          list.map(({ userId, version }) => `${userId}@${version}`);
        expect(versions(embeddings)).toEqual(
          input.updates.flatMap(({ update }) => update.publish.map(({ version }) => `${update.userId}@${version}`)),
        );
        expect(versions(scores)).toEqual(versions(embeddings));
        const computed = input.updates
          .flatMap(({ segments }) => segments)
          .reduce((sum, { rowsComputed }) => sum + rowsComputed, 0);
        expect(embeddings.reduce((sum, { rowsComputed }) => sum + rowsComputed, 0)).toBe(computed);
        const appended = processed.filter(({ disposition }) => disposition === 'appended').length;
        expect(quality.length).toBe(appended - input.updates.filter(({ update }) => update.userId).length);
      }),
    );
  });
});
