/**
 * The laws of candidate scoring: whatever the cache holds, whatever the order, the micro-batch and the company, a candidate's
 * scores equal those of a full pass in which it sees the window and itself; and the cache is left as it was.
 */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { HstuEncoder } from '../../models/encoder.ts';
import { type Bundle, kvBytesPerRow, makeBundle } from '../../models/hstu/bundle.ts';
import { KvCache } from '../../models/kv-cache/kv-cache.ts';
import { EncoderEngine, type EngineOptions } from '../../models/worker/engine.ts';
import type { CandidateRequest, CandidateResult, EncodeSegment } from '../../schemas/encoding.ts';
import { Deviation } from '../support/deviation.ts';
import { prefix, segmentOf, someWindow } from '../support/encode-segments.ts';
import { referenceRows } from '../support/reference-hstu.ts';
import { referenceStuRows, referenceTasks } from '../support/reference-stu.ts';
import { CACHEABLE, inLayout, MAX_LENGTH, RANKING, VOCABULARY } from './bundles.ts';
import { callsOf, type Happening, historyArbitrary, stepsArbitrary } from './encode-script.ts';

const TOLERANCE = 1e-5;
/** Float32 against float64. */
const REFERENCE_TOLERANCE = 2e-5;
const stu = RANKING['STU']!;

class OpenCache extends KvCache {
  /** K and V of a user, every byte of its capacity, and what they are said to encode. */
  digest(userId: string): string {
    const { extent, length, windowStart, entities, timesS } = this.touch(userId)!;
    const hash = createHash('sha256').update(JSON.stringify([length, windowStart, [...entities], [...timesS]]));
    for (const { data } of [...extent.keys, ...extent.values]) {
      const { buffer, byteOffset, byteLength } = data as Float32Array;
      hash.update(new Uint8Array(buffer, byteOffset, byteLength));
    }
    return hash.digest('hex');
  }
}

const engines: EncoderEngine[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));

function start(bundle: Bundle, rows: number, options: Partial<EngineOptions> = {}) {
  let cache: OpenCache | undefined;
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: rows * kvBytesPerRow(bundle.config), ...options }, (given) => {
    cache = new OpenCache(given);
    return cache;
  });
  engines.push(engine);
  return { engine, cache: cache! };
}

const KINDS: Happening['kind'][] = ['append', 'query', 'insert', 'replace', 'retime', 'erase', 'shorten', 'slide', 'forget'];
const MODES: [string, number, Partial<EngineOptions>][] = [
  ['room for all', 4_000, {}],
  ['one candidate at a time', 4_000, { candidateRows: 1, prefillRows: 7 }],
  ['micro-batches of 3', 4_000, { candidateRows: 3, pageLength: 4, prefillRows: 3 }],
  ['evictions', 100, { candidateRows: 5, pageLength: 2 }],
  ['no room', 0, { candidateRows: 7, prefillRows: 6 }],
];

