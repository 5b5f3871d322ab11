/**
 * The law: whatever the cache holds, the rows returned equal those of a full encode of the same window. Each property plays a
 * script of calls on one engine and compares every row with an engine that has no cache and with the float64 reference.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Bundle, kvBytesPerRow } from '../../models/hstu/bundle.ts';
import { EncoderEngine, type EngineOptions } from '../../models/worker/engine.ts';
import type { EncodedSegment } from '../../schemas/encoding.ts';
import { Deviation } from '../support/deviation.ts';
import { segmentOf, someWindow, type Window } from '../support/encode-segments.ts';
import { referenceRows } from '../support/reference-hstu.ts';
import { referenceStuRows } from '../support/reference-stu.ts';
import { CACHEABLE, inLayout, MAX_LENGTH, REENCODED, VOCABULARY } from './bundles.ts';
import { type Call, callsOf, type Happening, historyArbitrary, type Step, stepsArbitrary } from './encode-script.ts';

/** Cached against full: float32 sums in another order. */
const TOLERANCE = 1e-5;
/** Float32 against float64 (measured: below 3e-6). */
const REFERENCE_TOLERANCE = 2e-5;

type Mode = (bundle: Bundle) => EngineOptions;
const rowsOfBudget =
  (rows: number, more: Partial<EngineOptions>): Mode =>
  (bundle) => ({
    kvBudgetBytes: rows * kvBytesPerRow(bundle.config),
    ...more,
  });
const roomy = rowsOfBudget(4_000, {});
const CHUNKED = [1, 2, 3, 7, 33].map((prefillRows) => rowsOfBudget(4_000, { prefillRows, pageLength: 4 }));
/** Room for one long window or a few short ones: evictions, compactions, users without a cache. */
const TIGHT = [
  rowsOfBudget(180, { pageLength: 2 }),
  rowsOfBudget(120, { pageLength: 4 }),
  rowsOfBudget(90, { pageLength: 4 }),
  rowsOfBudget(64, { pageLength: 2, prefillRows: 5 }),
  rowsOfBudget(33, { pageLength: 1, prefillRows: 16 }),
  rowsOfBudget(8, { prefillRows: 3 }),
  rowsOfBudget(0, { prefillRows: 6 }),
];

const USERS = 5;
const bundles = Object.keys(CACHEABLE);
const EVERYTHING: Happening['kind'][] = [
  'append',
  'query',
  'repeat',
  'insert',
  'replace',
  'retime',
  'erase',
  'shorten',
  'slide',
  'forget',
];

describe('rows of a cached encode equal those of a full encode', () => {
  law('for any split of a sequence into appends', { kinds: ['append'] });
  law('whatever was there before the first call', { kinds: ['append'], history: MAX_LENGTH, maxSteps: 5 });
  law('for queries without a new event, and asked twice', { kinds: ['append', 'query', 'repeat'], history: 40 });
  law('after late events, wherever they belong', { kinds: ['append', 'insert'], history: 60 });
  law('after edits of tokens and of times', { kinds: ['append', 'replace', 'retime'], history: 60 });
  law('after erasure', { kinds: ['append', 'erase', 'shorten', 'forget'], history: 60 });
  law('while the window slides', { kinds: ['append', 'slide'], history: MAX_LENGTH });
  law('with any company in the batch, one user twice, several segments a request', {
    kinds: EVERYTHING,
    users: USERS,
    history: 40,
    maxSteps: 24,
  });
  law('with a prefill in chunks of any length', { kinds: ['append', 'insert', 'slide'], history: MAX_LENGTH, modes: CHUNKED });
  law('under eviction, compaction and without any room', {
    kinds: EVERYTHING,
    users: USERS,
    history: MAX_LENGTH,
    maxSteps: 24,
    modes: TIGHT,
  });
});

describe('everything at once, for each switch of the architecture', () => {
  for (const name of bundles)
    law(name, {
      kinds: EVERYTHING,
      users: 3,
      history: MAX_LENGTH,
      maxSteps: 16,
      modes: [roomy, ...CHUNKED, ...TIGHT],
      bundles: [name],
      runs: 20,
    });
});

