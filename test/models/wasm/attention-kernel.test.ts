/** The attention kernel against the formula in float64, for every shape of call that a step makes. */

import { setFlagsFromString } from 'node:v8';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import { type AttentionExports, attentionKernel, KERNEL_BYTES } from '../../../models/wasm/attention-kernel.ts';
import { AttentionMemory } from '../../../models/wasm/attention-memory.ts';

declare const WebAssembly: {
  readonly Memory: new (pages: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown };
};

const BYTES = 4 * 65_536;

function kernelOf(dqk: number, dv: number, fused = false) {
  const memory = new WebAssembly.Memory({ initial: 4 });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(attentionKernel({ dqk, dv }, fused)), { env: { memory } });
  return { ...(exports as AttentionExports), floats: new Float32Array(memory.buffer) };
}

const silu = (x: number): number => x / (1 + Math.exp(-x));

/** Regions far enough apart for any of the calls below, in floats. */
const AT = { q: 1_000, k: 4_000, v: 24_000, bias: 44_000, out: 54_000 } as const;
const MAX_KEYS = 130;

interface Call {
  readonly dqk: number;
  readonly dv: number;
  readonly rows: number;
  readonly keys: number;
  /** Floats between rows beyond their width: other heads' numbers. */
  readonly gap: number;
  /** Needs an engine that has it. */
  readonly fused?: boolean;
}
const call: fc.Arbitrary<Call> = fc.record({
  dqk: fc.constantFrom(4, 8, 20, 64),
  dv: fc.constantFrom(4, 12, 64),
  rows: fc.integer({ min: 1, max: 8 }),
  keys: fc.integer({ min: 0, max: MAX_KEYS }),
  gap: fc.integer({ min: 0, max: 9 }),
  fused: fc.boolean(),
});

/** Runs one call over numbers of modest size, with NaN wherever it has no business to look. Returns what came and what should. */
function run({ dqk, dv, rows, keys, gap, fused = false }: Call, change: (floats: Float32Array) => void = () => undefined) {
  const { attend, floats } = kernelOf(dqk, dv, fused);
  // Scattered: of numbers that recur at a distance queries are like keys, and scores so large that float32 rounds away what is checked.
  const number = (i: number) => Math.imul(i ^ (i >>> 7), 0x9e3779b1) / 2 ** 31;
  for (let i = 0; i < floats.length; i++) floats[i] = number(i);
  const [qStride, vStride, biasStride] = [dqk + gap, dv + gap, MAX_KEYS + 8];
  // What lies behind the last value must not be weighed, not even with 0.
  floats.fill(Number.NaN, AT.v + keys * vStride, AT.v + (keys + 4) * vStride);
  const expected = Array.from({ length: rows }, (_, i) =>
    Array.from({ length: dv }, (_, d) => {
      let sum = floats[AT.out + i * vStride + d]!;
      for (let j = 0; j < keys; j++) {
        let score = floats[AT.bias + i * biasStride + j]!;
        for (let c = 0; c < dqk; c++) score += floats[AT.q + i * qStride + c]! * floats[AT.k + j * qStride + c]!;
        sum += silu(score) * floats[AT.v + j * vStride + d]!;
      }
      return sum;
    }),
  );
  const before = floats.slice();
  change(floats);
  attend(
    rows,
    4 * AT.q,
    4 * qStride,
    4 * AT.k,
    4 * qStride,
    4 * AT.v,
    4 * vStride,
    keys,
    4 * AT.bias,
    4 * biasStride,
    4 * AT.out,
    4 * vStride,
  );
  const got = expected.map((_, i) => [...floats.subarray(AT.out + i * vStride, AT.out + i * vStride + dv)]);
  for (const [i] of expected.entries()) before.set(got[i]!, AT.out + i * vStride);
  return {
    got,
    expected,
    touchedElsewhere: floats.findIndex((x, i) => i >= KERNEL_BYTES / 4 && !Object.is(x, before[i]) && x !== before[i]),
  };
}

const worst = (a: readonly number[][], b: readonly number[][]): number =>
  Math.max(0, ...a.flatMap((row, i) => row.map((x, d) => Math.abs(x - b[i]![d]!))));

