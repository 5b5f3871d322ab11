/** The named queries on real data: each figure against a plain computation over the rows that were written. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeHealth } from '../../infra/clickhouse/feed/feed-offsets.ts';
import { runQuery } from '../../infra/clickhouse/queries.ts';
import { whyNoRows } from '../../infra/clickhouse/why-no-rows.ts';
import { type Event, LIVE, type Published, type QueryWorld, queryWorld } from '../support/query-world.ts';

let world: QueryWorld;
beforeAll(async () => {
  world = await queryWorld();
}, 90_000);
afterAll(() => world.close());

const ask = (name: string, params: Record<string, unknown> = {}) => runQuery(world.clickhouse, name, { run_id: LIVE, ...params });
const hourOf = (ms: number) => `${new Date(Math.floor(ms / 3_600_000) * 3_600_000).toISOString().slice(0, 19).replace('T', ' ')}`;
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
/** As `quantileExact`: the value at that share of the sorted list. */
const quantile = (values: readonly number[], level: number) =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(level * values.length))]!;
const groupsOf = <T>(items: readonly T[], keyOf: (item: T) => string): [string, T[]][] => {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.get(keyOf(item))?.push(item) ?? groups.set(keyOf(item), [item]);
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1));
};
const close = (value: number, digits = 8) => expect.closeTo(value, digits);
function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[d]!;
  return sum;
}
const cosine = (a: ArrayLike<number>, b: ArrayLike<number>) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const ndcg = (rank: number, k: number) => (rank <= k ? 1 / Math.log2(rank + 1) : 0);
const newestOf = () => new Map([...world.published].sort((a, b) => a.version - b.version).map((one) => [one.userId, one]));

/** Unit rows of the catalogue, from the bundle. */
function catalogue(): Map<string, number[]> {
  const { bundle } = world;
  const D = bundle.config.dimension;
  const table = bundle.tensors.get('entity_embedding')!.data;
  return new Map(
    bundle.entities.map((entity, i) => {
      const row = Array.from(table.subarray((i + 1) * D, (i + 2) * D));
      const norm = Math.sqrt(dot(row, row));
      return [entity, row.map((value) => value / norm)];
    }),
  );
}