describe('a bundle that fails the cacheability lint', () => {
  for (const [name, bundle] of Object.entries(REENCODED)) {
    it(`runs by full re-encode: ${name}`, async ({ annotate }) => {
      const deviation = new Deviation();
      const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 20, prefillRows: 4 });
      for (const n of [1, 2, 5, 31, MAX_LENGTH, 6]) {
        const window = someWindow(n, VOCABULARY, n);
        const queryTimeS = window.timesS.at(-1)! + 500;
        const [result] = await engine.encode([{ userId: 'u', segments: [segmentOf(window, { queryTimeS })] }]);
        const { rows, outcome, rowsComputed } = result!.segments[0]!;
        expect({ outcome, rowsComputed }).toEqual({ outcome: 'uncached', rowsComputed: n });
        deviation.check(rows, referenceRows(bundle, window, queryTimeS), bundle.config.dimension, REFERENCE_TOLERANCE, name);
      }
      expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0 });
      await engine.release();
      await annotate(`${deviation}`);
    });
  }
});

describe('what an encode costs', () => {
  const bundle = CACHEABLE['plain']!;
  const window = someWindow(40, VOCABULARY);
  const show = (n: number, wanted = {}): ReturnType<typeof segmentOf> =>
    segmentOf({ entities: window.entities.slice(0, n), timesS: window.timesS.slice(0, n) }, { from: n - 1, ...wanted });
  const costs = async (segments: ReturnType<typeof segmentOf>[]): Promise<(string | number)[][]> => {
    const engine = new EncoderEngine(bundle, roomy(bundle));
    const [result] = await engine.encode([{ userId: 'u', segments }]);
    expect(engine.stats.rowsComputed).toBe(result!.segments.reduce((sum, { rowsComputed }) => sum + rowsComputed, 0));
    await engine.release();
    return result!.segments.map(({ outcome, rowsComputed }) => [outcome, rowsComputed]);
  };

  it('one event costs two rows, k events k + 1, a query one', async () => {
    expect(await costs([show(30), show(31, { from: 29 }), show(36, { from: 30 }), show(36, { queryTimeS: 2e9 })])).toEqual([
      ['cold', 30],
      ['hit', 2],
      ['hit', 6],
      ['hit', 1],
    ]);
  });

  it('a late event costs the rows from the one before it, even where it lies right before the newest', async () => {
    const late = (at: number) => ({
      entities: window.entities.slice(0, 30).toSpliced(at, 0, 9),
      timesS: window.timesS.slice(0, 30).toSpliced(at, 0, window.timesS[at]! - 1),
    });
    expect(await costs([show(30), segmentOf(late(29), { from: 30 })])).toEqual([
      ['cold', 30],
      ['diverged', 3],
    ]);
    expect(await costs([show(30), segmentOf(late(10), { from: 30 })])).toEqual([
      ['cold', 30],
      ['diverged', 22],
    ]);
  });

  it('room goes to whoever came last: beyond it the least recently used lose theirs, within it nobody does', async () => {
    const engine = new EncoderEngine(bundle, rowsOfBudget(64, { pageLength: 4 })(bundle));
    const ask = async (userId: string) => (await engine.encode([{ userId, segments: [show(21)] }]))[0]!.segments[0]!.outcome;
    const asked = ['a', 'b', 'a', 'c', 'd', 'c', 'd', 'a', 'b'];
    const outcomes = [];
    for (const userId of asked) outcomes.push(await ask(userId));
    expect(outcomes).toEqual(['cold', 'cold', 'hit', 'cold', 'cold', 'hit', 'hit', 'hit', 'cold']);
    expect(engine.stats).toMatchObject({ users: 3, evictions: 2 });
    await engine.release();
  });

  it('a window that slid costs the whole window', async () => {
    const slid: Window = { windowStart: 5, entities: window.entities.slice(5, 31), timesS: window.timesS.slice(5, 31) };
    expect(await costs([show(30), segmentOf(slid, { from: 25 })])).toEqual([
      ['cold', 30],
      ['window', 26],
    ]);
  });
});

interface Law {
  readonly kinds: readonly Happening['kind'][];
  readonly users?: number;
  /** Longest history before the script begins. */
  readonly history?: number;
  readonly maxSteps?: number;
  readonly modes?: readonly Mode[];
  readonly bundles?: readonly string[];
  readonly runs?: number;
}

