import fc from 'fast-check';
import { from, lastValueFrom, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { eraseUser } from '../../operators/erase-user.ts';
import { InMemorySequenceStore } from '../../operators/in-memory-sequence-store.ts';
import { type SequenceOptions, sequence } from '../../operators/sequence.ts';
import type { DecodedBatch, SequencedBatch, UserUpdate } from '../../schemas/batch.ts';
import { digestHex, digestTokens, pageDigests } from '../../schemas/sequence-digest.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { decodedBatch, type EventSpec, event, marbles, sourceBatch, tokenizer } from './fixtures.ts';
import { type Context, ReferenceUser } from './reference-sequence.ts';
import { chunksOf, eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';

const window = { maxLength: 4, blockLength: 2 };
const run = (batches: readonly DecodedBatch[], options: Partial<SequenceOptions> = {}): SequencedBatch[] => {
  const out: SequencedBatch[] = [];
  from(batches)
    .pipe(sequence({ tokenizer, window, seenLimit: 100, ...options }))
    .subscribe((batch) => void out.push(batch));
  return out;
};
const one = (events: readonly EventSpec[], options: Partial<SequenceOptions> = {}) => run([decodedBatch(0, events)], options)[0]!;
const shapeOf = ({ request, targets, publish }: UserUpdate) => ({
  segments: request.segments.map(({ windowStart, entities, from, queryTimeS }) => [
    windowStart,
    [...entities].join(' '),
    from,
    queryTimeS,
  ]),
  targets: targets.map(({ action, segment, row }) => [action.eventId, segment, row]),
  publish: publish.map(({ segment, version }) => [segment, version]),
});

/** What a row of a segment depends on. */
function contextOf(update: UserUpdate, at: { segment: number; row: number; seenStart: number; seenCount: number }): Context {
  const segment = update.request.segments[at.segment]!;
  const row = segment.from + at.row;
  expect(at.row).toBeGreaterThanOrEqual(0);
  expect(row).toBeLessThan(segment.entities.length);
  return {
    windowStart: segment.windowStart,
    entities: [...segment.entities.subarray(0, row + 1)],
    timesS: [...segment.timesS.subarray(0, row + 1)],
    queryTimeS: segment.timesS[row + 1] ?? segment.queryTimeS,
    seen: [...update.seen.subarray(at.seenStart, at.seenCount)],
  };
}

/** Everything that the updates ask for, resolved to what it depends on. */
function outcomeOf(batches: readonly SequencedBatch[]) {
  const ranks = batches.flatMap(({ updates }) =>
    updates.flatMap((update) =>
      update.targets.map((target) => ({
        eventId: target.action.eventId,
        offset: target.action.position.offset,
        entity: target.entity,
        priorEvents: target.priorEvents,
        sequenceDigest: target.sequenceDigest,
        context: contextOf(update, target),
      })),
    ),
  );
  const published = batches.flatMap(({ updates }) =>
    updates.flatMap((update) =>
      update.publish.map(({ segment, seenStart, seenCount, position, ...point }) => {
        const { entities, from } = update.request.segments[segment]!;
        return {
          userId: update.userId,
          offset: position.offset,
          ...point,
          context: contextOf(update, { segment, row: entities.length - 1 - from, seenStart, seenCount }),
        };
      }),
    ),
  );
  return { ranks, published };
}

/** The same by definition, one event at a time, publishing after every event or at the end of each chunk. */
function referenceOutcome(
  chunks: readonly EventSpec[][],
  options: Parameters<typeof newUser>[0],
  every: 'every-batch' | 'every-event',
) {
  const users = new Map<string, ReferenceUser>();
  const ranks: unknown[] = [];
  const published: unknown[] = [];
  const dispositions: string[] = [];
  let offset = 0;
  for (const chunk of chunks) {
    const firstSeen: string[] = [];
    const changed = new Map<string, number>();
    for (const spec of chunk) {
      if (spec.entity >= 0) {
        const user = users.get(spec.userId) ?? newUser(options);
        users.set(spec.userId, user);
        if (spec.entity > 0 && !firstSeen.includes(spec.userId)) firstSeen.push(spec.userId);
        const { disposition, ranked } = user.apply(spec);
        dispositions.push(disposition);
        if (ranked) ranks.push({ eventId: spec.eventId, offset, ...ranked });
        if (disposition === 'appended' || disposition === 'inserted') {
          changed.set(spec.userId, offset);
          if (every === 'every-event') published.push({ userId: spec.userId, offset, ...user.published() });
        }
      }
      offset++;
    }
    if (every === 'every-batch')
      for (const userId of firstSeen)
        if (changed.has(userId)) published.push({ userId, offset: changed.get(userId), ...users.get(userId)!.published() });
  }
  return { users, ranks, published, dispositions };
}
const newUser = (options: { maxLength: number; blockLength: number; seenLimit: number }) => new ReferenceUser(options);

const sortByOffset = <T>(list: readonly T[]): T[] =>
  [...list].sort((a, b) => (a as { offset: number }).offset - (b as { offset: number }).offset);

describe('sequence', () => {
  operatorContract('sequence', {
    create: () => sequence({ tokenizer, window, seenLimit: 100 }),
    inputs: () => [
      decodedBatch(0, [event('a', 'e0', 1000), event('b', 'e1', 2000)]),
      decodedBatch(2, [event('a', 'e0', 1000), event('a', 'e2', 3000)]),
      decodedBatch(4, [event('a', 'e3', 2000)]),
    ],
    view: ({ processed, updates }: SequencedBatch) => ({
      dispositions: processed.map(({ disposition }) => disposition),
      ...outcomeOf([{ updates } as SequencedBatch]),
    }),
  });

  it('gives a batch for a batch, in its own time', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: decodedBatch(0, []), b: decodedBatch(0, []) };
      const source$ = cold('  -a--(ab|)', batches);
      const subscribed = '    ^---!';
      const expected = '      -a--(ab|)';
      const emptied = {
        a: { source: batches.a.source, processed: [], deadLetters: [], updates: [] },
        b: { source: batches.b.source, processed: [], deadLetters: [], updates: [] },
      };
      expectObservable(source$.pipe(sequence({ tokenizer, window }))).toBe(expected, emptied);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it.each(['every-batch', 'every-event'] as const)('does not depend on how events are cut into batches (%s)', (publish) => {
    const met = { slides: 0, inserted: 0, ranks: 0, duplicates: 0, late: 0 };
    fc.assert(
      fc.property(
        optionsArbitrary,
        eventsArbitrary(3, 150),
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 6 }),
        (options, events, sizes) => {
          const chunks = chunksOf(events, sizes);
          let offset = 0;
          const batches = chunks.map((chunk) => {
            const batch = decodedBatch(offset, chunk);
            offset += chunk.length;
            return batch;
          });
          const store = new InMemorySequenceStore();
          const out = run(batches, { window: options, seenLimit: options.seenLimit, publish, store });
          const expected = referenceOutcome(chunks, options, publish);
          const got = outcomeOf(out);

          expect(out.flatMap(({ processed }) => processed.map(({ disposition }) => disposition))).toEqual(expected.dispositions);
          expect(sortByOffset(got.ranks)).toEqual(sortByOffset(expected.ranks));
          if (publish === 'every-batch') expect(got.published).toEqual(expected.published);
          else expect(sortByOffset(got.published)).toEqual(sortByOffset(expected.published));
          for (const [userId, user] of expected.users) {
            const held = store.get(userId)!;
            expect([...held.snapshot().entities]).toEqual(user.tokens.window.map(({ entity }) => entity));
            expect([held.digest, held.version, [...held.seen()]]).toEqual([user.digest, user.tokens.all.length, user.seen]);
            if (user.tokens.start > 0) met.slides++;
          }
          expect(store.size).toBe(expected.users.size);
          for (const { updates } of out) {
            expect(new Set(updates.map(({ userId }) => userId)).size).toBe(updates.length);
            for (const { request, publish: points, targets } of updates) {
              const asked = new Set([...points, ...targets].map(({ segment }) => segment));
              // Nothing is encoded for nobody, and segments carry what the encoder checks its cache with.
              expect([...asked].sort((a, b) => a - b)).toEqual(request.segments.map((_, i) => i));
              for (const { entities, timesS, pageDigests: pages } of request.segments)
                expect(pages).toEqual(pageDigests(entities, timesS));
              if (publish === 'every-batch') expect(points.length).toBe(1);
            }
          }
          met.ranks += expected.ranks.length;
          for (const disposition of expected.dispositions) {
            if (disposition === 'inserted') met.inserted++;
            if (disposition === 'duplicate') met.duplicates++;
            if (disposition === 'late') met.late++;
          }
        },
      ),
      { numRuns: 300 },
    );
    for (const [what, count] of Object.entries(met)) expect(count, what).toBeGreaterThan(100);
  });

  describe('cuts segments', () => {
    it('a first run: one segment from row 0, each event ranked by the row before it', () => {
      const { updates } = one([event('a', 'e0', 1000, 1), event('a', 'e1', 2000, 2), event('a', 'e2', 3500, 3)]);
      expect(shapeOf(updates[0]!)).toEqual({
        segments: [[0, '1 2 3', 0, 3]],
        targets: [
          ['e1', 0, 0],
          ['e2', 0, 1],
        ],
        publish: [[0, 3]],
      });
    });

    it('a later run begins at the tail row', () => {
      const out = run([
        decodedBatch(0, [event('a', 'e0', 1000, 1), event('a', 'e1', 2000, 2)]),
        decodedBatch(2, [event('a', 'e2', 3000, 3)]),
      ]);
      expect(shapeOf(out[1]!.updates[0]!)).toEqual({
        segments: [[0, '1 2 3', 1, 3]],
        targets: [['e2', 0, 0]],
        publish: [[0, 3]],
      });
    });

    it('a slide ends the old window with a query at the time of the event that made it slide', () => {
      const events = [1, 2, 3, 4, 5, 6].map((i) => event('a', `e${i}`, 1000 * i, i));
      expect(shapeOf(one(events).updates[0]!)).toEqual({
        segments: [
          [0, '1 2 3 4', 0, 5],
          [2, '3 4 5 6', 2, 6],
        ],
        targets: [
          ['e2', 0, 0],
          ['e3', 0, 1],
          ['e4', 0, 2],
          ['e5', 0, 3],
          ['e6', 1, 0],
        ],
        publish: [[1, 6]],
      });
      // The slide comes first in its batch: the old window is a pure query of its last row.
      const split = run([decodedBatch(0, events.slice(0, 4)), decodedBatch(4, events.slice(4))]);
      expect(shapeOf(split[1]!.updates[0]!)).toEqual({
        segments: [
          [0, '1 2 3 4', 3, 5],
          [2, '3 4 5 6', 2, 6],
        ],
        targets: [
          ['e5', 0, 0],
          ['e6', 1, 0],
        ],
        publish: [[1, 6]],
      });
    });

    it('a late event ends the run before it, is not ranked, and later events extend its segment', () => {
      const window = { maxLength: 9, blockLength: 3 };
      const events = [
        event('a', 'e0', 1000, 1),
        event('a', 'e1', 5000, 2),
        event('a', 'late', 3000, 9),
        event('a', 'e2', 6000, 3),
      ];
      expect(shapeOf(one(events, { window }).updates[0]!)).toEqual({
        segments: [
          [0, '1 2', 0, 5],
          [0, '1 9 2 3', 2, 6],
        ],
        targets: [
          ['e1', 0, 0],
          ['e2', 1, 0],
        ],
        publish: [[1, 4]],
      });
    });

    it('several late events cost one encoding, and so does a late event before a slide', () => {
      const before = [1, 2].map((i) => event('a', `e${i}`, 1000 * i, i));
      const late = [event('a', 'l1', 1500, 8), event('a', 'l2', 1200, 9)];
      const out = run([decodedBatch(0, before), decodedBatch(2, [...late, event('a', 'e3', 3000, 3)])]);
      expect(shapeOf(out[1]!.updates[0]!)).toEqual({
        segments: [
          [0, '1 9 8 2', 3, 3],
          [2, '8 2 3', 2, 3],
        ],
        targets: [['e3', 0, 0]],
        publish: [[1, 5]],
      });
    });

    it('a late event may make the window slide, and may be dropped by its own slide', () => {
      const before = [1, 2, 3, 4].map((i) => event('a', `e${i}`, 1000 * i, i));
      const out = run([decodedBatch(0, before), decodedBatch(4, [event('a', 'late', 1500, 9)])]);
      expect(out[1]!.processed.map(({ disposition }) => disposition)).toEqual(['inserted']);
      expect(shapeOf(out[1]!.updates[0]!)).toEqual({ segments: [[2, '2 3 4', 2, 4]], targets: [], publish: [[0, 5]] });
    });

    it('every-event: each token has its segment and its publication', () => {
      const events = [
        event('a', 'e0', 1000, 1),
        event('a', 'e1', 5000, 2),
        event('a', 'late', 3000, 9),
        event('a', 'e2', 6000, 3),
      ];
      expect(shapeOf(one(events, { publish: 'every-event' }).updates[0]!)).toEqual({
        segments: [
          [0, '1', 0, 1],
          [0, '1 2', 0, 5],
          [0, '1 9 2', 2, 5],
          [0, '1 9 2 3', 2, 6],
        ],
        targets: [
          ['e1', 1, 0],
          ['e2', 3, 0],
        ],
        publish: [
          [0, 1],
          [1, 2],
          [2, 3],
          [3, 4],
        ],
      });
    });
  });

  it('asks for no ranks where nobody reads them, and publishes the same', () => {
    const events = [event('a', 'e0', 1000, 1), event('a', 'e1', 5000, 2), event('a', 'late', 3000, 9), event('a', 'e2', 6000, 3)];
    const [first, ...rest] = events.map((each, i) => decodedBatch(i, [each]));
    const [ranked, unranked] = [true, false].map((ranks) => run([first!, ...rest], { ranks }));
    expect(outcomeOf(unranked!)).toEqual({ ranks: [], published: outcomeOf(ranked!).published });
    expect(outcomeOf(ranked!).ranks).toHaveLength(2);
    // The row before the newest is not asked for.
    expect(shapeOf(unranked![1]!.updates[0]!)).toEqual({ segments: [[0, '1 2', 1, 5]], targets: [], publish: [[0, 2]] });
  });

  it('gives no update for a user of whom nothing changed, and keeps users in order of appearance', () => {
    const [first, second] = run([
      decodedBatch(0, [event('b', 'e0', 5000), event('a', 'e1', 5000), event('b', 'e2', 6000)]),
      decodedBatch(3, [event('a', 'e1', 5000), event('c', 'k', 1000, 0), event('b', 'e0', 5000)]),
    ]);
    expect(first!.updates.map(({ userId }) => userId)).toEqual(['b', 'a']);
    expect(second!.updates).toEqual([]);
    expect(second!.processed.map(({ disposition }) => disposition)).toEqual(['duplicate', 'kept', 'duplicate']);
  });

  it('makes a dead letter, with the original record, of what the tokenizer refuses and of a time that is none', () => {
    const refused = event('a', 'e1', 2000, -1);
    const timeless = { ...event('a', 'e2', Number.NaN), note: 'no time' };
    const decoded = decodedBatch(7, [event('a', 'e0', 1000), refused, timeless]);
    const earlier = {
      position: { topic: 'actions', partition: 0, offset: 6 },
      code: 'FIELD_MISSING',
      step: 'decode',
      message: 'm',
      original: 'x',
    } as const;
    const { deadLetters, processed, source } = run([{ ...decoded, deadLetters: [earlier] }])[0]!;
    expect(source).toBe(decoded.source);
    expect(processed.length).toBe(1);
    expect(deadLetters.map(({ code, step, position, original }) => [code, step, position.offset, original])).toEqual([
      ['FIELD_MISSING', 'decode', 6, 'x'],
      ['ACTION_UNKNOWN', 'sequence', 8, JSON.stringify(refused)],
      ['TIME_INVALID', 'sequence', 9, JSON.stringify(timeless)],
    ]);
  });

  it('forgets the oldest of the seen without losing what an earlier event of the batch had seen', () => {
    const events = [1, 2, 3, 4, 5, 6].map((i) => event('a', `e${i}`, 1000 * i, i));
    const { updates } = one(events, { window: { maxLength: 9, blockLength: 3 }, seenLimit: 4 });
    const { seen, targets, publish } = updates[0]!;
    const seenOf = ({ seenStart, seenCount }: { seenStart: number; seenCount: number }) =>
      [...seen.subarray(seenStart, seenCount)].join('');
    expect(targets.map(seenOf)).toEqual(['1', '12', '123', '1234', '2345']);
    expect(publish.map(seenOf)).toEqual(['3456']);
  });

  it('states the lineage of what a rank and an embedding were made of', () => {
    const { updates } = one([
      event('a', 'e0', 1999, 4),
      event('a', 'e0', 1999, 4),
      event('a', 'e1', 2000, 7),
      event('a', 'k', 2000, 0),
    ]);
    const { targets, publish } = updates[0]!;
    expect(targets[0]!.sequenceDigest).toBe(digestHex(digestTokens(Int32Array.of(4), Float64Array.of(1))));
    expect(publish[0]!.sequenceDigest).toBe(digestHex(digestTokens(Int32Array.of(4, 7), Float64Array.of(1, 2))));
    expect(publish[0]!.position.offset).toBe(2);
    expect([publish[0]!.lastEventTimeMs, publish[0]!.queryTimeMs, publish[0]!.sequenceLength]).toEqual([2000, 2000, 2]);
  });

  it('starts anew with a user who was erased', () => {
    const store = new InMemorySequenceStore();
    run([decodedBatch(0, [event('a', 'e0', 1000), event('b', 'e1', 1000)])], { store });
    expect([store.size, store.bytes > 0, eraseUser(store, 'a'), eraseUser(store, 'a'), store.size]).toEqual([
      2,
      true,
      true,
      false,
      1,
    ]);
    const { updates } = run([decodedBatch(2, [event('a', 'e0', 500)])], { store })[0]!;
    expect(updates[0]!.publish[0]!.version).toBe(1);
  });

  it('forwards an error of the tokenizer', async () => {
    const failure = new Error('tokenizer is broken');
    const broken = {
      token: () => {
        throw failure;
      },
    };
    const out$ = from([decodedBatch(0, [event('a', 'e0', 1)])]).pipe(sequence({ tokenizer: broken, window }), toArray());
    await expect(lastValueFrom(out$)).rejects.toBe(failure);
  });

  it('refuses bad options when called', () => {
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID' });
    expect(() => sequence({ tokenizer, window: { maxLength: 2, blockLength: 3 } })).toThrowError(refused);
    expect(() => sequence({ tokenizer, window, seenLimit: 0 })).toThrowError(refused);
  });

  it('finds the record of a dead letter by its position, and does without it', () => {
    const [action] = decodedBatch(3, [event('a', 'e0', 1, -1)]).actions;
    const { deadLetters } = run([{ source: sourceBatch(0, []), actions: [action!], deadLetters: [] }])[0]!;
    expect(JSON.parse(deadLetters[0]!.original as string)).toMatchObject({ eventId: 'e0' });
  });
});