describe.each(Object.entries(RANKING))('%s', (_, bundle) => {
  it.each(MODES)('equals full passes after any script of events: %s', async (_, rows, options) => {
    const { engine, cache } = start(bundle, rows, options);
    const { engine: whole } = start(bundle, 0, { candidateRows: 64 });
    const deviation = new Deviation();
    const users = 3;
    const entity = fc.integer({ min: 1, max: VOCABULARY });
    const property = fc.asyncProperty(
      stepsArbitrary(KINDS, { vocabulary: VOCABULARY, users, maxSteps: 8 }),
      fc.array(historyArbitrary(VOCABULARY, MAX_LENGTH), { minLength: users, maxLength: users }),
      fc.array(entity, { minLength: 1, maxLength: 9 }),
      fc.boolean(),
      async (script, before, candidates, encodesFirst) => {
        for (const { forget, requests: plain } of callsOf(script, before, MAX_LENGTH)) {
          const requests = plain.map(({ userId, segments }) => ({
            userId,
            segments: segments.map((segment) => inLayout(bundle, segment)),
          }));
          for (const userId of forget) engine.forget(userId);
          if (encodesFirst) await engine.encode(requests);
          const asked = requests.map(({ userId, segments }, i) => ({
            userId,
            segment: segments.at(-1)!,
            candidates: Int32Array.from(candidates, (candidate) => 1 + ((candidate + i) % VOCABULARY)),
            withRows: true,
          }));
          const scored = await engine.scoreCandidates(asked);
          expect(engine.stats.kvBytesUsed).toBeLessThanOrEqual(engine.stats.kvBytesBudget);
          checkAgainst(scored, await whole.scoreCandidatesInFull(asked), TOLERANCE, deviation);
          for (const [i, request] of asked.entries()) checkReference(bundle, request, scored[i]!, deviation);
          const last = asked.at(-1);
          if (rows < 1_000 || last === undefined) continue;
          const held = cache.digest(last.userId);
          const [again] = await engine.scoreCandidates([{ ...last, candidates: last.candidates.toReversed() }]);
          expect(cache.digest(last.userId)).toBe(held);
          expect(again).toMatchObject({ outcome: 'hit', rowsComputed: 1 });
        }
        for (let user = 0; user < users; user++) engine.forget(`user ${user}`);
      },
    );
    await fc.assert(property, { numRuns: 4 });
  });

  it('gives a candidate the same scores in any order, micro-batch and company', async ({ annotate }) => {
    const deviation = new Deviation();
    const window = someWindow(50, VOCABULARY, 3);
    const segment = inLayout(bundle, segmentOf(window, { queryTimeS: window.timesS.at(-1)! + 3_600 }));
    const candidates = Int32Array.from({ length: VOCABULARY }, (_, i) => i + 1);
    const { engine: plain } = start(bundle, 4_000);
    const [expected] = await plain.scoreCandidates([{ userId: 'u', segment, candidates, withRows: true }]);
    for (const candidateRows of [1, 2, 7, 16, 49, 50, 1_000]) {
      const { engine } = start(bundle, 4_000, { candidateRows });
      const order = Array.from(candidates, (_, i) => (i * 7 + candidateRows) % VOCABULARY);
      const other = { userId: 'v', segment: inLayout(bundle, segmentOf(someWindow(33, VOCABULARY, 8))), candidates };
      const shuffled = { userId: 'u', segment, candidates: Int32Array.from(order, (i) => candidates[i]!), withRows: true };
      const [, scored] = await engine.scoreCandidates([other, shuffled, { ...shuffled, candidates: Int32Array.of(4, 4, 4) }]);
      const { combined, tasks, rows } = expected!;
      const D = bundle.config.dimension;
      deviation.check(
        scored!.rows,
        order.flatMap((i) => [...rows.subarray(i * D, (i + 1) * D)]),
        D,
        TOLERANCE,
        'rows',
      );
      deviation.check(
        scored!.combined,
        order.map((i) => combined[i]!),
        1,
        TOLERANCE,
        'combined',
      );
      for (const [name, task] of Object.entries(tasks))
        deviation.check(
          scored!.tasks[name]!,
          order.map((i) => task[i]!),
          1,
          TOLERANCE,
          name,
        );
    }
    await annotate(`${deviation}`);
  });

  // An additive candidate is no event: nothing has been done with it.
  it.skipIf(bundle.config.tokens?.layout === 'additive')('notices a candidate that saw another', async ({ annotate }) => {
    // As the next event, the first candidate is right; the second has then seen the first.
    const window = someWindow(20, VOCABULARY, 5);
    const queryTimeS = window.timesS.at(-1)!;
    const { engine } = start(bundle, 4_000);
    const segment = inLayout(bundle, segmentOf(window));
    const request = { userId: 'u', segment, candidates: Int32Array.of(7, 9), withRows: true };
    const [right] = await engine.scoreCandidates([request]);
    const { engine: wrongly } = start(bundle, 4_000);
    const events = { entities: [...segment.entities, 7, 9], timesS: [...window.timesS, queryTimeS, queryTimeS] };
    const [leaky] = await wrongly.encode([{ userId: 'u', segments: [segmentOf(events, { from: 20 })] }]);
    const D = bundle.config.dimension;
    const { rows } = leaky!.segments[0]!;
    new Deviation().check(rows.subarray(0, D), right!.rows.subarray(0, D), D, TOLERANCE, 'the first candidate');
    const far = new Deviation();
    far.check(rows.subarray(D), right!.rows.subarray(D), D, Number.POSITIVE_INFINITY, 'the second');
    await annotate(`${far}`);
    expect(far.max).toBeGreaterThan(100 * TOLERANCE);
  });
});

