/**
 * What every layer of the encoder shares: the pieces its formulas are written in. The prefill, step and candidate graphs differ
 * only in what the new rows attend to: an `Attention`.
 *
 * Legend: `B` users · `T` new rows a user · `D` width · `H` heads · `dqk`, `dv` widths per head · `N` padded length.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { type GraphBuilder, MICROSOFT, type Value } from '../../onnx/graph-builder.ts';
import type { TensorMap } from '../safetensors.ts';

export const EPSILON = 1e-6;

/** Queries, keys and values of the new rows, split by head. */
export interface Heads {
  /** `(B, H, T, dqk)` */
  readonly q: Value;
  /** `(B, H, dqk, T)` */
  readonly kTransposed: Value;
  /** `(B, H, T, dv)` */
  readonly v: Value;
}

/** What the new rows attend to. Returns the UNDIVIDED sum `Σ_j silu(s_ij) v_j`: `(B, H, T, dv)`. */
export type Attention = (heads: Heads, layer: number) => Value;

/** What a layer makes of its rows before they attend to anything. */
export interface Projected {
  /** Gate: `(B, T, H*dv)`. */
  readonly u: Value;
  /** Queries, as they meet the keys: `(B, T, H*dqk)`. */
  readonly q: Value;
  /** Keys of the new rows as they are cached: `(B, T, H*dqk)`. */
  readonly k: Value;
  /** Values of the new rows as they are cached: `(B, T, H*dv)`. */
  readonly v: Value;
}

/** One kind of layer, in two halves between which its rows attend. `part` gives a weight of the layer by name and shape. */
export interface Layer {
  readonly project: (g: GraphBuilder, config: BundleConfig, part: Weights, x: Value) => Projected;
  /** The rows that leave, `(B, T, D)`, of those that entered, of the gate and of the undivided sum `(B, T, H*dv)`. */
  readonly leave: (g: GraphBuilder, config: BundleConfig, part: Weights, x: Value, u: Value, sum: Value) => Value;
}

export type Weights = (part: string, shape: readonly number[]) => Value;

/** `silu(x) = x * sigmoid(x)`: the runtime's fused operator with alpha 1. */
export const silu = (g: GraphBuilder, x: Value): Value => g.op('QuickGelu', [x], { alpha: { float: 1 } }, MICROSOFT);

/**
 * The same to the last bit or two of any result: the fused operator takes the logistic as 0.5 + p/q, good to 6e-8 of ONE, so a
 * weight that is small by itself (silu(-6) = -0.015) keeps five digits. A row that sees little else, under a norm that enlarges
 * it, shows that (1e-5 to 3e-5). Three more passes over memory: for scores of rows among themselves, not for the long past.
 */
export const preciseSilu = (g: GraphBuilder, x: Value): Value =>
  g.op('Div', [x, g.op('Add', [g.op('Exp', [g.op('Neg', [x])]), g.scalar(1)])]);

/** LayerNorm over the last axis, no affine. */
export const layerNorm = (g: GraphBuilder, x: Value, width: number, epsilon = EPSILON): Value =>
  g.op('LayerNormalization', [x, ones(g, width)], { axis: -1, epsilon: { float: epsilon } });

const onesOf = new WeakMap<GraphBuilder, Map<number, Value>>();
function ones(g: GraphBuilder, width: number): Value {
  const known = onesOf.get(g) ?? new Map<number, Value>();
  onesOf.set(g, known);
  const value = known.get(width) ?? g.float(new Float32Array(width).fill(1), [width]);
  known.set(width, value);
  return value;
}

/** The weights of layer `l`. */
export const weightsOf =
  (g: GraphBuilder, tensors: TensorMap, l: number): Weights =>
  (part, shape) =>
    g.float(tensors.get(`layers.${l}.${part}`)!.data, shape, `${part}.${l}`);

/** Cuts `[u|v|q|k]` `(B, T, H*(2*dv + 2*dqk))` into its four parts. */
export const splitUvqk = (g: GraphBuilder, { heads: H, dqk, dv }: BundleConfig, uvqk: Value) =>
  g.ops('Split', [uvqk, g.ints([H * dv, H * dv, H * dqk, H * dqk])], 4, { axis: -1 }) as [Value, Value, Value, Value];

/** Queries, keys and values as attention takes them. */
export function splitHeads(g: GraphBuilder, { heads: H, dqk, dv }: BundleConfig, { q, k, v }: Projected): Heads {
  const byHead = (value: Value, width: number, perm: readonly number[]) =>
    g.op('Transpose', [g.op('Reshape', [value, g.ints([0, 0, H, width])])], { perm });
  return { q: byHead(q, dqk, [0, 2, 1, 3]), kTransposed: byHead(k, dqk, [0, 2, 3, 1]), v: byHead(v, dv, [0, 2, 1, 3]) };
}

/** `(B, H, T, dv)` back to `(B, T, H*dv)`. */
export const mergeHeads = (g: GraphBuilder, { heads: H, dv }: BundleConfig, sum: Value): Value =>
  g.op('Reshape', [g.op('Transpose', [sum], { perm: [0, 2, 1, 3] }), g.ints([0, 0, H * dv])]);

/** The published row: L2-normalised, LayerNorm without affine, or as it leaves the last layer. `(B, T, D)` */
export function outputNorm(g: GraphBuilder, config: BundleConfig, x: Value): Value {
  if (config.outputNorm === 'none') return x;
  if (config.outputNorm === 'layernorm') return layerNorm(g, x, config.dimension);
  const length = g.op('ReduceL2', [x, g.ints([-1])], { keepdims: 1 });
  return g.op('Div', [x, g.op('Max', [length, g.scalar(EPSILON)])]);
}