function law(
  promise: string,
  { kinds, users = 1, history = 0, maxSteps = 14, modes = [roomy], bundles: names = bundles, runs = 40 }: Law,
): void {
  it(promise, async ({ annotate }) => {
    const engines = new Engines();
    const full = new Deviation();
    const reference = new Deviation();
    const steps = stepsArbitrary(kinds, { vocabulary: VOCABULARY, users, maxSteps });
    const histories = fc.array(historyArbitrary(VOCABULARY, history), { minLength: users, maxLength: users });
    const property = fc.asyncProperty(
      fc.constantFrom(...names),
      fc.constantFrom(...modes),
      steps,
      histories,
      async (name: string, mode: Mode, script: Step[], before: Window[]) => {
        const bundle = CACHEABLE[name]!;
        const engine = engines.of(bundle, mode);
        try {
          for (const call of callsOf(script, before, MAX_LENGTH))
            await checkCall(engine, engines.uncached(bundle), bundle, call, { full, reference });
        } finally {
          // The pool keeps what it held: an engine used before must be as good as a new one.
          for (let user = 0; user < users; user++) engine.forget(`user ${user}`);
        }
        expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0 });
      },
    );
    await fc.assert(property, { numRuns: runs });
    await annotate(`against a full encode ${full}, against float64 ${reference}; ${engines.summary()}`);
    await engines.release();
  });
}

async function checkCall(
  engine: EncoderEngine,
  uncached: EncoderEngine,
  bundle: Bundle,
  { forget, requests: plain }: Call,
  { full, reference }: { full: Deviation; reference: Deviation },
): Promise<void> {
  const D = bundle.config.dimension;
  const requests = plain.map((request) => ({ ...request, segments: request.segments.map((one) => inLayout(bundle, one)) }));
  for (const userId of forget) engine.forget(userId);
  const results = await engine.encode(requests);
  expect(results.map(({ userId, segments }) => [userId, segments.length])).toEqual(
    requests.map(({ userId, segments }) => [userId, segments.length]),
  );
  expect(engine.stats.kvBytesUsed).toBeLessThanOrEqual(engine.stats.kvBytesBudget);

  const segments = requests.flatMap((request) => request.segments);
  const answers: EncodedSegment[] = results.flatMap((result) => result.segments);
  const expected = await uncached.encode(segments.map((segment, i) => ({ userId: `${i}`, segments: [{ ...segment, from: 0 }] })));
  for (const [i, segment] of segments.entries()) {
    const { entities, timesS, from, queryTimeS } = segment;
    const { rows, outcome, rowsComputed } = answers[i]!;
    const what = `segment ${i} of ${segments.length} (${outcome}, rows from ${from} of ${entities.length})`;
    expect(rowsComputed, what).toBeGreaterThanOrEqual(entities.length - from);
    full.check(rows, expected[i]!.segments[0]!.rows.subarray(from * D), D, TOLERANCE, what);
    const truth = rowsInFloat64(bundle, { entities: [...entities], timesS: [...timesS] }, queryTimeS).subarray(from * D);
    reference.check(rows, truth, D, REFERENCE_TOLERANCE, `${what}, against float64`);
  }
}

const rowsInFloat64: typeof referenceRows = (bundle, window, queryTimeS) =>
  (bundle.config.stu === undefined ? referenceRows : referenceStuRows)(bundle, window, queryTimeS);

/** Engines by model and mode, so that sessions are created once. */
class Engines {
  readonly #engines = new Map<Bundle, Map<Mode, EncoderEngine>>();

  of(bundle: Bundle, mode: Mode): EncoderEngine {
    const known = this.#engines.get(bundle) ?? new Map<Mode, EncoderEngine>();
    this.#engines.set(bundle, known);
    const engine = known.get(mode) ?? new EncoderEngine(bundle, mode(bundle));
    known.set(mode, engine);
    return engine;
  }

  /** No room for any row: every encode is a full one, in one piece. */
  uncached(bundle: Bundle): EncoderEngine {
    return this.of(bundle, withoutRoom);
  }

  /** What the scripts brought about. */
  summary(): string {
    const totals: Record<string, number> = {};
    for (const engines of this.#engines.values())
      for (const [mode, { stats }] of engines)
        if (mode !== withoutRoom)
          for (const [key, count] of Object.entries({ ...stats.outcomes, evictions: stats.evictions }))
            totals[key] = (totals[key] ?? 0) + count;
    return Object.entries(totals)
      .map(([key, count]) => `${key} ${count}`)
      .join(', ');
  }

  async release(): Promise<void> {
    for (const engines of this.#engines.values()) for (const engine of engines.values()) await engine.release();
  }
}

const withoutRoom: Mode = () => ({ kvBudgetBytes: 0 });