describe('scoreCandidates', () => {
  const window = someWindow(40, VOCABULARY, 2);
  const request = (n: number, candidates: readonly number[], userId = 'u'): CandidateRequest => ({
    userId,
    segment: n === 0 ? NOTHING : segmentOf(prefix(window, n)),
    candidates: Int32Array.from(candidates),
  });
  const NOTHING: EncodeSegment = segmentOf({ entities: [], timesS: [] }, { queryTimeS: 1_000_000_000 });

  it('prefills once and keeps the history; a request after it costs the newest row', async () => {
    const { engine } = start(stu, 4_000);
    const answers = [];
    for (const n of [30, 30, 31, 35]) answers.push(...(await engine.scoreCandidates([request(n, [1, 2])])));
    expect(answers.map(({ outcome, rowsComputed }) => [outcome, rowsComputed])).toEqual([
      ['cold', 30],
      ['hit', 1],
      ['hit', 2],
      ['hit', 5],
    ]);
    expect(engine.stats).toMatchObject({ users: 1, segments: 4, rowsComputed: 38 });
    const [encoded] = await engine.encode([{ userId: 'u', segments: [segmentOf(prefix(window, 35), { from: 34 })] }]);
    expect(encoded!.segments[0]).toMatchObject({ outcome: 'hit', rowsComputed: 1 });
  });

  it('leaves every byte of the cache as it was, and a changed byte or one event more is noticed', async () => {
    const { engine, cache } = start(stu, 4_000);
    await engine.scoreCandidates([request(30, [1])]);
    const held = cache.digest('u');
    await engine.scoreCandidates([request(30, [9, 2, 9]), request(30, [])]);
    expect(cache.digest('u')).toBe(held);
    const [values] = cache.touch('u')!.extent.values;
    const data = values!.data as Float32Array;
    data[3] = data[3]! + 1;
    expect(cache.digest('u')).not.toBe(held);
    data[3] = data[3]! - 1;
    await engine.scoreCandidates([request(31, [1])]);
    expect(cache.digest('u')).not.toBe(held);
  });

  it('scores for a user without a history: candidates see themselves', async () => {
    const { engine } = start(stu, 4_000);
    const [scored] = await engine.scoreCandidates([{ ...request(0, [3, 5]), withRows: true }]);
    expect(scored).toMatchObject({ outcome: 'cold', rowsComputed: 0 });
    const expected = referenceStuRows(stu, { entities: [], timesS: [] }, NOTHING.queryTimeS, [3, 5]);
    new Deviation().check(scored!.rows, expected, stu.config.dimension, REFERENCE_TOLERANCE, 'rows');
    expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0 });
  });

  it('answers an empty list with empty scores, and repeats a repeated candidate', async () => {
    const { engine } = start(stu, 4_000);
    const [empty, twice] = await engine.scoreCandidates([request(5, []), request(5, [8, 8])]);
    expect(empty!.combined).toEqual(new Float32Array(0));
    expect(Object.keys(empty!.tasks)).toEqual(['like', 'buy', 'hide']);
    expect(twice!.combined[0]).toBeCloseTo(twice!.combined[1]!, 5);
    expect(twice!.rows).toEqual(new Float32Array(0));
  });

  it('takes a hundred thousand candidates', async () => {
    const { engine } = start(stu, 4_000);
    const many = Array.from({ length: 100_000 }, (_, i) => 1 + (i % VOCABULARY));
    const [scored] = await engine.scoreCandidates([request(40, many)]);
    new Deviation().check(scored!.combined.subarray(99_950), scored!.combined.subarray(0, 50), 1, TOLERANCE, 'combined');
  });

  it.each([
    ['a candidate outside the table', stu, request(3, [1, 51]), 'candidate row 51; allowed: 1 to 50'],
    ['the padding row', stu, request(3, [0]), 'candidate row 0; allowed: 1 to 50'],
    ['a bundle without heads', CACHEABLE['plain']!, request(3, [1]), 'has no task heads'],
    ['a window longer than the model takes', stu, { ...request(0, [1]), segment: segmentOf(someWindow(73, 50)) }, '73 tokens'],
  ] as const)('refuses %s, and names the user', async (_, bundle, asked, message) => {
    const { engine } = start(bundle, 100);
    await expect(engine.scoreCandidates([asked])).rejects.toMatchObject({
      code: 'ENCODER_FAILED',
      message: expect.stringContaining(message),
    });
    await expect(engine.scoreCandidates([asked])).rejects.toThrow('user u');
  });

  it('leaves the dot product to bundles that serve retrieval', async () => {
    const { config, tensors, entities } = stu;
    const { engine } = start(makeBundle({ config: { ...config, retrieval: false }, tensors, entities }), 100);
    await expect(engine.score([])).rejects.toThrow('only ranks candidates');
    expect((await engine.scoreCandidates([request(3, [1])]))[0]!.combined).toHaveLength(1);
  });

  it('goes to the thread that holds the user, and answers in request order', async () => {
    const encoder = new HstuEncoder(stu, { workers: 2 });
    const { engine } = start(stu, 4_000);
    const asked = ['a', 'b', 'c', 'd', 'e'].map((userId, i) => request(10 + i, [1 + i, 7, 9], userId));
    const [here, there] = [await engine.scoreCandidates(asked), await encoder.scoreCandidates(asked)];
    expect(there.map(({ userId }) => userId)).toEqual(['a', 'b', 'c', 'd', 'e']);
    checkAgainst(there, here, TOLERANCE, new Deviation());
    const again = await encoder.scoreCandidates(asked);
    expect(again.every(({ outcome, rowsComputed }) => outcome === 'hit' && rowsComputed === 1)).toBe(true);
    await encoder.close();
  });
});

