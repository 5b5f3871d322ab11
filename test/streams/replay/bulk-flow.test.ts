/** A backfill gives what stepping gives: the law that lets it be fast. */
import { tmpdir } from 'node:os';
import fc from 'fast-check';
import { from, lastValueFrom, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { UserSort } from '../../../infra/files/user-sort.ts';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { Tokenizer } from '../../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import { UserSequence } from '../../../operators/index.ts';
import type { PositionedAction } from '../../../schemas/action.ts';
import type { OutputBatch } from '../../../schemas/batch.ts';
import { type ConfigInput, parseConfig } from '../../../schemas/config.ts';
import type { CandidateScores, UserEmbedding } from '../../../schemas/output.ts';
import { pipelineModel } from '../../../streams/pipeline-model.ts';
import { bulkFlow } from '../../../streams/replay/bulk-flow.ts';
import { userBatches } from '../../../streams/replay/user-batches.ts';
import { TopologyDriver } from '../../../streams/topology-driver.ts';
import { CACHEABLE, RANKING, REENCODED, VOCABULARY } from '../../models/bundles.ts';
import { stepPath } from '../../support/step-path.ts';

const SEEN_LIMIT = 7;

/** Every way a backfill can be cut. */
const cutArbitrary = fc.record({
  maxEvents: fc.integer({ min: 1, max: 60 }),
  memoryBytes: fc.constantFrom(2_000, 50_000, 10_000_000),
});

/** Arrival order: late events, ties, duplicates, kinds that are not encoded, erasures. */
const arrivals = (kinds: readonly string[]): fc.Arbitrary<PositionedAction[]> =>
  fc
    .array(
      fc.record({
        user: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, { weight: 2, arbitrary: fc.integer({ min: 2, max: 5 }) }),
        id: fc.oneof({ weight: 12, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 150 }) }),
        lateS: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 4_000 }) }),
        kind: fc.oneof(
          { weight: 60, arbitrary: fc.constantFrom(...kinds) },
          { weight: 3, arbitrary: fc.constant('tag') },
          { weight: 1, arbitrary: fc.constant('erase') },
        ),
        item: fc.integer({ min: 1, max: VOCABULARY }),
      }),
      { maxLength: 260, size: 'max' },
    )
    .map((drawn) =>
      drawn.map(({ user, id, lateS, kind, item }, i) => ({
        userId: `u${user}`,
        eventId: `e${id < 0 ? i : id}`,
        action: kind,
        entity: `item:${item}`,
        eventTimeMs: 1_600_000_000_000 + 37_500 * i - 1000 * lateS,
        position: { topic: 'arrivals', partition: 0, offset: i },
      })),
    );

async function backfill(
  bundle: Bundle,
  engine: EncoderEngine,
  actions: readonly PositionedAction[],
  { maxEvents, memoryBytes }: { maxEvents: number; memoryBytes: number },
  ends: { readonly asOfMs?: number; readonly scores?: ConfigInput['scores'] } | undefined = undefined,
): Promise<OutputBatch[]> {
  const sort = new UserSort({ folder: tmpdir(), memoryBytes });
  try {
    for (const action of actions) sort.add(action, 0);
    const settings = parseConfig(
      { bundle: 'none', scores: ends?.scores ?? { topK: 0 }, sequence: { seenLimit: SEEN_LIMIT, erasureAction: 'erase' } },
      'this test',
    );
    const batches = [...userBatches(sort.sorted(), maxEvents)].map(({ actions, continues, nextPosition }) => ({
      source: { topic: 'b', partition: 0, records: [], nextOffset: nextPosition, readAtMs: 0, ack: () => undefined, continues },
      actions,
    }));
    return await lastValueFrom(
      from(batches).pipe(
        bulkFlow({
          settings,
          model: pipelineModel(bundle),
          encoder: engine,
          everyEvent: ends === undefined,
          ranks: ends === undefined || ends.scores !== undefined,
          asOfMs: ends?.asOfMs,
          // The engine itself, without the thread that gives it one call at a time.
          maxInFlight: 1,
          publisher: { publish: () => Promise.resolve() },
          committer: { commit: () => Promise.resolve() },
          now: () => 0,
        }),
        toArray(),
      ),
    );
  } finally {
    sort.close();
  }
}

const ordersOf = (batches: readonly OutputBatch[]): string[] =>
  batches.flatMap(({ scores }) => scores.map(({ candidates }) => candidates.map(({ entity }) => entity).join()));

/** What is left after the erasures that a store would have carried out. */
function kept(batches: readonly OutputBatch[]): Pick<OutputBatch, 'embeddings' | 'quality' | 'processed'> {
  let embeddings: UserEmbedding[] = [];
  let quality: OutputBatch['quality'][number][] = [];
  let processed: OutputBatch['processed'][number][] = [];
  for (const batch of batches) {
    const erased = new Set(batch.erased ?? []);
    embeddings = [...embeddings.filter(({ userId }) => !erased.has(userId)), ...batch.embeddings];
    quality = [...quality.filter(({ userId }) => !erased.has(userId)), ...batch.quality];
    processed = [...processed.filter(({ action }) => !erased.has(action.userId)), ...batch.processed];
  }
  return { embeddings, quality, processed };
}

