/** Batches of histories: nothing lost, cut only where it must be, and positions that a resumed backfill can begin at. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PositionedAction } from '../../../schemas/action.ts';
import { parseBounds } from '../../../streams/replay/parse-bounds.ts';
import { userBatches } from '../../../streams/replay/user-batches.ts';

const historiesOf = (lengths: readonly number[]): PositionedAction[] =>
  lengths.flatMap((length, user) =>
    Array.from({ length }, (_, i) => ({
      userId: `u${user}`,
      eventId: `${i}`,
      action: 'view',
      entity: 'item:1',
      eventTimeMs: i,
      position: { topic: 't', partition: 0, offset: i },
    })),
  );

describe('userBatches', () => {
  it('gives every event once, in order, in batches of at most so many', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 20 }),
        fc.integer({ min: 1, max: 25 }),
        (lengths, max) => {
          const actions = historiesOf(lengths);
          const batches = [...userBatches(actions, max)];
          expect(batches.flatMap((batch) => batch.actions)).toEqual(actions);
          let done = 0;
          for (const { actions: own, continues, nextPosition } of batches) {
            expect(own.length).toBeGreaterThan(0);
            expect(own.length).toBeLessThanOrEqual(max);
            done += own.length;
            const goesOn = actions[done] !== undefined && actions[done]!.userId === own.at(-1)!.userId;
            expect(continues).toBe(goesOn ? own.at(-1)!.userId : undefined);
            // A user that is not done is begun again.
            expect(nextPosition).toBe(goesOn ? actions.findIndex(({ userId }) => userId === continues) : done);
            // Cut inside a history only where it alone is too long.
            if (goesOn) expect(new Set(own.map(({ userId }) => userId)).size).toBe(1);
            expect([...userBatches(actions.slice(nextPosition), max, nextPosition)].at(-1)?.nextPosition ?? actions.length).toBe(
              actions.length,
            );
          }
        },
      ),
    );
  });
});

describe('parseBounds', () => {
  it('reads ranges, either end left out', () => {
    expect([...parseBounds('0:100-2000,1:-500, 2:70-')]).toEqual([
      [0, { fromOffset: 100, toOffset: 2000 }],
      [1, { fromOffset: undefined, toOffset: 500 }],
      [2, { fromOffset: 70, toOffset: undefined }],
    ]);
    expect(parseBounds(undefined).size).toBe(0);
  });

  it.each(['0', '0:1', 'x:1-2', '0:1-2,0:3-4', '0:-1-2'])('refuses %s', (text) => {
    expect(() => parseBounds(text)).toThrow(/--offsets .*: expected PARTITION:FROM-TO/);
  });
});
