/**
 * The step's attention as WebAssembly: `out_i += Σ_j silu(q_i·k_j + bias_ij) v_j` of one head, over rows that lie anywhere in the
 * kernel's memory. Keys go by blocks whose scores never leave the first-level cache, and two query rows share each key, so K
 * and V are read from memory once and in order.
 *
 * Addresses and strides are in bytes. Loads may reach three rows behind the last key; what is read there is not used.
 */

import type { BundleConfig } from '../../schemas/bundle-config.ts';
import type { KvPrecision } from '../kv-cache/extent.ts';
import { type BiasExports, fillBias } from './bias-kernel.ts';
import {
  type Expression,
  type FunctionBuilder,
  f32x4,
  i32,
  i32x4,
  type Local,
  ModuleBuilder,
  repeatWhile,
  type Statement,
  when,
} from './module-builder.ts';

/** Numbers a vector. */
const LANES = 4;
/** Keys of a block. */
const BLOCK = 32;
/** Keys that are read side by side: with four, wide rows lie too far apart for the processor to fetch them ahead. */
const SIDE_BY_SIDE = 2;
/** The kernel keeps the weights of a block, of two query rows, at the memory's start. */
export const KERNEL_BYTES = 2 * BLOCK * 4;

type Attend = (
  rows: number,
  q: number,
  qStride: number,
  k: number,
  kStride: number,
  v: number,
  vStride: number,
  keys: number,
  bias: number,
  biasStride: number,
  out: number,
  outStride: number,
) => void;

/** What the module exports. */
export interface AttentionExports extends BiasExports {
  /** K and V are float32. */
  readonly attend: Attend;
  /** K and V are bfloat16 (`packRow`); only of a module made for it. */
  readonly attendHalves?: Attend;
}

type MultiplyAdd = (a: Expression, b: Expression, c: Expression) => Expression;

/**
 * @param dqk, dv widths of a head, multiples of 4
 * @param fused whether to multiply and add in one instruction, which not every engine has
 * @param precision what cached rows are held in; widths are multiples of 8 for `bfloat16`
 */
export function attentionKernel(
  { dqk, dv }: Pick<BundleConfig, 'dqk' | 'dv'>,
  fused: boolean,
  precision: KvPrecision = 'float32',
): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder();
  const multiplyAdd: MultiplyAdd = fused ? f32x4.relaxedMultiplyAdd : (a, b, c) => f32x4.add(f32x4.mul(a, b), c);
  attend({ m, dqk, dv, multiplyAdd, load: loadFloats }, 'attend');
  if (precision === 'bfloat16') attend({ m, dqk, dv, multiplyAdd, load: loadHalves }, 'attendHalves');
  fillBias(m);
  return m.build();
}

function attend(kernel: Kernel, name: string): void {
  const one = attendBlock(kernel, name, 1);
  const two = attendBlock(kernel, name, 2);
  kernel.m.func(name, 12, (f, rows, q, qStride, k, kStride, v, vStride, keys, bias, biasStride, out, outStride) => {
    const [row, count] = f.locals('i32', 2);
    const at = (base: Local, stride: Local) => (r: number) =>
      i32.add(base.get, i32.mul(stride.get, i32.add(row.get, i32.const(r))));
    const perRow = [at(q, qStride), at(bias, biasStride), at(out, outStride)];
    const block = (n: number) => [
      ...[k, kStride, v, vStride, count].map((parameter) => parameter.get),
      ...Array.from({ length: n }, (_, r) => perRow.map((address) => address(r))).flat(),
    ];
    return [
      repeatWhile(
        keys.get,
        count.set(i32.select(keys.get, i32.const(BLOCK), i32.lessThan(keys.get, i32.const(BLOCK)))),
        row.set(i32.const(0)),
        repeatWhile(i32.lessThan(i32.add(row.get, i32.const(1)), rows.get), two(...block(2)), row.increase(i32.const(2))),
        when(i32.lessThan(row.get, rows.get), one(...block(1))),
        k.increase(i32.mul(count.get, kStride.get)),
        v.increase(i32.mul(count.get, vStride.get)),
        bias.increase(i32.mul(count.get, i32.const(4))),
        keys.set(i32.sub(keys.get, count.get)),
      ),
    ];
  });
}

