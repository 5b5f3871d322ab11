import { afterAll, describe, expect, it } from 'vitest';
import { HstuEncoder } from '../../models/encoder.ts';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import { LineEncoder } from '../../streams/encode-lines.ts';
import { LineScorer, type ScoreLinesOptions } from '../../streams/score-lines.ts';
import { TopologyDriver } from '../../streams/topology-driver.ts';
import { TOO_LONG } from '../../streams/user-lines.ts';
import { CACHEABLE, RANKING } from '../models/bundles.ts';

const START = 1_500_000_000_000;
const closing: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const close of closing) await close();
});
function encoderOf(bundle: Bundle): HstuEncoder {
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes: 1 << 24 });
  closing.push(() => encoder.close());
  return encoder;
}
const kinds = ['view', 'like', 'rate', 'view+buy'];
const events = (count: number, plain = false) =>
  Array.from({ length: count }, (_, i) => ({
    entity: `item:${1 + ((i * 7) % 50)}`,
    eventTimeMs: START + 60_000 * (i % 10 === 9 ? i - 3 : i),
    action: plain ? 'view' : kinds[i % 4]!,
    value: i % 6,
  }));

describe.each([
  ['retrieves', CACHEABLE['plain']!, true],
  ['ranks, interleaved', RANKING['STU, interleaved tokens, values, local']!, false],
])('lines through a bundle that %s', (_, bundle, plain) => {
  const encoder = encoderOf(bundle);
  const score = (lines: readonly unknown[], options?: ScoreLinesOptions) =>
    new LineScorer(bundle, encoder, options).score(lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))));

  it('get the answers that the stream gives to requests over the same history', async () => {
    const history = events(70, plain);
    const candidates = ['item:4', 'item:9', 'item:30', 'item:9'];
    const queryTimeMs = START + 9_000_000;
    const lines = [
      { userId: 'ann', events: history, candidates, queryTimeMs },
      { userId: 'ann', events: history, topK: 4, deny: ['item:2'], queryTimeMs },
      { userId: 'new', events: [], candidates, queryTimeMs },
    ];
    const results = await score(lines, { seenFilter: false });
    const driver = new TopologyDriver({
      bundle,
      mapping: {
        eventId: '{id}',
        userId: '{user}',
        action: '{action}',
        entity: '{entity}',
        value: 'value',
        eventTime: { field: 'eventTimeMs', unit: 'ms' },
      },
      settings: { scores: { topK: 0, seenFilter: false } },
    });
    closing.push(() => driver.close());
    const sorted = [...history].sort((a, b) => a.eventTimeMs - b.eventTimeMs);
    await driver.pipe(sorted.map((event, id) => JSON.stringify({ ...event, id, user: 'ann' })));
    const requests = lines.map(({ userId, candidates: entities = [], topK, deny }, i) =>
      JSON.stringify({ requestId: `r${i}`, userId, entities, queryTimeMs, topK, deny }),
    );
    const { scores } = await driver.ask(requests);
    for (const [i, { candidates: expected, tasks = {}, coldStart }] of scores.entries()) {
      const result = results[i]!;
      expect(result.userId).toBe(lines[i]!.userId);
      expect(result.coldStart).toBe(coldStart);
      expect(result.candidates!.map(({ entity }) => entity)).toEqual(expected.map(({ entity }) => entity));
      for (const [c, candidate] of result.candidates!.entries()) {
        expect(candidate.score).toBeCloseTo(expected[c]!.score, 5);
        expect(Object.keys(candidate.tasks ?? {})).toEqual(Object.keys(tasks));
        for (const [task, p] of Object.entries(candidate.tasks ?? {})) expect(p).toBeCloseTo(tasks[task]![c]!, 5);
      }
    }
    expect(results.map(({ candidates: all }) => all!.length)).toEqual([3, 4, 3]);
  });

  it('that are at fault say so, and the others are answered', async () => {
    const good = { userId: 'a', events: events(3, plain), candidates: ['item:1', 'song:1'] };
    const results = await score(
      [
        '{"userId"',
        { ...good, candidates: [''] },
        { ...good, events: [{ ...good.events[0], action: 'dance' }] },
        { ...good, topK: 0 },
        good,
        TOO_LONG,
      ],
      { unknownCandidates: 'leave-out' },
    );
    expect(results.map(({ deadLetters }) => deadLetters?.map(({ code }) => code))).toEqual([
      ['RECORD_MALFORMED'],
      ['FIELD_INVALID'],
      ['ACTION_UNKNOWN'],
      ['FIELD_INVALID'],
      undefined,
      ['RECORD_TOO_LARGE'],
    ]);
    expect(results.map(({ coldStart }) => coldStart)).toEqual([undefined, undefined, true, undefined, undefined, undefined]);
    expect(results[4]).toMatchObject({ leftOut: [{ entity: 'song:1', reason: 'unknown-entity' }] });
    expect(results[4]!.candidates).toHaveLength(1);
  });

  it('are encoded to the same rows whole and event by event, through slides of the window', async () => {
    const line = JSON.stringify({ userId: 'ann', events: events(90, plain), queryTimeMs: START + 9_000_000 });
    const [full, incremental] = await Promise.all(
      (['full', 'incremental'] as const).map((mode) =>
        new LineEncoder(bundle, encoder, { mode, topK: 3, rows: true }).encode([line]),
      ),
    );
    expect(full![0]!.rows!.length).toBe(incremental![0]!.rows!.length);
    for (const [r, row] of full![0]!.rows!.entries())
      for (const [d, x] of row.entries()) expect(Math.abs(x - incremental![0]!.rows![r]![d]!)).toBeLessThan(1e-4);
    expect(full![0]!.topK).toHaveLength(3);
  });
});