function checkAgainst(
  actual: readonly CandidateResult[],
  expected: readonly CandidateResult[],
  tolerance: number,
  deviation: Deviation,
): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, { combined, tasks, rows, userId }] of actual.entries()) {
    expect(userId).toBe(expected[i]!.userId);
    deviation.check(rows, expected[i]!.rows, 1, tolerance, `rows of request ${i}`);
    deviation.check(combined, expected[i]!.combined, 1, tolerance, `combined of request ${i}`);
    for (const [name, task] of Object.entries(tasks)) deviation.check(task, expected[i]!.tasks[name]!, 1, tolerance, name);
  }
}

function checkReference(bundle: Bundle, request: CandidateRequest, scored: CandidateResult, deviation: Deviation): void {
  const { dimension: D, ranking, architecture } = bundle.config;
  const { entities, timesS, queryTimeS } = request.segment;
  const window = { entities: [...entities], timesS: [...timesS] };
  const candidates = [...request.candidates];
  /** In the research layer a candidate is the next event, at the query time. */
  const asNextEvent = (candidate: number) =>
    referenceRows(
      bundle,
      { entities: [...window.entities, candidate], timesS: [...window.timesS, queryTimeS] },
      queryTimeS,
    ).subarray(-D);
  const rows =
    architecture === 'hstu-stu'
      ? referenceStuRows(bundle, window, queryTimeS, candidates).subarray(-D * candidates.length)
      : Float64Array.from(candidates.flatMap((candidate) => [...asNextEvent(candidate)]));
  deviation.check(scored.rows, rows, D, REFERENCE_TOLERANCE, 'rows, against float64');
  const tasks = referenceTasks(bundle, rows);
  const K = ranking!.tasks.length;
  const sums = candidates.map(() => 0);
  for (const [k, { name, weight }] of ranking!.tasks.entries()) {
    const column = candidates.map((_, c) => tasks[c * K + k]!);
    deviation.check(scored.tasks[name]!, column, 1, REFERENCE_TOLERANCE, `${name}, against float64`);
    for (const [c, p] of column.entries()) sums[c]! += weight * p;
  }
  deviation.check(scored.combined, sums, 1, 3 * REFERENCE_TOLERANCE, 'combined, against float64');
}
