/** Events of two tokens, the entity and what was done with it: the same laws, in pairs. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { changesOf, loadSequence } from '../../operators/state-pages.ts';
import { UserSequence } from '../../operators/user-sequence.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';
import { ReferenceUser } from './reference-sequence.ts';
import { eventsArbitrary } from './sequence-arbitraries.ts';
import { MapStore, viewOf } from './state-records.ts';

/** What was done with entity `e` is the token `100 + e`. */
const second = (entity: number) => 100 + entity;
const SEEN_LIMIT = 9;

describe('a sequence of events of two tokens', () => {
  const window = fc
    .record({ maxEvents: fc.integer({ min: 6, max: 40 }), share: fc.double({ min: 0, max: 1, noNaN: true }) })
    .map(({ maxEvents, share }) => ({ maxLength: maxEvents, blockLength: 1 + Math.floor(share * (maxEvents - 1)) }));
  const inTokens = ({ maxLength, blockLength }: { maxLength: number; blockLength: number }) => ({
    maxLength: 2 * maxLength,
    blockLength: 2 * blockLength,
  });

  it('is that of its events with every token doubled, after any history', () => {
    fc.assert(
      fc.property(window, eventsArbitrary(1, 150), (options, events) => {
        const reference = new ReferenceUser({ ...options, seenLimit: SEEN_LIMIT });
        const sequence = new UserSequence({ window: inTokens(options), seenLimit: SEEN_LIMIT });
        for (const event of events.filter(({ entity }) => entity > 0)) {
          const { disposition } = reference.apply(event);
          expect(sequence.add(event.eventId, event.timeMs, event.entity, second(event.entity))).toBe(disposition);
          expect(sequence.version).toBe(2 * reference.tokens.all.length);
          expect(sequence.windowStart).toBe(2 * reference.tokens.start);
        }
        const kept = reference.tokens.window;
        const { entities, timesS, pageDigests: pages } = sequence.snapshot();
        expect([...entities]).toEqual(kept.flatMap(({ entity }) => [entity, second(entity)]));
        expect([...timesS]).toEqual(kept.flatMap(({ timeMs }) => [Math.floor(timeMs / 1000), Math.floor(timeMs / 1000)]));
        expect(pages).toEqual(pageDigests(entities, timesS));
        expect(sequence.eventIds).toEqual(kept.flatMap(({ eventId }) => [eventId, eventId]));
        expect([...sequence.seen()]).toEqual(reference.seen);
        expect(sequence.slidesWith(2)).toBe(sequence.length === 2 * options.maxLength);
      }),
      { numRuns: 150 },
    );
  });

  it('accounts for an id once, however many places it has', () => {
    const sequence = new UserSequence({ window: { maxLength: 8, blockLength: 4 }, seenLimit: SEEN_LIMIT });
    const before = sequence.bytes;
    for (let i = 0; i < 100; i++) {
      sequence.add(`${i}`.padStart(1_000, '0'), 1_000 * i, 1, 2);
      const ids = sequence.length / 2;
      // Its ids, those dropped last, and little beside them.
      expect(sequence.bytes - before).toBeGreaterThan(1_000 * ids);
      expect(sequence.bytes - before).toBeLessThan(1_000 * (ids + 1) + 3_000);
    }
  });

  it('goes on after it was written down as if it had never left memory', () => {
    fc.assert(
      fc.property(window, eventsArbitrary(1, 120), fc.integer({ min: 1, max: 40 }), (options, events, every) => {
        const settings = { window: inTokens(options), seenLimit: SEEN_LIMIT };
        const store = new MapStore();
        const whole = new UserSequence(settings);
        let written = new UserSequence(settings);
        for (const [i, { eventId, timeMs, entity }] of events.entries()) {
          if (entity <= 0) continue;
          whole.add(eventId, timeMs, entity, second(entity));
          written.add(eventId, timeMs, entity, second(entity));
          if (i % every !== 0) continue;
          store.apply(changesOf('u', written));
          written = loadSequence('u', store, settings)!;
          expect(written.bytes).toBeGreaterThan(0);
        }
        expect(viewOf(written)).toEqual(viewOf(whole));
      }),
      { numRuns: 100 },
    );
  });
});
