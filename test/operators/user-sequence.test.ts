import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserSequence } from '../../operators/user-sequence.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';
import { ReferenceUser } from './reference-sequence.ts';
import { eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';

const filled = (maxLength: number, blockLength: number, timesMs: readonly number[], seenLimit = 100) => {
  const sequence = new UserSequence({ window: { maxLength, blockLength }, seenLimit });
  timesMs.forEach((timeMs, i) => void sequence.add(`e${i}`, timeMs, i + 1));
  return sequence;
};
const entitiesOf = (sequence: UserSequence) => [...sequence.snapshot().entities];

describe('UserSequence', () => {
  it('is what its definition says, after any history', () => {
    let inserted = 0;
    let slides = 0;
    fc.assert(
      fc.property(optionsArbitrary, eventsArbitrary(1, 200), (options, events) => {
        const reference = new ReferenceUser(options);
        const sequence = new UserSequence({ window: options, seenLimit: options.seenLimit });
        for (const event of events) {
          if (event.entity < 0) continue;
          const { disposition } = reference.apply(event);
          const got =
            event.entity === 0
              ? sequence.keep(event.eventId, event.timeMs)
              : sequence.add(event.eventId, event.timeMs, event.entity);
          expect(got).toBe(disposition);
          if (got === 'inserted') inserted++;
          if (got === 'appended' && sequence.windowStart > 0 && sequence.length <= options.maxLength - options.blockLength + 1)
            slides++;
          expect(sequence.digest).toBe(reference.digest);
          expect(sequence.version).toBe(reference.tokens.all.length);
          expect(sequence.newestTimeMs).toBe(reference.newestTimeMs);
        }
        const { window, start } = reference.tokens;
        const { entities, timesS, windowStart, pageDigests: pages } = sequence.snapshot();
        expect([...entities]).toEqual(window.map(({ entity }) => entity));
        expect([...timesS]).toEqual(window.map(({ timeMs }) => Math.floor(timeMs / 1000)));
        expect(windowStart).toBe(start);
        expect(pages).toEqual(pageDigests(entities, timesS));
        expect(sequence.eventIds).toEqual(window.map(({ eventId }) => eventId));
        expect(sequence.keptLength).toBe(reference.kept.window.length);
        expect([...sequence.seen()]).toEqual(reference.seen);
        for (let entity = 0; entity <= 13; entity++) expect(sequence.hasSeen(entity)).toBe(reference.seen.includes(entity));
        expect(sequence.slidesWith(1)).toBe(sequence.length === options.maxLength);
      }),
      { numRuns: 300 },
    );
    // The histories met what they are for.
    expect(inserted).toBeGreaterThan(1000);
    expect(slides).toBeGreaterThan(1000);
  });

  it('drops the oldest block when it grows over its length', () => {
    const sequence = filled(4, 2, [1, 2, 3, 4]);
    expect([sequence.windowStart, sequence.slidesWith(1)]).toEqual([0, true]);
    sequence.add('e4', 5, 5);
    expect(entitiesOf(sequence)).toEqual([3, 4, 5]);
    expect([sequence.windowStart, sequence.version, sequence.slidesWith(1)]).toEqual([2, 5, false]);
  });

  it('puts a late event after all of its time or earlier', () => {
    const sequence = filled(8, 2, [1000, 2000, 2000, 3000]);
    expect(sequence.add('late', 2000, 99)).toBe('inserted');
    expect(entitiesOf(sequence)).toEqual([1, 2, 3, 99, 4]);
    expect(sequence.add('tie', 3000, 98)).toBe('appended');
    expect(entitiesOf(sequence)).toEqual([1, 2, 3, 99, 4, 98]);
  });

  it('refuses what is older than the newest token it dropped, and knows the dropped of that very time', () => {
    const sequence = filled(2, 2, [10, 20, 30]);
    expect(entitiesOf(sequence)).toEqual([3]);
    expect(sequence.add('older', 19, 9)).toBe('late');
    expect(sequence.add('e1', 20, 2)).toBe('duplicate');
    expect(sequence.add('e0', 20, 1)).toBe('inserted');
    expect(entitiesOf(sequence)).toEqual([1, 3]);
  });

  it('remembers ids of dropped tokens over several slides of one time, and no more than twice the window', () => {
    const sequence = filled(2, 1, [5, 5, 5, 5, 5, 5, 5, 5]);
    // e0 … e5 are dropped, e6 and e7 held; the last 4 of the dropped are remembered.
    expect(['e1', 'e2', 'e5', 'e6', 'e7'].map((id) => sequence.classify(id, 5))).toEqual([
      'appended',
      'duplicate',
      'duplicate',
      'duplicate',
      'duplicate',
    ]);
  });

  it('does not let a token and a kept event share an id', () => {
    const sequence = filled(4, 2, [1]);
    expect(sequence.keep('e0', 2)).toBe('duplicate');
    expect(sequence.keep('k', 2)).toBe('kept');
    expect(sequence.keep('k', 2)).toBe('duplicate');
    expect(sequence.add('k', 3, 1)).toBe('duplicate');
    expect(sequence.version).toBe(1);
  });

  it('gives copies: a snapshot stays as it was', () => {
    const sequence = filled(
      64,
      32,
      Array.from({ length: 40 }, (_, i) => 1000 * i),
    );
    const snapshot = sequence.snapshot();
    const seen = sequence.seen();
    const copy = structuredClone(snapshot);
    sequence.seen().fill(0);
    expect(sequence.seen()[0]).toBe(1);
    for (let i = 0; i < 40; i++) sequence.add(`l${i}`, 500 * i, 50 + i);
    expect(snapshot).toEqual(copy);
    expect(seen.length).toBe(40);
  });

  it('holds a bounded number of bytes, whatever the history', () => {
    const sequence = new UserSequence({ window: { maxLength: 64, blockLength: 16 }, seenLimit: 32 });
    const feed = (from: number, to: number) => {
      for (let i = from; i < to; i++) {
        sequence.add(`token-${String(i).padStart(8, '0')}`, 10 * i, 1 + (i % 5000));
        sequence.keep(`kept-${String(i).padStart(8, '0')}`, 10 * i);
      }
    };
    feed(0, 1_000);
    const early = sequence.bytes;
    feed(1_000, 20_000);
    expect(Math.abs(sequence.bytes - early)).toBeLessThan(64 * 200);
    expect(sequence.bytes).toBeLessThan(40_000);
    expect(early).toBeGreaterThan(64 * (4 + 8 + 14));
  });

  it.each([
    { maxLength: 0, blockLength: 1, seenLimit: 1 },
    { maxLength: 4, blockLength: 0, seenLimit: 1 },
    { maxLength: 4, blockLength: 5, seenLimit: 1 },
    { maxLength: 4.5, blockLength: 1, seenLimit: 1 },
    { maxLength: 4, blockLength: 1, seenLimit: 0 },
  ])('refuses $maxLength / $blockLength / $seenLimit', ({ seenLimit, ...window }) => {
    expect(() => new UserSequence({ window, seenLimit })).toThrowError(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });
});
