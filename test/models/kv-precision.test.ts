/** K and V in 16 bits: what is stored, what the kernel reads, how far answers are off, and who is refused. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { kvBytesPerRow } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { packRow, unpack } from '../../models/kv-cache/bfloat16.ts';
import { EncoderEngine, type EngineOptions } from '../../models/worker/engine.ts';
import { parseConfig } from '../../schemas/config.ts';
import { Deviation } from '../support/deviation.ts';
import { prefix, segmentOf, someWindow } from '../support/encode-segments.ts';
import { RANKING } from './bundles.ts';

const LENGTH = 120;
const bundle = randomBundle({ dimension: 32, layers: 3, heads: 2, maxSequenceLength: LENGTH, vocabularySize: 50 });
const D = bundle.config.dimension;
/** Of rows whose numbers are around 1 (measured: .02); float32 is below 1e-5. */
const TOLERANCE = 0.08;
const engines: EncoderEngine[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));

function start(options: EngineOptions, of = bundle): EncoderEngine {
  const engine = new EncoderEngine(of, options);
  engines.push(engine);
  return engine;
}

/** What is left of numbers that were stored. */
function stored(numbers: readonly number[]): number[] {
  const packed = new Uint16Array(numbers.length);
  packRow(packed, 0, new Uint32Array(Float32Array.from(numbers).buffer), 0, numbers.length);
  return [...unpack(packed)];
}

describe('bfloat16', () => {
  it('rounds to the nearest, ties to even, and keeps what is infinite or no number', () => {
    const ulp = 2 ** -7;
    const given = [1 + 0.49 * ulp, 1 + 0.5 * ulp, 1 + 1.5 * ulp, -1 - 0.51 * ulp, Infinity, -Infinity, NaN, -0];
    expect(stored(given)).toEqual([1, 1, 1 + 2 * ulp, -1 - ulp, Infinity, -Infinity, NaN, -0]);
  });

  it('is off by a 256th at most, each number in its place', () => {
    const numbers = fc.array(fc.float({ noNaN: true, min: Math.fround(-1e30), max: Math.fround(1e30) }), {
      minLength: 8,
      maxLength: 8,
    });
    fc.assert(
      fc.property(numbers, numbers, (a, b) => {
        const given = [...a, ...b];
        for (const [i, x] of stored(given).entries())
          expect(Math.abs(x - given[i]!)).toBeLessThanOrEqual(Math.abs(given[i]!) / 256 + 1e-40);
      }),
    );
  });
});

describe('a cache in 16 bits', () => {
  const window = someWindow(LENGTH, 50);
  const cases: [string, Partial<EngineOptions>][] = [
    ['prefilled at once', {}],
    ['in chunks that read cached rows through the runtime', { prefillRows: 20 }],
  ];

  it.each(cases)('gives steps within their tolerance of a full encode in float32: %s', async (_, more) => {
    const deviation = new Deviation();
    const half = start({ kvBudgetBytes: 2 ** 20, kvPrecision: 'bfloat16', ...more });
    const full = start({ kvBudgetBytes: 0 });
    for (const n of [50, 51, 52, 60, 61, 100, LENGTH]) {
      const segment = segmentOf(prefix(window, n), { from: n - 2 });
      const [got] = await half.encode([{ userId: 'u', segments: [segment] }]);
      const [expected] = await full.encode([{ userId: 'u', segments: [segment] }]);
      deviation.check(got!.segments[0]!.rows, expected!.segments[0]!.rows, D, TOLERANCE, `${n} tokens`);
    }
    expect(half.stats.outcomes).toMatchObject({ cold: 1, hit: 6 });
    // It did round.
    expect(deviation.max).toBeGreaterThan(1e-5);
  });

  it('holds twice the users in as many bytes', async () => {
    const kvBudgetBytes = 8 * LENGTH * kvBytesPerRow(bundle.config);
    const held: number[] = [];
    for (const kvPrecision of ['float32', 'bfloat16'] as const) {
      const engine = start({ kvBudgetBytes, kvPrecision });
      for (let user = 0; user < 30; user++) await engine.encode([{ userId: `${user}`, segments: [segmentOf(window)] }]);
      held.push(engine.stats.users);
      expect(engine.stats.kvBytesUsed).toBeLessThanOrEqual(kvBudgetBytes);
    }
    expect(held).toEqual([8, 16]);
  });

  it('judges candidates within the tolerance', async () => {
    const of = RANKING['STU, both biases, layernorm output']!;
    const deviation = new Deviation();
    const half = start({ kvBudgetBytes: 2 ** 20, kvPrecision: 'bfloat16' }, of);
    const segment = segmentOf(someWindow(60, 50));
    const request = { userId: 'u', segment, candidates: Int32Array.of(3, 9, 27) };
    await half.scoreCandidates([request]);
    const [got] = await half.scoreCandidates([request]);
    const [expected] = await half.scoreCandidatesInFull([request]);
    expect(got).toMatchObject({ outcome: 'hit', rowsComputed: 1 });
    for (const [task, values] of Object.entries(expected!.tasks)) deviation.check(got!.tasks[task]!, values, 3, TOLERANCE, task);
    expect(deviation.max).toBeGreaterThan(0);
  });
});

describe('who is refused', () => {
  it('a provider that keeps K and V elsewhere, in the configuration and by the engine', () => {
    const encoder = { kvPrecision: 'bfloat16' };
    expect(() => parseConfig({ bundle: 'b', encoder: { ...encoder, provider: 'webgpu' } }, 'this test')).toThrow(
      /encoder\.kvPrecision.*cpu/s,
    );
    expect(() => parseConfig({ bundle: 'b', encoder }, 'this test')).toThrow(/encoder\.kvPrecision.*cpu/s);
    expect(parseConfig({ bundle: 'b', encoder: { ...encoder, provider: 'cpu' } }, 'this test').encoder.kvPrecision).toBe(
      'bfloat16',
    );
    expect(() => new EncoderEngine(bundle, { kvBudgetBytes: 0, kvPrecision: 'bfloat16', provider: 'cuda' })).toThrow(
      /not 'cuda'/,
    );
  });

  it('a model whose heads are no multiples of 8 wide', () => {
    const narrow = randomBundle({ dimension: 16, layers: 1, heads: 2, dqk: 12, dv: 8, maxSequenceLength: 20 });
    expect(() => new EncoderEngine(narrow, { kvBudgetBytes: 0, kvPrecision: 'bfloat16' })).toThrow(/multiples of 8.*12 and 8/);
  });
});
