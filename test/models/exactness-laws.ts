/**
 * The law that every engine with a cache obeys, whatever it runs on: the rows returned equal those of a full encode of the same
 * window. Each property plays a script of calls on one engine and compares every row with an engine that has no cache and with
 * the float64 reference.
 */
import { tmpdir } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Bundle, kvBytesPerRow } from '../../models/hstu/bundle.ts';
import { EncoderEngine, type EngineOptions } from '../../models/worker/engine.ts';
import type { EncodedSegment } from '../../schemas/encoding.ts';
import { Deviation } from '../support/deviation.ts';
import type { Window } from '../support/encode-segments.ts';
import { referenceRows } from '../support/reference-hstu.ts';
import { referenceStuRows } from '../support/reference-stu.ts';
import { CACHEABLE, inLayout, MAX_LENGTH, VOCABULARY } from './bundles.ts';
import { type Call, callsOf, type Happening, historyArbitrary, type Step, stepsArbitrary } from './encode-script.ts';

/** Float32 against float64 (measured: below 3e-6). */
export const REFERENCE_TOLERANCE = 2e-5;

type Engine = Pick<EncoderEngine, 'encode' | 'forget' | 'stats' | 'release'>;

export interface Subject {
  readonly engineOf: (bundle: Bundle, options: EngineOptions) => Engine;
  /** Cached against full: float32 sums in another order. */
  readonly tolerance: number;
  /** Against float64. */
  readonly referenceTolerance: number;
  /** Scripts played, as a share of the usual number. @default 1 */
  readonly share?: number;
}

type Mode = (bundle: Bundle) => EngineOptions;
export const rowsOfBudget =
  (rows: number, more: Partial<EngineOptions>): Mode =>
  (bundle) => ({
    kvBudgetBytes: rows * kvBytesPerRow(bundle.config),
    ...more,
  });
export const roomy = rowsOfBudget(4_000, {});
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
/** The same where some are not let in, and those who go are not the oldest. */
const TIGHT_COST_AWARE = TIGHT.slice(0, 4).map(
  (mode): Mode =>
    (bundle) => ({ ...mode(bundle), cachePolicy: 'cost-aware' }),
);

/** The same with a disk below, that has room for all, for a few, or for about one long window. */
const TIGHT_OVER_A_DISK = [4_000, 300, 80].flatMap((rows) =>
  TIGHT.slice(0, 5).map(
    (mode): Mode =>
      (bundle) => ({ ...mode(bundle), disk: { folder: tmpdir(), budgetBytes: rows * (kvBytesPerRow(bundle.config) + 16) } }),
  ),
);

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

/** Every law as tests, for one kind of engine. */
export function exactnessLaws(subject: Subject): void {
  describe('rows of a cached encode equal those of a full encode', () => {
    law(subject, 'for any split of a sequence into appends', { kinds: ['append'] });
    law(subject, 'whatever was there before the first call', { kinds: ['append'], history: MAX_LENGTH, maxSteps: 5 });
    law(subject, 'for queries without a new event, and asked twice', { kinds: ['append', 'query', 'repeat'], history: 40 });
    law(subject, 'after late events, wherever they belong', { kinds: ['append', 'insert'], history: 60 });
    law(subject, 'after edits of tokens and of times', { kinds: ['append', 'replace', 'retime'], history: 60 });
    law(subject, 'after erasure', { kinds: ['append', 'erase', 'shorten', 'forget'], history: 60 });
    law(subject, 'while the window slides', { kinds: ['append', 'slide'], history: MAX_LENGTH });
    law(subject, 'with any company in the batch, one user twice, several segments a request', {
      kinds: EVERYTHING,
      users: USERS,
      history: 40,
      maxSteps: 24,
    });
    law(subject, 'with a prefill in chunks of any length', {
      kinds: ['append', 'insert', 'slide'],
      history: MAX_LENGTH,
      modes: CHUNKED,
    });
    law(subject, 'under eviction, compaction and without any room', {
      kinds: EVERYTHING,
      users: USERS,
      history: MAX_LENGTH,
      maxSteps: 24,
      modes: TIGHT,
    });
    law(subject, 'under the cost-aware policy, which refuses some', {
      kinds: EVERYTHING,
      users: USERS,
      history: MAX_LENGTH,
      maxSteps: 24,
      modes: TIGHT_COST_AWARE,
      runs: 20,
    });
    law(subject, 'whoever was evicted and is read back from a disk', {
      kinds: EVERYTHING,
      users: USERS,
      history: MAX_LENGTH,
      maxSteps: 24,
      modes: TIGHT_OVER_A_DISK,
      mustOccur: 'restored',
    });
  });

  describe('everything at once, for each switch of the architecture', () => {
    for (const name of bundles)
      law(subject, name, {
        kinds: EVERYTHING,
        users: 3,
        history: MAX_LENGTH,
        maxSteps: 16,
        modes: [roomy, ...CHUNKED, ...TIGHT],
        bundles: [name],
        runs: 20,
      });
  });
}