// V8 11 has the fused instructions behind this flag.
beforeAll(() => setFlagsFromString('--experimental-wasm-relaxed-simd'));
afterAll(() => setFlagsFromString('--no-experimental-wasm-relaxed-simd'));

describe('attend', () => {
  it('is the formula, for any widths, strides, rows and keys, and writes nothing else', () => {
    fc.assert(
      fc.property(call, (asked) => {
        const { got, expected, touchedElsewhere } = run(asked);
        expect(worst(got, expected)).toBeLessThan(1e-4);
        expect(touchedElsewhere).toBe(-1);
      }),
      { numRuns: 40 },
    );
  });

  it('is not the formula where one bias or one value is another (what the law above would notice)', () => {
    const asked = { dqk: 8, dv: 12, rows: 3, keys: 67, gap: 5 };
    for (const at of [AT.bias + 66, AT.v + 66 * 17 + 11, AT.k + 66 * 13 + 7]) {
      const { got, expected } = run(asked, (floats) => {
        floats[at]! += 1;
      });
      expect(worst(got, expected)).toBeGreaterThan(1e-2);
    }
  });

  it.for([false, true])('weighs scores of any size as silu does, fused: %s', (fused) => {
    const scores = [-1e4, -200, -88.5, -87, -50, -20, -6, -1.278, -1, -1e-3, -1e-20, 0, 1e-20, 0.3, 2, 15, 60, 87, 300, 1e4];
    const { attend, floats } = kernelOf(4, 4, fused);
    for (const [j, score] of scores.entries()) {
      floats.fill(0);
      floats[AT.v] = 1;
      floats[AT.bias] = score;
      attend(1, 4 * AT.q, 16, 4 * AT.k, 16, 4 * AT.v, 16, 1, 4 * AT.bias, 16, 4 * AT.out, 16);
      const exact = silu(score);
      expect(Math.abs(floats[AT.out]! - exact), `silu(${scores[j]})`).toBeLessThanOrEqual(4e-7 * Math.abs(exact) + 1e-33);
    }
  });
});

describe('fillBias', () => {
  it('adds each run its bucket, whatever the runs are', () => {
    const { fillBias, floats } = kernelOf(4, 4);
    fc.assert(
      fc.property(
        fc.array(fc.record({ length: fc.integer({ min: 1, max: 11 }), bucket: fc.nat(9) }), { maxLength: 12 }),
        (runs) => {
          const ints = new Int32Array(floats.buffer);
          for (let i = 0; i < 200; i++) floats[AT.q + i] = i;
          for (let i = 0; i < 10; i++) floats[AT.k + i] = i / 16;
          let end = 0;
          const expected: number[] = [];
          for (const [i, { length, bucket }] of runs.entries()) {
            for (let j = 0; j < length; j++) expected.push(end + j + bucket / 16);
            end += length;
            ints.set([end, 4 * bucket], AT.v + 2 * i);
          }
          fillBias(4 * AT.out, 4 * AT.v, 4 * (AT.v + 2 * runs.length), 4 * AT.q, 4 * AT.k);
          expect([...floats.subarray(AT.out, AT.out + end)]).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('AttentionMemory', () => {
  it('gives arrays that a kernel of their own reaches, zero, and as many as are asked for', () => {
    const bundle = randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 20 });
    const memory = new AttentionMemory(bundle);
    const [a, b] = [memory.allocate(1_000), memory.allocate(BYTES)];
    expect([a.length, b.length, a.every((x) => x === 0)]).toEqual([1_000, BYTES, true]);
    expect(memory.reaching(a)).toBeDefined();
    expect(memory.reaching(a)).not.toBe(memory.reaching(b));
    expect(memory.reaching(new Float32Array(4))).toBeUndefined();
  });

  it('serves only widths of whole vectors', () => {
    const widths = [
      [8, 8],
      [8, 6],
      [3, 8],
    ].map(([dqk, dv]) =>
      AttentionMemory.serves(randomBundle({ dimension: 16, layers: 1, heads: 2, maxSequenceLength: 8, dqk: dqk!, dv: dv! })),
    );
    expect(widths).toEqual([true, false, false]);
  });
});