interface Kernel {
  readonly m: ModuleBuilder;
  readonly dqk: number;
  readonly dv: number;
  readonly multiplyAdd: MultiplyAdd;
  readonly load: Load;
}

/** Sets `target` to the numbers `4c … 4c+3` of the row at an address, `c` in order; `pair` is the load's own. */
type Load = (target: Local, pair: Local, address: Expression, c: number) => Statement[];

const loadFloats: Load = (target, _pair, address, c) => [target.set(f32x4.load(address, 16 * c))];
/** One load for eight numbers. */
const loadHalves: Load = (target, pair, address, c) =>
  c % 2 === 0
    ? [pair.set(f32x4.load(address, 8 * c)), target.set(i32x4.shiftLeft(pair.get, 16))]
    : [target.set(i32x4.and(pair.get, i32x4.const(-65_536)))];

/** K, its stride, V, its stride, how many keys; and of each query row the query, its biases and its output. */
type AttendBlock = [Local, Local, Local, Local, Local, ...Local[]];

/** `rows` query rows against at most a block of keys. */
function attendBlock(kernel: Kernel, name: string, rows: number): (...args: Expression[]) => Statement {
  const body = (f: FunctionBuilder, ...[k, kStride, v, vStride, count, ...perRow]: AttendBlock) => {
    const part = (at: number) => Array.from({ length: rows }, (_, r) => perRow[3 * r + at]!);
    const end = f.local('i32');
    return [
      end.set(i32.mul(count.get, i32.const(4))),
      ...weights(kernel, f, { k, kStride, end, queries: part(0), biases: part(1) }),
      ...sums(kernel, f, { v, vStride, end, outs: part(2) }),
    ];
  };
  return kernel.m.func(`${name}${rows}`, 5, body, 3 * rows);
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

interface KeyRows {
  readonly k: Local;
  readonly kStride: Local;
  /** Bytes of one row of weights. */
  readonly end: Local;
  readonly queries: readonly Local[];
  readonly biases: readonly Local[];
}

/** Weights of four keys at a time. */
function weights(
  { dqk, multiplyAdd, load }: Kernel,
  f: FunctionBuilder,
  { k, kStride, end, queries, biases }: KeyRows,
): Statement[] {
  const at = f.local('i32');
  const keys = f.locals('i32', LANES);
  const key = f.local('v128');
  const pairs = f.locals('v128', LANES);
  const query = f.locals('v128', queries.length);
  const dots = queries.map(() => f.locals('v128', LANES));
  const chunk = (c: number, side: readonly number[]): Statement[] => [
    ...query.map((part, r) => part.set(f32x4.load(queries[r]!.get, 16 * c))),
    ...side.flatMap((j) => [
      ...load(key, pairs[j]!, keys[j]!.get, c),
      ...query.map((part, r) => {
        const dot = dots[r]![j]!;
        return dot.set(c === 0 ? f32x4.mul(part.get, key.get) : multiplyAdd(part.get, key.get, dot.get));
      }),
    ]),
  ];
  const sideBySide = range(LANES / SIDE_BY_SIDE).map((g) => range(SIDE_BY_SIDE).map((j) => g * SIDE_BY_SIDE + j));
  const activation = silu(f, multiplyAdd);
  return [
    keys[0]!.set(k.get),
    at.set(i32.const(0)),
    repeatWhile(
      i32.lessThan(at.get, end.get),
      ...keys.slice(1).map((next, i) => next.set(i32.add(keys[i]!.get, kStride.get))),
      ...sideBySide.flatMap((side) => range(dqk / LANES).flatMap((c) => chunk(c, side))),
      ...dots.map((dot, r) =>
        f32x4.store(at.get, activation(f32x4.add(sumsOfFour(dot), f32x4.load(i32.add(biases[r]!.get, at.get)))), 4 * BLOCK * r),
      ),
      keys[0]!.set(i32.add(keys[LANES - 1]!.get, kStride.get)),
      at.increase(i32.const(16)),
    ),
  ];
}

interface ValueRows {
  readonly v: Local;
  readonly vStride: Local;
  readonly end: Local;
  readonly outs: readonly Local[];
}

/** Adds the weighted values to the rows of the output. */
function sums({ dv, multiplyAdd, load }: Kernel, f: FunctionBuilder, { v, vStride, end, outs }: ValueRows): Statement[] {
  const at = f.local('i32');
  const values = f.locals('i32', SIDE_BY_SIDE);
  const weight = outs.map(() => f.locals('v128', SIDE_BY_SIDE));
  const value = f.local('v128');
  const pairs = f.locals('v128', SIDE_BY_SIDE);
  const sum = f.locals('v128', outs.length);
  const chunk = (c: number, side: readonly number[]): Statement[] => [
    ...sum.map((part, r) => part.set(f32x4.load(outs[r]!.get, 16 * c))),
    ...side.flatMap((j) => [
      ...load(value, pairs[j]!, values[j]!.get, c),
      ...sum.map((part, r) => part.set(multiplyAdd(weight[r]![j]!.get, value.get, part.get))),
    ]),
    ...sum.map((part, r) => f32x4.store(outs[r]!.get, part.get, 16 * c)),
  ];
  const group = (size: number): Statement[] => [
    ...range(size - 1).map((j) => values[j + 1]!.set(i32.add(values[j]!.get, vStride.get))),
    ...weight.flatMap((row, r) => range(size).map((j) => row[j]!.set(f32x4.loadSplat(at.get, 4 * (BLOCK * r + j))))),
    ...range(dv / LANES).flatMap((c) => chunk(c, range(size))),
    values[0]!.set(i32.add(values[size - 1]!.get, vStride.get)),
    at.increase(i32.const(4 * size)),
  ];
  return [
    values[0]!.set(v.get),
    at.set(i32.const(0)),
    repeatWhile(i32.lessThan(i32.add(at.get, i32.const(4 * (SIDE_BY_SIDE - 1))), end.get), ...group(SIDE_BY_SIDE)),
    repeatWhile(i32.lessThan(at.get, end.get), ...group(1)),
  ];
}

/** The sums over the lanes of four vectors, as the lanes of one. */
function sumsOfFour(vectors: readonly Local[]): Expression {
  const [a, b, c, d] = vectors.map(({ get }) => get) as [Expression, Expression, Expression, Expression];
  const halves = (x: Expression, y: Expression) =>
    f32x4.add(f32x4.shuffle(x, y, [0, 4, 1, 5]), f32x4.shuffle(x, y, [2, 6, 3, 7]));
  const [ab, cd] = [halves(a, b), halves(c, d)];
  return f32x4.add(f32x4.shuffle(ab, cd, [0, 1, 4, 5]), f32x4.shuffle(ab, cd, [2, 3, 6, 7]));
}

/** Of exp(r) on |r| ≤ ln(2)/2, highest power first: Cephes' `expf` (S. L. Moshier), error 2e-8. */
const EXP = [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, 1];
/** ln(2) in two parts, the first exact in few bits. */
const LN2 = [0.693359375, -2.1219444e-4] as const;
/** Added to a number of modest size and taken away again, this rounds it; between the two its last bits are the integer. */
const ROUNDING = 1.5 * 2 ** 23;

/** `x / (1 + exp(-x))`, each result good to a few units of its last place. */
function silu(f: FunctionBuilder, multiplyAdd: MultiplyAdd): (x: Expression) => Expression {
  const [value, n, r] = f.locals('v128', 3);
  const c = f32x4.const;
  const [first, ...rest] = EXP as [number, ...number[]];
  const whole = f32x4.sub(n.get, c(ROUNDING));
  const exp = rest.reduce((sum, coefficient) => multiplyAdd(sum, r.get, c(coefficient)), c(first));
  return (x) => [
    ...value.set(x),
    ...r.set(f32x4.lesser(f32x4.greater(f32x4.negate(value.get), c(-87)), c(88))),
    ...n.set(multiplyAdd(r.get, c(Math.LOG2E), c(ROUNDING))),
    ...r.set(multiplyAdd(whole, c(-LN2[1]), multiplyAdd(whole, c(-LN2[0]), r.get))),
    ...f32x4.div(value.get, f32x4.add(i32x4.add(exp, i32x4.shiftLeft(n.get, 23)), c(1))),
  ];
}
