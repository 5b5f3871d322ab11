/** The law of every cache, for the engine on the CPU; and what its encodes cost. */
import { describe, expect, it } from 'vitest';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { Deviation } from '../support/deviation.ts';
import { segmentOf, someWindow, type Window } from '../support/encode-segments.ts';
import { referenceRows } from '../support/reference-hstu.ts';
import { CACHEABLE, MAX_LENGTH, REENCODED, VOCABULARY } from './bundles.ts';
import { exactnessLaws, REFERENCE_TOLERANCE, roomy, rowsOfBudget } from './exactness-laws.ts';

exactnessLaws({
  engineOf: (bundle, options) => new EncoderEngine(bundle, options),
  tolerance: 1e-5,
  referenceTolerance: REFERENCE_TOLERANCE,
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