it('a bundle that only ranks lists nothing for an embedding', async () => {
  const { config, ...parts } = RANKING['STU']!;
  const bundle = { ...parts, config: { ...config, retrieval: false } };
  const lines = [JSON.stringify({ userId: 'ann', events: events(4, true) })];
  const [result] = await new LineEncoder(bundle, encoderOf(bundle), { mode: 'full', topK: 3, rows: false }).encode(lines);
  expect(result).toMatchObject({ userId: 'ann', topK: [] });
});

it('a user of whom nothing is known gets what the example bundle says is popular, marked as a cold start', async () => {
  const bundle = await loadBundle('examples/movielens/bundle');
  const [result] = await new LineScorer(bundle, encoderOf(bundle)).score([
    JSON.stringify({ userId: 'new', events: [], topK: 3, deny: ['movie:318'] }),
  ]);
  expect(result!.coldStart).toBe(true);
  // Ratings among the 499 users of training: Forrest Gump, Pulp Fiction, The Matrix.
  expect(result!.candidates).toEqual([
    { entity: 'movie:356', score: 275 },
    { entity: 'movie:296', score: 253 },
    { entity: 'movie:2571', score: 234 },
  ]);
  // The stream, live or replayed, says the same.
  const driver = new TopologyDriver({
    bundle,
    mapping: { userId: '{u}', action: 'rating', entity: '{e}', eventTime: { field: 't', unit: 's' } },
  });
  closing.push(() => driver.close());
  const request = { requestId: 'r', userId: 'new', entities: [], queryTimeMs: START, topK: 3, deny: ['movie:318'] };
  const { scores } = await driver.ask([JSON.stringify(request)]);
  expect(scores).toMatchObject([{ requestId: 'r', version: 0, coldStart: true, candidates: result!.candidates }]);
});

it('the first stage of two lists by dot product, and a bundle that only ranks has no first stage', async () => {
  const bundle = RANKING['STU, additive tokens, values, both biases']!;
  const encoder = encoderOf(bundle);
  const history = events(30);
  const line = (topK: number) => [JSON.stringify({ userId: 'ann', events: history, topK })];
  const [retrieved] = await new LineScorer(bundle, encoder, { rank: false }).score(line(9));
  const [ranked] = await new LineScorer(bundle, encoder, { retrieve: 9 }).score(line(9));
  const [encoded] = await new LineEncoder(bundle, encoder, { mode: 'full', topK: 50, rows: false }).encode([
    JSON.stringify({ userId: 'ann', events: history }),
  ]);
  const order = (line: typeof ranked) => line!.candidates!.map(({ entity }) => entity);
  const seen = new Set(history.map(({ entity }) => entity));
  const unseen = encoded!.topK!.filter(({ entity }) => !seen.has(entity));
  expect(order(retrieved)).toEqual(unseen.slice(0, 9).map(({ entity }) => entity));
  expect(retrieved!.candidates![0]).not.toHaveProperty('tasks');
  expect(new Set(order(ranked))).toEqual(new Set(order(retrieved)));
  expect(order(ranked)).not.toEqual(order(retrieved));
  const { config, ...parts } = bundle;
  const only = { ...parts, config: { ...config, retrieval: false } };
  expect(() => new LineScorer(only, encoder, { rank: false })).toThrow(/does not retrieve/);
});