interface Law {
  readonly kinds: readonly Happening['kind'][];
  readonly users?: number;
  /** Longest history before the script begins. */
  readonly history?: number;
  readonly maxSteps?: number;
  readonly modes?: readonly Mode[];
  readonly bundles?: readonly string[];
  readonly runs?: number;
  /** What the scripts must have brought about, where all of them are played. */
  readonly mustOccur?: string;
}

function law(
  subject: Subject,
  promise: string,
  { kinds, users = 1, history = 0, maxSteps = 14, modes = [roomy], bundles: names = bundles, runs = 40, mustOccur }: Law,
): void {
  it(promise, async ({ annotate }) => {
    const engines = new Engines(subject.engineOf);
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
            await checkCall(subject, engine, engines.uncached(bundle), bundle, call, { full, reference });
        } finally {
          // The pool keeps what it held: an engine used before must be as good as a new one.
          for (let user = 0; user < users; user++) engine.forget(`user ${user}`);
        }
        expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0 });
      },
    );
    await fc.assert(property, { numRuns: Math.ceil(runs * (subject.share ?? 1)) });
    const occurred = engines.totals();
    if (mustOccur !== undefined && subject.share === undefined) expect(occurred[mustOccur]).toBeGreaterThan(0);
    const summary = Object.entries(occurred).map(([what, count]) => `${what} ${count}`);
    await annotate(`against a full encode ${full}, against float64 ${reference}; ${summary.join(', ')}`);
    await engines.release();
  });
}

async function checkCall(
  { tolerance, referenceTolerance }: Subject,
  engine: Engine,
  uncached: Engine,
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
    full.check(rows, expected[i]!.segments[0]!.rows.subarray(from * D), D, tolerance, what);
    const truth = rowsInFloat64(bundle, { entities: [...entities], timesS: [...timesS] }, queryTimeS).subarray(from * D);
    reference.check(rows, truth, D, referenceTolerance, `${what}, against float64`);
  }
}

const rowsInFloat64: typeof referenceRows = (bundle, window, queryTimeS) =>
  (bundle.config.stu === undefined ? referenceRows : referenceStuRows)(bundle, window, queryTimeS);

/** Engines by model and mode, so that sessions are created once. */
class Engines {
  readonly #engineOf: Subject['engineOf'];
  readonly #engines = new Map<Bundle, Map<Mode, Engine>>();
  readonly #uncached = new Map<Bundle, Engine>();

  constructor(engineOf: Subject['engineOf']) {
    this.#engineOf = engineOf;
  }

  of(bundle: Bundle, mode: Mode): Engine {
    const known = this.#engines.get(bundle) ?? new Map<Mode, Engine>();
    this.#engines.set(bundle, known);
    const engine = known.get(mode) ?? this.#engineOf(bundle, mode(bundle));
    known.set(mode, engine);
    return engine;
  }

  /** No room for any row: every encode is a full one, in one piece. */
  uncached(bundle: Bundle): Engine {
    const engine = this.#uncached.get(bundle) ?? new EncoderEngine(bundle, { kvBudgetBytes: 0 });
    this.#uncached.set(bundle, engine);
    return engine;
  }

  /** What the scripts brought about. */
  totals(): Record<string, number> {
    const totals: Record<string, number> = {};
    for (const engines of this.#engines.values())
      for (const { stats } of engines.values()) {
        const counts = { ...stats.outcomes, evictions: stats.evictions, restored: stats.disk?.restores ?? 0 };
        for (const [what, count] of Object.entries(counts)) totals[what] = (totals[what] ?? 0) + count;
      }
    return totals;
  }

  async release(): Promise<void> {
    for (const engines of this.#engines.values()) for (const engine of engines.values()) await engine.release();
    for (const engine of this.#uncached.values()) await engine.release();
  }
}
