import fc from 'fast-check';
import { concat, of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { InMemorySequenceStore } from '../../operators/in-memory-sequence-store.ts';
import { sequence } from '../../operators/sequence.ts';
import type { SequenceRequestsOptions } from '../../operators/sequence-requests.ts';
import type { PositionedRequest } from '../../schemas/avro/requests.ts';
import type { DecodedBatch, SequencedBatch, SequencedRequest } from '../../schemas/batch.ts';
import { digestHex, EMPTY_DIGEST } from '../../schemas/sequence-digest.ts';
import { decodedBatch, type EventSpec, event, marbles, sourceBatch, tokenizer } from './fixtures.ts';
import { requestOf, vocabulary } from './request-fixtures.ts';
import { chunksOf, eventsArbitrary } from './sequence-arbitraries.ts';

const window = { maxLength: 9, blockLength: 3 };
const requestsBatch = (requests: readonly PositionedRequest[]): DecodedBatch => ({
  source: { ...sourceBatch(0, []), topic: 'requests' },
  actions: [],
  deadLetters: [],
  requests,
});

function run(
  batches: readonly DecodedBatch[],
  options: Partial<SequenceRequestsOptions> = {},
  store = new InMemorySequenceStore(),
) {
  const out: SequencedBatch[] = [];
  concat(...batches.map((batch) => of(batch)))
    .pipe(sequence({ tokenizer, window, seenLimit: 9, store, requests: { vocabulary, ...options } }))
    .subscribe((batch) => out.push(batch));
  return { out, store };
}

const history = [event('ann', 'e1', 2000, 3), event('ann', 'e2', 1000, 4), event('ann', 'e3', 5000, 5)];
const ask = (request: Partial<PositionedRequest>, options?: Partial<SequenceRequestsOptions>): SequencedRequest =>
  run([decodedBatch(0, history), requestsBatch([requestOf({ userId: 'ann', ...request })])], options).out[1]!.requests![0]!;

describe('a request in the sequence step', () => {
  it('comes out with its batch, at once', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: decodedBatch(0, history), r: requestsBatch([requestOf({ userId: 'bob' })]) };
      const source$ = cold('  -a-r-|', batches);
      const subscribed = '    ^----!';
      const expected = '      -a-r-|';
      const [a, r] = run([batches.a, batches.r]).out;
      const operator = sequence({ tokenizer, window, seenLimit: 9, requests: { vocabulary } });
      expectObservable(source$.pipe(operator)).toBe(expected, { a, r });
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it("carries its user's window, ordered by time, asked about the request's time", () => {
    const asked = ask({ entities: ['movie:7'], queryTimeMs: 9_500 });
    expect([...asked.window.entities]).toEqual([4, 3, 5]);
    expect([...asked.window.timesS]).toEqual([1, 2, 5]);
    expect(asked).toMatchObject({ version: 3, queryTimeMs: 9_500, lastEventTimeMs: 5_000, expired: false });
    expect(asked.window.queryTimeS).toBe(9);
    expect(asked.request.requestId).toBe('r0');
  });

  it('is not asked about a time before its newest event', () => {
    expect(ask({ queryTimeMs: 3_000 })).toMatchObject({ queryTimeMs: 5_000, window: { queryTimeS: 5 } });
  });

  it('of a user of whom nothing is known has no tokens, and none is made', () => {
    const { out, store } = run([requestsBatch([requestOf({ userId: 'zoe', entities: ['movie:1'] })])]);
    const [asked] = out[0]!.requests!;
    expect(asked).toMatchObject({ version: 0, sequenceDigest: digestHex(EMPTY_DIGEST), entities: ['movie:1'] });
    expect(asked!.window.entities.length).toBe(0);
    expect('lastEventTimeMs' in asked!).toBe(false);
    expect(store.size).toBe(0);
  });

  it('names an entity once, however often it was asked for', () => {
    const asked = ask({ entities: ['movie:2', 'movie:7', 'movie:2', 'movie:7', 'movie:2'] });
    expect(asked.entities).toEqual(['movie:2', 'movie:7']);
    expect([...asked.candidates]).toEqual([2, 7]);
  });

  it('leaves out what it denies, and what the model does not know, with the reason', () => {
    const request = { entities: ['movie:2', 'song:1', 'movie:9'], deny: ['movie:9', 'movie:99'] };
    expect(ask(request, { unknownCandidates: 'leave-out' })).toMatchObject({
      entities: ['movie:2'],
      leftOut: [
        { entity: 'song:1', reason: 'unknown-entity' },
        { entity: 'movie:9', reason: 'denied' },
      ],
    });
    const hashed = ask(request);
    expect(hashed).toMatchObject({ entities: ['movie:2', 'song:1'], leftOut: [{ entity: 'movie:9', reason: 'denied' }] });
    expect(hashed.candidates[1]).toBeGreaterThan(20);
    const rowless = {
      ...vocabulary,
      rowOf: (entity: string) => (entity.startsWith('song') ? undefined : vocabulary.rowOf(entity)),
    };
    expect(ask(request, { vocabulary: rowless })).toMatchObject({
      leftOut: [{ reason: 'unknown-entity' }, { reason: 'denied' }],
    });
  });

  it('hides from the catalogue what was denied and what was seen, and from a list nothing that was seen', () => {
    const hidden = (request: Partial<PositionedRequest>, options?: Partial<SequenceRequestsOptions>) => [
      ...ask(request, options).hidden,
    ];
    expect(hidden({ topK: 3, deny: ['movie:8'] })).toEqual([8, 3, 4, 5]);
    expect(hidden({ topK: 3, deny: ['movie:8'] }, { seenFilter: false })).toEqual([8]);
    expect(hidden({ topK: 3, entities: ['movie:3'], deny: ['movie:8'] })).toEqual([]);
  });

  it('past its deadline when it was read does not look at the state', () => {
    const looks: string[] = [];
    const store = new InMemorySequenceStore();
    store.get = (userId) => {
      looks.push(userId);
      return undefined;
    };
    const late = requestOf({ userId: 'ann', entities: ['movie:1'], deadlineMs: 999_999 });
    const { out } = run([requestsBatch([late, { ...late, userId: 'bob', deadlineMs: 1_000_000 }])], {}, store);
    expect(out[0]!.requests).toMatchObject([
      { request: late, expired: true, entities: [] },
      { expired: false, entities: ['movie:1'] },
    ]);
    expect(looks).toEqual(['bob']);
  });

  it('needs to be expected', () => {
    const errors: unknown[] = [];
    of(requestsBatch([]))
      .pipe(sequence({ tokenizer, window }))
      .subscribe({ error: (error) => errors.push(error) });
    expect(errors).toMatchObject([{ code: 'CONFIG_INVALID', message: expect.stringContaining('requests') }]);
  });

  it('changes nothing, wherever it comes among any events, and tells the state of just then', () => {
    const facts = (store: InMemorySequenceStore) =>
      ['u1', 'u2', 'u3'].map((user) => {
        const sequenceOf = store.get(user);
        return [sequenceOf?.version, sequenceOf?.digest, [...(sequenceOf?.seen() ?? [])], sequenceOf?.eventIds];
      });
    fc.assert(
      fc.property(
        eventsArbitrary(3, 60),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
        (events, sizes) => {
          const asking = requestsBatch(['u1', 'u2', 'u3'].map((userId) => requestOf({ userId, entities: ['movie:1'], topK: 1 })));
          const chunks = chunksOf<EventSpec>(events, sizes).map((chunk, i) => decodedBatch(100 * i, chunk));
          const asked = run(chunks.flatMap((chunk) => [chunk, asking]));
          const unasked = run(chunks);
          expect(facts(asked.store)).toEqual(facts(unasked.store));
          expect(asked.out.filter(({ requests }) => requests === undefined)).toEqual(unasked.out);
          const newest = asked.out.at(-1)?.requests ?? [];
          for (const { request, sequenceDigest, version } of newest) {
            expect(version).toBe(asked.store.get(request.userId)?.version ?? 0);
            expect(sequenceDigest).toBe(asked.store.get(request.userId)?.digest ?? digestHex(EMPTY_DIGEST));
          }
        },
      ),
    );
  });
});