describe('every named query of the analytics agrees with a plain computation', () => {
  it('freshness-by-hour', async () => {
    const groups = groupsOf(world.published, ({ publishedMs, partition }) => `${hourOf(publishedMs)}|${partition}`);
    const expected = groups.map(([key, items]) => {
      const waits = items.map(({ publishedMs, atMs }) => publishedMs - atMs);
      const reads = items.map(({ latencyMs }) => latencyMs);
      return {
        hour: key.split('|')[0],
        partition: Number(key.split('|')[1]),
        embeddings: items.length,
        event_p50_ms: quantile(waits, 0.5),
        event_p90_ms: quantile(waits, 0.9),
        event_p99_ms: quantile(waits, 0.99),
        read_p50_ms: quantile(reads, 0.5),
        read_p99_ms: quantile(reads, 0.99),
      };
    });
    expect(await ask('freshness-by-hour')).toEqual(expected);
    expect(expected.length).toBeGreaterThan(30);
  });

  const powerOf = (n: number) => (n < 1 ? 0 : 2 ** Math.floor(Math.log2(n)));
  it.each([
    ['hour', (event: Event) => hourOf(event.atMs).slice(0, 16)],
    ['action', (event: Event) => event.action],
    ['length', (event: Event) => String(powerOf(event.priorEvents)).padStart(6)],
    [
      'age',
      (event: Event) => {
        const first = Math.min(...world.events.filter(({ userId }) => userId === event.userId).map(({ atMs }) => atMs));
        const dayOf = (ms: number) => Math.floor(ms / 86_400_000);
        return String(powerOf(dayOf(event.atMs) - dayOf(first))).padStart(6);
      },
    ],
  ])('quality-by %s', async (by, keyOf) => {
    const ranked = world.events.filter(({ rank }) => rank !== undefined);
    const expected = groupsOf(ranked, keyOf).map(([key, items]) => ({
      bucket: key.trim(),
      events: items.length,
      hr: close(mean(items.map(({ rank }) => (rank! <= 20 ? 1 : 0)))),
      ndcg: close(mean(items.map(({ rank }) => ndcg(rank!, 20)))),
      mrr: close(mean(items.map(({ rank }) => 1 / rank!))),
    }));
    expect(await ask('quality-by', { by, k: 20 })).toEqual(expected);
  });

  it('value-of-freshness', async () => {
    const vectors = catalogue();
    const rows: number[][] = [];
    // Which events are the sample is ClickHouse's to say; what they come to is not.
    const sample = await world.clickhouse.rows<{ offset: number }>(
      "SELECT offset FROM quality FINAL WHERE run_id = 'live' ORDER BY cityHash64(user_id, event_id) LIMIT 4 * 40",
    );
    for (const { offset } of sample) {
      const event = world.events.find((one) => one.offset === offset)!;
      if (event.rank === undefined || rows.length === 40) continue;
      const own = world.published.filter(({ userId }) => userId === event.userId).sort((a, b) => a.version - b.version);
      const aged = [
        own.findLast(({ version }) => version <= event.priorEvents),
        ...[3_600_000, 86_400_000].map((ageMs) => own.findLast(({ atMs }) => atMs < event.atMs - ageMs)),
      ];
      if (aged.includes(undefined)) continue;
      const seen = new Set(
        world.events
          .filter(
            ({ userId, atMs, offset: at }) =>
              userId === event.userId && (atMs < event.atMs || (atMs === event.atMs && at < offset)),
          )
          .map(({ entity }) => entity),
      );
      const unseen = [...vectors].filter(([entity]) => !seen.has(entity)).map(([, vector]) => vector);
      const ranks = aged.map((one) => {
        const score = dot(one!.embedding, vectors.get(event.entity)!);
        return 1 + unseen.filter((vector) => dot(one!.embedding, vector) > score + 1e-6).length;
      });
      rows.push([event.rank, ...ranks]);
    }
    const answer = await ask('value-of-freshness', { events: 40, k: 50 });
    // In float32 a near tie may fall the other way: ranks differ by one there.
    expect(answer).toEqual(
      ['live', 'newest', 'one hour old', 'one day old'].map((embedding, i) => ({
        embedding,
        events: rows.length,
        hr: close(mean(rows.map((ranks) => (ranks[i]! <= 50 ? 1 : 0))), 2),
        ndcg: close(mean(rows.map((ranks) => ndcg(ranks[i]!, 50))), 3),
        mrr: close(mean(rows.map((ranks) => 1 / ranks[i]!)), 3),
      })),
    );
    expect(rows.length).toBe(40);
  });

  it('embedding-drift', async () => {
    const steps = new Map<string, number[]>();
    for (const [, own] of groupsOf(world.published, ({ userId }) => userId)) {
      own.sort((a, b) => a.version - b.version);
      for (let i = 1; i < own.length; i++) {
        const day = new Date(own[i]!.atMs).toISOString().slice(0, 10);
        steps.set(day, [...(steps.get(day) ?? []), cosine(own[i]!.embedding, own[i - 1]!.embedding)]);
      }
    }
    const rows = await ask('embedding-drift', { one_user_in: 1 });
    expect(rows.map(({ day, steps: count }) => [day, count])).toEqual([...steps].sort().map(([day, list]) => [day, list.length]));
    for (const row of rows) {
      expect(row['to_previous_p50']).toBeCloseTo(quantile(steps.get(String(row['day']))!, 0.5), 5);
      expect(row['to_previous_p10']).toBeCloseTo(quantile(steps.get(String(row['day']))!, 0.1), 5);
    }
    expect(rows.some(({ to_day_ago_p50: value }) => value !== null)).toBe(true);
    const single = rows.find(({ users }) => users === 1)!;
    const [newer, older] = dayPair(String(single['day']));
    expect(single['to_day_ago_p50']).toBeCloseTo(cosine(newer.embedding, older.embedding), 5);
  });

  /** Of the only user with a day-old embedding on that day: the day's last embedding, and the newest a day older. */
  function dayPair(day: string): [Published, Published] {
    for (const [, own] of groupsOf(world.published, ({ userId }) => userId)) {
      own.sort((a, b) => a.version - b.version);
      const newer = own.findLast(({ atMs }) => new Date(atMs).toISOString().startsWith(day));
      const older = newer && own.findLast(({ atMs }) => atMs <= newer.atMs - 86_400_000);
      if (newer !== undefined && older !== undefined) return [newer, older];
    }
    throw new Error(`nobody has a day-old embedding on ${day}`);
  }

  it('nearest-users', async () => {
    const newest = newestOf();
    const asked = newest.get('491')!;
    const expected = [...newest.values()]
      .filter(({ userId }) => userId !== '491')
      .map(({ userId, embedding }) => ({ userId, cosine: cosine(embedding, asked.embedding) }))
      .sort((a, b) => b.cosine - a.cosine)
      .slice(0, 2);
    const rows = await ask('nearest-users', { user_id: '491', k: 2 });
    expect(rows.map(({ user_id }) => user_id)).toEqual(expected.map(({ userId }) => userId));
    expect(rows.map((row) => row['cosine'])).toEqual(expected.map((one) => close(one.cosine, 5)));
  });

  it('nearest-entities: what retrieval itself would list, but for what was seen', async () => {
    const asked = newestOf().get('115')!;
    const seen = new Set(world.events.filter(({ userId }) => userId === '115').map(({ entity }) => entity));
    const expected = [...catalogue()]
      .map(([entity, vector]) => ({ entity, score: close(dot(asked.embedding, vector), 4), exact: dot(asked.embedding, vector) }))
      .sort((a, b) => b.exact - a.exact)
      .slice(0, 200)
      .map(({ entity, score }) => ({ entity, score, seen: seen.has(entity) ? 1 : 0 }));
    const rows = await ask('nearest-entities', { user_id: '115', k: 200 });
    expect(rows).toEqual(expected);
    // The encoder's own ranking graph said the same when it published.
    const unseen = rows.filter(({ seen: acted }) => acted === 0).map(({ entity }) => entity);
    expect(unseen.slice(0, asked.entities.length)).toEqual(asked.entities);
  });

  it('coverage', async () => {
    const acted = groupsOf(world.events, ({ entity }) => entity)
      .map(([entity, items]) => ({ entity, actions: items.length }))
      .sort((a, b) => b.actions - a.actions || (a.entity < b.entity ? -1 : 1));
    const times = new Map<string, number>();
    for (const { entities } of newestOf().values())
      for (const entity of entities) times.set(entity, (times.get(entity) ?? 0) + 1);
    const lists = [...times.values()].reduce((sum, value) => sum + value, 0);
    // As SQL's ntile: the first classes take the remainder, one each.
    const size = Math.floor(acted.length / 10);
    const extra = acted.length % 10;
    let from = 0;
    const classes = Array.from({ length: 10 }, (_, c) => {
      const items = acted.slice(from, from + size + (c < extra ? 1 : 0));
      from += items.length;
      return [String(c + 1), items] as const;
    });
    const known = new Set(acted.map(({ entity }) => entity));
    const never = [...times.keys()].filter((entity) => !known.has(entity)).map((entity) => ({ entity, actions: 0 }));
    const expected = [...classes, ...(never.length > 0 ? [['never', never] as const] : [])].map(([popularity, items]) => {
      const recommended = items.filter(({ entity }) => times.has(entity));
      return {
        popularity,
        entities: items.length,
        recommended: recommended.length,
        coverage: close(recommended.length / items.length),
        actions_share: close(items.reduce((sum, { actions }) => sum + actions, 0) / world.events.length),
        recommended_share: close(items.reduce((sum, { entity }) => sum + (times.get(entity) ?? 0), 0) / lists),
      };
    });
    expect(await ask('coverage')).toEqual(expected);
  });

  it('cache-by-hour', async () => {
    const gained = new Map<Published, number>();
    for (const [, own] of groupsOf(world.published, ({ userId }) => userId)) {
      own.sort((a, b) => a.version - b.version);
      for (const [i, one] of own.entries()) gained.set(one, one.version - (own[i - 1]?.version ?? 0));
    }
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    const expected = groupsOf(world.published, ({ publishedMs }) => hourOf(publishedMs)).map(([hour, items]) => {
      const of = (outcome: string) => items.filter((one) => one.outcome === outcome).length;
      return {
        hour,
        embeddings: items.length,
        hit_share: close(of('hit') / items.length),
        rows_per_event: close(sum(items.map(({ rowsComputed }) => rowsComputed)) / sum(items.map((one) => gained.get(one)!))),
        cold: of('cold'),
        window: of('window'),
        diverged: of('diverged'),
        uncached: of('uncached'),
      };
    });
    expect(await ask('cache-by-hour')).toEqual(expected);
  });

  it('faults-by-hour', async () => {
    const expected = groupsOf(world.events, ({ publishedMs }) => hourOf(publishedMs)).map(([hour, items]) => {
      const of = (disposition: string) => items.filter((one) => one.disposition === disposition).length;
      return {
        hour,
        actions: items.length,
        inserted: of('inserted'),
        late: of('late'),
        duplicates: of('duplicate'),
        dead_letters: 0,
        late_share: close((of('inserted') + of('late')) / items.length),
        duplicate_share: close(of('duplicate') / items.length),
        dead_letter_share: 0,
      };
    });
    expect(await ask('faults-by-hour')).toEqual(expected);
  });

  it('user-timeline', async () => {
    const rows = await ask('user-timeline', { user_id: '29', limit: 10_000 });
    const own = world.events.filter(({ userId }) => userId === '29');
    const versions = world.published.filter(({ userId }) => userId === '29').length;
    const kinds = groupsOf(rows, ({ kind }) => String(kind)).map(([kind, items]) => [kind, items.length]);
    expect(kinds).toEqual([
      ['action', own.length],
      ['candidates', versions],
      ['embedding', versions],
    ]);
    const last = own.at(-1)!;
    const told = rows.find(
      ({ kind, made_of }) => kind === 'action' && made_of === `user-actions/${last.partition}/${last.offset}`,
    )!;
    expect(told['what']).toBe(`rating ${last.entity}, rank ${last.rank}, ${last.disposition}`);
  });

  it('sink-health', async () => {
    const at = { topic: 'user-actions', nextOffset: 7 };
    await writeHealth(world.clickhouse, LIVE, 'one', [
      { ...at, partition: 0, lag: 3 },
      { ...at, partition: 1, lag: 5, nextOffset: 9 },
    ]);
    const rows = await ask('sink-health');
    expect(rows).toEqual([{ topic: 'user-actions', minute: expect.any(String), max_lag: 5, next_offset: 9, partitions: 2 }]);
  });

  it('erasure-audit, before and after a user is erased', async () => {
    const tombstone = {
      position: { topic: 'user-embeddings', partition: 0, offset: 1e6 },
      key: Buffer.from('29'),
      value: null,
      timestampMs: Date.UTC(2030, 0, 1),
    };
    const before = await world.clickhouse.rows("SELECT * FROM scores WHERE run_id = 'live' AND user_id = '29' LIMIT 1");
    expect(before).toHaveLength(1);
    expect(await ask('erasure-audit')).toEqual([]);
    await world.feed([tombstone]);
    const clean = { user_digest: expect.any(String), erased_at: '2030-01-01 00:00:00.000', remaining: 0, tables: [] };
    expect(await ask('erasure-audit', { user_id: '29' })).toEqual([clean]);
    expect(await ask('nearest-users', { user_id: '491', k: 9 })).toHaveLength(1);
    expect(await ask('user-timeline', { user_id: '29' })).toSatisfy((rows: { kind: string }[]) =>
      rows.every(({ kind }) => kind === 'action'),
    );
    // The audit has eyes.
    await world.clickhouse.command(
      "INSERT INTO quality (run_id, user_id, event_id, published_at) VALUES ('live', '29', 'x', '2029-01-01 00:00:00')",
    );
    expect(await ask('erasure-audit')).toEqual([{ ...clean, remaining: 1, tables: ['quality'] }]);
  });
});

describe('a question without an answer', () => {
  it('says why: no such run, no vectors of the model, nothing that matches', async () => {
    const { clickhouse } = world;
    expect(await whyNoRows(clickhouse, { sql: 'SELECT 1' }, { run_id: 'nope' })).toMatch(
      new RegExp(`nothing is stored of run 'nope'; stored are .*${LIVE}`),
    );
    expect(await whyNoRows(clickhouse, { sql: 'SELECT 1' }, { run_id: LIVE, user_id: 'x' })).toBe(
      `nothing matches run_id=${LIVE} user_id=x`,
    );
    const comparing = { sql: 'SELECT 1 FROM entities' };
    expect(await whyNoRows(clickhouse, comparing, { run_id: LIVE })).toContain('nothing matches');
    await clickhouse.command(
      `INSERT INTO embeddings_current (run_id, user_id, version, model_digest) VALUES ('${LIVE}', 'of-another-model', 1, 'abcdef')`,
    );
    expect(await whyNoRows(clickhouse, comparing, { run_id: LIVE })).toBe(
      'of these models the vectors of entities are not stored: abcdef; ask once with --set bundle=FOLDER for each',
    );
  });
});