const difference = (a: Float32Array, b: Float32Array): number => a.reduce((max, x, d) => Math.max(max, Math.abs(x - b[d]!)), 0);

const RETRIEVING = Object.entries(CACHEABLE).filter(([, { config }]) => config.retrieval !== false);

describe('the bulk path', () => {
  it.each(RETRIEVING)('equals the step path: %s', async (_name, bundle) => {
    const engines = [0, 1].map(() => new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 }));
    const [stepping, bulk] = engines as [EncoderEngine, EncoderEngine];
    try {
      await fc.assert(
        fc.asyncProperty(arrivals(bundle.config.actions.encoded), cutArbitrary, async (actions, cut) => {
          const expected = await stepPath(bundle, stepping, actions, SEEN_LIMIT);
          for (const { userId } of actions) stepping.forget(userId);
          const { embeddings, quality, processed } = kept(await backfill(bundle, bulk, actions, cut));

          const wanted = new Map(
            [...expected.points.values(), ...expected.ends.values()].map((row) => [`${row.userId}/${row.version}`, row]),
          );
          expect(embeddings.map(({ userId, version }) => `${userId}/${version}`).sort()).toEqual([...wanted.keys()].sort());
          for (const { userId, version, embedding, lineage, queryTimeMs, sequenceLength } of embeddings) {
            const row = wanted.get(`${userId}/${version}`)!;
            expect(lineage.sequenceDigest).toBe(row.sequenceDigest);
            expect(queryTimeMs).toBe(row.queryTimeMs);
            expect(sequenceLength).toBeLessThanOrEqual(bundle.config.window.maxLength);
            expect(difference(embedding, row.embedding)).toBeLessThanOrEqual(1e-5);
          }
          expect(quality.map(({ userId, priorEvents }) => `${userId}/${priorEvents}`).sort()).toEqual(
            [...expected.points.keys()].sort(),
          );
          // Two entities whose scores differ in the last bit may change places.
          for (const { userId, priorEvents, rank } of quality)
            expect(Math.abs(rank - expected.points.get(`${userId}/${priorEvents}`)!.rank)).toBeLessThanOrEqual(1);
          expect(
            processed
              .map(({ action, disposition }) => `${action.userId}/${action.eventId} ${disposition} ${action.position.offset}`)
              .sort(),
          ).toEqual([...expected.dispositions].sort());
        }),
        { numRuns: 12 },
      );
    } finally {
      await Promise.all(engines.map((engine) => engine.release()));
    }
  });

  it('gives the end of each history alone, asked about its newest event or about a moment', async () => {
    const bundle = CACHEABLE['plain']!;
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
    const full = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
    await fc.assert(
      fc.asyncProperty(
        arrivals(['view']),
        cutArbitrary,
        fc.option(fc.constant(1_600_100_000_000)),
        async (actions, cut, asOfMs) => {
          const window = { window: bundle.config.window, seenLimit: SEEN_LIMIT };
          const users = new Map<string, UserSequence>();
          const tokenizer = new Tokenizer(bundle);
          for (const action of actions) {
            const token = tokenizer.token(action);
            if (action.action === 'erase') users.delete(action.userId);
            if (token.kind === 'refuse') continue;
            const sequence = users.get(action.userId) ?? new UserSequence(window);
            users.set(action.userId, sequence);
            if (token.kind === 'keep') sequence.keep(action.eventId, action.eventTimeMs);
            else sequence.add(action.eventId, action.eventTimeMs, token.entity);
          }
          for (const [userId, { length }] of users) if (length === 0) users.delete(userId);
          const { embeddings } = kept(await backfill(bundle, engine, actions, cut, asOfMs === null ? {} : { asOfMs }));
          expect(embeddings.map(({ userId }) => userId).sort()).toEqual([...users.keys()].sort());
          for (const { userId, version, embedding, queryTimeMs, lineage } of embeddings) {
            const sequence = users.get(userId)!;
            expect([version, lineage.sequenceDigest]).toEqual([sequence.version, sequence.digest]);
            expect(queryTimeMs).toBe(asOfMs ?? sequence.newestTimeMs);
            const segment = { ...sequence.snapshot(), from: sequence.length - 1, queryTimeS: Math.floor(queryTimeMs / 1000) };
            const [expected] = await full.encode([{ userId, segments: [segment] }]);
            expect(difference(embedding, expected!.segments[0]!.rows)).toBeLessThanOrEqual(1e-5);
          }
        },
      ),
      { numRuns: 20 },
    );
    await Promise.all([engine.release(), full.release()]);
  });

  /** Lists of every user's end, as stepping publishes them: the last before the user's erasure, or of all. */
  async function steppedLists(bundle: Bundle, scores: ConfigInput['scores'], actions: readonly PositionedAction[]) {
    const mapping = { eventId: '{eventId}', userId: '{userId}', action: '{action}', entity: '{entity}' };
    const driver = new TopologyDriver({
      bundle,
      mapping: { ...mapping, eventTime: { field: 'eventTimeMs', unit: 'ms' } },
      settings: { scores, sequence: { seenLimit: SEEN_LIMIT, erasureAction: 'erase' } },
      now: () => Date.UTC(2022, 0, 1),
    });
    try {
      const lists = new Map<string, CandidateScores>();
      for (const action of actions) {
        const output = await driver.pipe([JSON.stringify(action)]);
        for (const userId of output.erased ?? []) lists.delete(userId);
        for (const list of output.scores) lists.set(list.userId, list);
      }
      return lists;
    } finally {
      await driver.close();
    }
  }

  it.each(['STU, additive tokens, values, both biases', 'STU, interleaved tokens, values, local', 'research with heads'])(
    'lists in two stages as live does: %s',
    async (name) => {
      const bundle = RANKING[name]!;
      const scores = { topK: 4, retrieve: 9 };
      const kinds = bundle.config.actions.encoded;
      const actions = fc.sample(arrivals(kinds), { seed: 7, numRuns: 8 }).sort((a, b) => b.length - a.length)[0]!;
      const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
      try {
        const expected = await steppedLists(bundle, scores, actions);
        expect(expected.size).toBeGreaterThan(2);
        const batches = await backfill(bundle, engine, actions, { maxEvents: 25, memoryBytes: 50_000 }, { scores });
        const lists = new Map(batches.flatMap((batch) => batch.scores).map((list) => [list.userId, list]));
        expect([...lists.keys()].sort()).toEqual([...expected.keys()].sort());
        for (const [userId, { candidates, tasks = {}, version }] of expected) {
          const list = lists.get(userId)!;
          expect(list.version).toBe(version);
          expect(list.candidates.map(({ entity }) => entity)).toEqual(candidates.map(({ entity }) => entity));
          expect(Object.keys(list.tasks!)).toEqual(['like', 'buy', 'hide']);
          expect(Object.keys(tasks)).toEqual(['like', 'buy', 'hide']);
          for (const [i, { score }] of candidates.entries()) {
            expect(Math.abs(list.candidates[i]!.score - score)).toBeLessThanOrEqual(1e-5);
            for (const [task, values] of Object.entries(tasks))
              expect(Math.abs(list.tasks![task]![i]! - values[i]!)).toBeLessThanOrEqual(1e-5);
          }
        }
        // Retrieving fewer gives other lists: the second stage is seen.
        const fewer = await backfill(
          bundle,
          engine,
          actions,
          { maxEvents: 25, memoryBytes: 50_000 },
          { scores: { topK: 4, retrieve: 4 } },
        );
        expect(ordersOf(fewer)).not.toEqual(ordersOf(batches));
      } finally {
        await engine.release();
      }
    },
  );

  it('of a bundle that only ranks gives its embeddings, as live does, and nothing to list', async () => {
    const { config, ...parts } = RANKING['STU']!;
    const bundle = { ...parts, config: { ...config, retrieval: false } };
    const actions = fc.sample(arrivals(config.actions.encoded), { seed: 3, numRuns: 8 }).sort((a, b) => b.length - a.length)[0]!;
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
    const batches = await backfill(bundle, engine, actions, { maxEvents: 25, memoryBytes: 50_000 }, { scores: { topK: 4 } });
    expect(batches.flatMap(({ embeddings }) => embeddings).length).toBeGreaterThan(2);
    expect(batches.flatMap(({ scores, quality }) => [...scores, ...quality])).toEqual([]);
    await engine.release();
  });

  it('would be seen to differ: rows asked about another time are not equal', async () => {
    const bundle = CACHEABLE['plain']!;
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
    const actions = Array.from(
      { length: 30 },
      (_, i): PositionedAction => ({
        userId: 'u',
        eventId: `e${i}`,
        action: 'view',
        entity: `item:${1 + i}`,
        eventTimeMs: 1_600_000_000_000 + 3_600_000 * i * i,
        position: { topic: 'a', partition: 0, offset: i },
      }),
    );
    const { points } = await stepPath(bundle, engine, actions, SEEN_LIMIT);
    const shifted = actions.map((action) => ({
      ...action,
      eventTimeMs: action.eventTimeMs + (action.position.offset > 20 ? 9e8 : 0),
    }));
    const { embeddings } = kept(await backfill(bundle, engine, shifted, { maxEvents: 100, memoryBytes: 1e6 }));
    const at = (version: number) =>
      difference(embeddings.find((one) => one.version === version)!.embedding, points.get(`u/${version}`)!.embedding);
    expect(at(20)).toBeLessThanOrEqual(1e-5);
    expect(at(21)).toBeGreaterThan(1e-3);
    await engine.release();
  });

  it.each(Object.entries(REENCODED))('refuses a model whose rows change with later events: %s', async (_name, bundle) => {
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
    await expect(engine.encodeInBulk([])).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
    await engine.release();
  });
});
