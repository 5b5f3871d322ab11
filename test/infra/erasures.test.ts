import { describe, expect, it } from 'vitest';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { Erasures, userHash } from '../../infra/clickhouse/feed/erasures.ts';
import type { FeedRow, FeedTable } from '../../infra/clickhouse/feed/feed-rows.ts';

const T = 5_000;
const stored = (cut: object) => ({
  user_hash: userHash('u'),
  topic: 'erasures',
  partition: 1,
  offset: null,
  erased_ms: T,
  ...cut,
});

async function kept(cuts: readonly object[], table: FeedTable, row: Partial<FeedRow>): Promise<boolean> {
  const clickhouse = {
    rows: (sql: string) => Promise.resolve(sql.includes('count()') ? [{ n: 1 }] : cuts),
  } as unknown as ClickHouse;
  const erasures = new Erasures(clickhouse, 'run');
  await erasures.load();
  const empty = { actions: [], embeddings: [], scores: [], quality: [], outcomes: [], dead_letters: [] };
  const found = await erasures.keep({ ...empty, [table]: [{ userId: 'u', atMs: T, json: '', ...row }] });
  return found[table].length === 1;
}

describe('of an erased user, what an erasure does not take is kept', () => {
  it.each(['embeddings', 'scores', 'quality', 'outcomes', 'dead_letters'] as const)(
    '%s published before the tombstone are taken, those of its own batch are not',
    async (table) => {
      const tombstone = [stored({ scope: 'outputs' })];
      expect(await kept(tombstone, table, { atMs: T - 1 })).toBe(false);
      expect(await kept(tombstone, table, { atMs: T })).toBe(true);
      expect(await kept(tombstone, table, { atMs: T - 1, userId: 'another' })).toBe(true);
    },
  );

  it('actions are not for a tombstone to take', async () => {
    expect(await kept([stored({ scope: 'outputs' })], 'actions', { atMs: T - 1 })).toBe(true);
  });

  it('actions up to the moment of an erasure of its own topic', async () => {
    const erasure = [stored({ scope: 'actions' })];
    expect(await kept(erasure, 'actions', { atMs: T })).toBe(false);
    expect(await kept(erasure, 'actions', { atMs: T + 1 })).toBe(true);
    expect(await kept(erasure, 'embeddings', { atMs: T - 1 })).toBe(true);
  });

  it('actions up to the place of an erasing action, whatever their times', async () => {
    const erasing = [stored({ scope: 'actions', topic: 'user-actions', offset: 7 })];
    const at = (topic: string, partition: number, offset: number) => ({ atMs: T - 1, input: { topic, partition, offset } });
    expect(await kept(erasing, 'actions', at('user-actions', 1, 7))).toBe(false);
    expect(await kept(erasing, 'dead_letters', at('user-actions', 1, 3))).toBe(false);
    expect(await kept(erasing, 'actions', at('user-actions', 1, 8))).toBe(true);
    expect(await kept(erasing, 'actions', at('user-actions', 0, 3))).toBe(true);
    expect(await kept(erasing, 'actions', at('other', 1, 3))).toBe(true);
  });

  it('one of several is enough', async () => {
    const both = [stored({ scope: 'outputs', erased_ms: 1 }), stored({ scope: 'outputs' })];
    expect(await kept(both, 'scores', { atMs: T - 1 })).toBe(false);
  });
});
