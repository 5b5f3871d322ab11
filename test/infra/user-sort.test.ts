/** The sort of a backfill: any memory, any runs, the same order; and what it leaves behind. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { UserSort } from '../../infra/files/user-sort.ts';
import type { PositionedAction } from '../../schemas/action.ts';

const folder = mkdtempSync(join(tmpdir(), 'hstu-sort-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const actionsArbitrary = fc.array(
  fc.record({
    userId: fc.oneof(fc.constantFrom('a', 'b', 'ü', 'line\nbreak'), fc.string({ minLength: 1, maxLength: 4 })),
    order: fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constant(1_700_000_000_123.5)),
    action: fc.constantFrom('view', 'view', 'view', 'erase'),
    value: fc.option(fc.double({ noNaN: true, noDefaultInfinity: true }), { nil: undefined }),
    context: fc.option(fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 }), { nil: undefined }),
  }),
  { maxLength: 300, size: 'max' },
);

describe('UserSort', () => {
  it('gives each user whole, by order and then arrival, whatever fits in memory; an erasure takes what is before it', () => {
    fc.assert(
      fc.property(actionsArbitrary, fc.constantFrom(500, 3_000, 1e9), fc.boolean(), (drawn, memoryBytes, erases) => {
        const sort = new UserSort({ folder, memoryBytes, ...(erases && { erasureAction: 'erase' }) });
        const actions = drawn.map(
          ({ value, context, userId, action }, offset): PositionedAction => ({
            eventId: `e${offset}`,
            userId,
            action,
            entity: 'item:1',
            eventTimeMs: 7,
            position: { topic: 't', partition: 0, offset },
            ...(value !== undefined && { value: value === 0 ? 0 : value }),
            ...(context !== undefined && { context: { ...context } }),
          }),
        );
        for (const [i, action] of actions.entries()) sort.add(action, drawn[i]!.order);
        const sorted = [...sort.sorted()];
        sort.close();

        const users = [...new Set(actions.map(({ userId }) => userId))];
        const expected = new Map(
          users.map((userId) => {
            const own = actions.filter((action) => action.userId === userId);
            own.sort(
              (a, b) =>
                drawn[a.position.offset]!.order - drawn[b.position.offset]!.order || a.position.offset - b.position.offset,
            );
            return [userId, own.slice(erases ? 1 + own.findLastIndex(({ action }) => action === 'erase') : 0)];
          }),
        );
        const order = [...new Set(sorted.map(({ userId }) => userId))];
        expect(sorted).toEqual(order.flatMap((userId) => expected.get(userId)!));
        expect(sorted.length).toBe([...expected.values()].reduce((sum, own) => sum + own.length, 0));
        expect(sort.count).toBe(actions.length);
      }),
      { numRuns: 60 },
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  it('merges in passes where there are more runs than may be read side by side', () => {
    // 500 bytes: a run an event, two runs at a time.
    const sort = new UserSort({ folder, memoryBytes: 500 });
    const of = (i: number): PositionedAction => ({
      eventId: `e${i}`,
      userId: `u${(i * 37) % 50}`,
      action: 'view',
      entity: 'item:1',
      eventTimeMs: i,
      position: { topic: 't', partition: 0, offset: i },
    });
    for (let i = 0; i < 200; i++) sort.add(of(i), 0);
    const offsets = new Map<string, number[]>();
    for (const { userId, position } of sort.sorted()) offsets.set(userId, [...(offsets.get(userId) ?? []), position.offset]);
    sort.close();
    expect(offsets.size).toBe(50);
    for (const list of offsets.values()) expect(list).toEqual([...list].sort((a, b) => a - b));
  });
});
