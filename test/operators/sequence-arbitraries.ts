/** Histories as they come: nearly in order, with ties, late events, duplicates, kinds that are skipped, several users. */
import fc from 'fast-check';
import type { EventSpec } from './fixtures.ts';
import type { ReferenceOptions } from './reference-sequence.ts';

export const optionsArbitrary: fc.Arbitrary<ReferenceOptions> = fc
  .record({
    maxLength: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 30, max: 80 })),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    seenLimit: fc.integer({ min: 1, max: 9 }),
  })
  .map(({ maxLength, share, seenLimit }) => ({ maxLength, blockLength: 1 + Math.floor(share * (maxLength - 1)), seenLimit }));

export const eventsArbitrary = (users: number, maxEvents: number): fc.Arbitrary<EventSpec[]> =>
  fc
    .array(
      fc.record({
        user: fc.integer({ min: 1, max: users }),
        /** Mostly the event's own number; a small one is often a duplicate. */
        id: fc.oneof({ weight: 9, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 12 }) }),
        jitter: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.integer({ min: -12, max: 4 }) }),
        entity: fc.oneof(
          { weight: 8, arbitrary: fc.integer({ min: 1, max: 12 }) },
          { weight: 1, arbitrary: fc.constant(0) },
          { weight: 1, arbitrary: fc.constant(-1) },
        ),
      }),
      { maxLength: maxEvents, size: 'max' },
    )
    .map((drawn) =>
      drawn.map(({ user, id, jitter, entity }, i) => ({
        userId: `u${user}`,
        eventId: `e${id < 0 ? i : id}`,
        timeMs: 1_000_000 + 250 * (Math.floor(i / 2) + jitter),
        entity,
      })),
    );

/** Cuts a list at random places. */
export const chunksOf = <T>(list: readonly T[], sizes: readonly number[]): T[][] => {
  const chunks: T[][] = [];
  for (let at = 0, i = 0; at < list.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(list.slice(at, at + size));
    at += size;
  }
  return chunks;
};
