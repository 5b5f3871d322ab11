import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignPartitions, type GroupMember } from '../../../infra/kafka/co-partitioned-assigner.ts';

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** A group that agreed on an assignment, and then lost some members and won others. */
const history = fc.record({
  partitions: fc.integer({ min: 1, max: 24 }).map(range),
  before: fc.integer({ min: 1, max: 6 }),
  leaving: fc.integer({ min: 0, max: 5 }),
  joining: fc.integer({ min: 0, max: 5 }),
});

const members = (ids: readonly string[], owned: ReadonlyMap<string, readonly number[]> = new Map()): GroupMember[] =>
  ids.map((memberId) => ({ memberId, owned: owned.get(memberId) ?? [] }));

describe('assignment of partitions', () => {
  it('gives every partition to one member, nobody more than one more than another, and moves no more than balance asks', () => {
    fc.assert(
      fc.property(history, ({ partitions, before, leaving, joining }) => {
        const first = assignPartitions(members(range(before).map((i) => `m${i}`)), partitions);
        const staying = range(before).slice(Math.min(leaving, before - 1));
        const ids = [...staying.map((i) => `m${i}`), ...range(joining).map((i) => `n${i}`)];
        const second = assignPartitions(members(ids, first), partitions);

        expect([...second.values()].flat().sort((a, b) => a - b)).toEqual(partitions);
        const loads = ids.map((id) => second.get(id)!.length);
        expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(1);

        const ceiling = Math.ceil(partitions.length / ids.length);
        const kept = ids.reduce((sum, id) => sum + second.get(id)!.filter((p) => first.get(id)?.includes(p)).length, 0);
        const floor = Math.floor(partitions.length / ids.length);
        // What each could keep at most: its own, up to the ceiling, of which only so many members may have one.
        const owned = ids.map((id) => first.get(id)?.length ?? 0);
        const atCeiling = partitions.length - floor * ids.length;
        const overFloor = owned.filter((n) => n >= ceiling && ceiling > floor).length;
        const most = owned.reduce((sum, n) => sum + Math.min(n, floor), 0) + Math.min(overFloor, atCeiling);
        expect(kept).toBe(most);
      }),
    );
  });

  it('does not depend on the order of the members', () => {
    const owned = new Map([
      ['a', [0, 1, 2, 3]],
      ['b', []],
    ]);
    const forward = assignPartitions(members(['a', 'b', 'c'], owned), range(8));
    const backward = assignPartitions(members(['c', 'b', 'a'], owned), range(8));
    expect(Object.fromEntries(backward)).toEqual(Object.fromEntries(forward));
  });

  it('lets nobody keep a partition that two claim', () => {
    const assigned = assignPartitions(
      [
        { memberId: 'a', owned: [0, 1] },
        { memberId: 'zombie', owned: [0, 1] },
      ],
      range(2),
    );
    expect([...assigned.values()].map((list) => list.length)).toEqual([1, 1]);
  });
});
