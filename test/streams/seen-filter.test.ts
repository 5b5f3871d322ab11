/** What a list leaves out, by kind and age: the same when it is published, when it is asked for, and whatever the tokens look like. */
import { afterEach, describe, expect, it } from 'vitest';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { UserAction } from '../../schemas/action.ts';
import { parseConfig } from '../../schemas/config.ts';
import { TopologyDriver } from '../../streams/topology-driver.ts';

const ITEMS = 40;
const DAY_MS = 86_400_000;
const START = Date.UTC(2020, 0, 1) - 60 * DAY_MS;
const mapping = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  eventTime: { field: 'eventTimeMs', unit: 'ms' as const },
};
const bundleWith = (layout: 'additive' | 'interleaved' | undefined) =>
  randomBundle({
    dimension: 8,
    layers: 1,
    heads: 1,
    maxSequenceLength: 200,
    vocabularySize: ITEMS,
    actions: { encoded: ['view', 'buy'], skipped: [] },
    ...(layout !== undefined && { tokens: { layout, values: {} } }),
  });

/** One event every other day: items 1, 2, 3, …, of which every third is bought, the others viewed. */
const events: UserAction[] = Array.from({ length: 24 }, (_, i) => ({
  eventId: `e${i}`,
  userId: 'ann',
  action: i % 3 === 2 ? 'buy' : 'view',
  entity: `item:${1 + i}`,
  eventTimeMs: START + 2 * i * DAY_MS,
}));

const closing: TopologyDriver[] = [];
afterEach(async () => {
  for (const driver of closing.splice(0)) await driver.close();
});
const driverWith = (seenFilter: unknown, layout: Parameters<typeof bundleWith>[0]) => {
  const driver = new TopologyDriver({
    bundle: bundleWith(layout),
    mapping,
    settings: { publish: 'every-event', scores: { topK: ITEMS, seenFilter } as never },
  });
  closing.push(driver);
  return driver;
};
/** Entities that a list of all would have but for these events at that moment. */
const wantedAt = (
  atMs: number,
  upTo: number,
  { actions, forDays = Number.POSITIVE_INFINITY }: { actions?: string[]; forDays?: number },
) => {
  const hidden = new Set(
    events
      .slice(0, upTo)
      .filter(({ action, eventTimeMs }) => (actions?.includes(action) ?? true) && atMs - eventTimeMs <= forDays * DAY_MS)
      .map(({ entity }) => entity),
  );
  return Array.from({ length: ITEMS }, (_, i) => `item:${i + 1}`)
    .filter((entity) => !hidden.has(entity))
    .sort();
};

describe.each([
  ['additive tokens', 'additive', { actions: ['buy'], forDays: 20 }],
  ['two tokens an event', 'interleaved', { actions: ['buy'], forDays: 20 }],
  ['several kinds', 'additive', { actions: ['buy', 'view'] }],
  ['any kind, of late', undefined, { forDays: 9 }],
  ['every kind that there is', undefined, { actions: ['view', 'buy'] }],
] as const)('scores.seenFilter by kind and age: %s', (_, layout, filter) => {
  const by = filter as { actions?: string[]; forDays?: number };

  it('of lists that come with embeddings, each as of its event', async () => {
    const { scores } = await driverWith(filter, layout).pipe(events.map((event) => JSON.stringify(event)));
    expect(scores).toHaveLength(events.length);
    for (const [i, { candidates }] of scores.entries())
      expect(candidates.map(({ entity }) => entity).sort(), `event ${i}`).toEqual(wantedAt(events[i]!.eventTimeMs, i + 1, by));
  });

  it('of lists that are asked for, as of their query time', async () => {
    const driver = driverWith(filter, layout);
    await driver.pipe(events.map((event) => JSON.stringify(event)));
    const newest = events.at(-1)!.eventTimeMs;
    for (const queryTimeMs of [newest, newest + 5 * DAY_MS]) {
      const request = { requestId: 'r', userId: 'ann', entities: [], topK: ITEMS, queryTimeMs };
      const { scores } = await driver.ask([JSON.stringify(request)]);
      expect(scores[0]!.candidates.map(({ entity }) => entity).sort()).toEqual(wantedAt(queryTimeMs, events.length, by));
    }
  });

  it('changes no rank', async () => {
    const values = events.map((event) => JSON.stringify(event));
    const [filtered, plain] = [await driverWith(filter, layout).pipe(values), await driverWith(true, layout).pipe(values)];
    expect(filtered.quality.map(({ rank }) => rank)).toEqual(plain.quality.map(({ rank }) => rank));
    expect(filtered.quality.length).toBeGreaterThan(10);
  });
});

describe('a filter that cannot be', () => {
  it.each([
    ['of kinds that tokens do not tell', { actions: ['buy'] }, undefined, /tokens do not say what was done/],
    ['of kinds that the model does not have', { actions: ['by'] }, 'additive', /by: the bundle encodes view, buy/],
  ] as const)('%s is refused', async (_, filter, layout, problem) => {
    await expect(async () => driverWith(filter, layout).pipe([])).rejects.toThrow(problem);
  });

  it('of nothing is refused', () => {
    expect(() => parseConfig({ bundle: 'b', scores: { seenFilter: {} } }, 'this test')).toThrow(/needs actions or forDays/);
  });
});
