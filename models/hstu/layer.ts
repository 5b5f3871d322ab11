/**
 * One HSTU layer of the research variant as ONNX nodes (arXiv 2402.17152, §3.2), shared by the prefill and the step graph,
 * which differ only in what the new rows attend to besides themselves.
 *
 * Legend: `B` users · `T` new rows a user · `D` width · `H` heads · `dqk`, `dv` widths per head · `N` padded length.
 */
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { type GraphBuilder, MICROSOFT, type Value } from '../onnx/graph-builder.ts';
import type { TensorMap } from './safetensors.ts';

const EPSILON = 1e-6;

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

export interface LayerResult {
  /** `(B, T, D)` */
  readonly x: Value;
  /** Keys of the new rows as they are cached: `(B, T, H*dqk)`. */
  readonly k: Value;
  /** Values of the new rows as they are cached: `(B, T, H*dv)`. */
  readonly v: Value;
}

/** `silu(x) = x * sigmoid(x)`: the runtime's fused operator with alpha 1. */
export const silu = (g: GraphBuilder, x: Value): Value => g.op('QuickGelu', [x], { alpha: { float: 1 } }, MICROSOFT);

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

export function hstuLayer(
  g: GraphBuilder,
  config: BundleConfig,
  tensors: TensorMap,
  l: number,
  x: Value,
  attention: Attention,
): LayerResult {
  const { dimension: D, heads: H, dqk, dv } = config;
  const weight = (part: string, shape: readonly number[]) =>
    g.float(tensors.get(`layers.${l}.${part}`)!.data, shape, `${part}.${l}`);

  // h = LayerNorm(x);  [u|v|q|k] = silu(h @ W)
  const uvqk = silu(g, g.op('MatMul', [layerNorm(g, x, D), weight('uvqk', [D, H * (2 * dv + 2 * dqk)])]));
  const [u, v, q, k] = g.ops('Split', [uvqk, g.ints([H * dv, H * dv, H * dqk, H * dqk])], 4, { axis: -1 }) as [
    Value,
    Value,
    Value,
    Value,
  ];
  const byHead = (value: Value, width: number, perm: readonly number[]) =>
    g.op('Transpose', [g.op('Reshape', [value, g.ints([0, 0, H, width])])], { perm });

  // o = Σ_j silu(q_i·k_j + bias) / N * v_j. The division is left to the norm that follows: LayerNorm(o/N, ε) = LayerNorm(o, ε N²).
  const heads = { q: byHead(q, dqk, [0, 2, 1, 3]), kTransposed: byHead(k, dqk, [0, 2, 3, 1]), v: byHead(v, dv, [0, 2, 1, 3]) };
  const sum = attention(heads, l);
  const merged = g.op('Reshape', [g.op('Transpose', [sum], { perm: [0, 2, 1, 3] }), g.ints([0, 0, H * dv])]);

  // x = (u * LayerNorm(o)) @ Wo + bo + x;  concat_ua: [u, LayerNorm(o), u * LayerNorm(o)] @ Wo
  const a = layerNorm(g, merged, H * dv, EPSILON * config.paddedLength ** 2);
  const gated = g.op('Mul', [u, a]);
  const features = config.concatUa ? g.op('Concat', [u, a, gated], { axis: -1 }) : gated;
  const projected = g.op('MatMul', [features, weight('output_weight', [(config.concatUa ? 3 : 1) * H * dv, D])]);
  return { x: g.op('Add', [g.op('Add', [projected, weight('output_bias', [D])]), x]), k, v };
}

/** New rows among themselves: `silu(q·kᵀ + bias) * mask @ v`. */
export function attendToNewRows(g: GraphBuilder, { q, kTransposed, v }: Heads, bias: Value, mask: Value): Value {
  const scores = g.op('Add', [g.op('MatMul', [q, kTransposed]), bias]); // (B, H, T, T)
  return g.op('MatMul', [g.op('Mul', [silu(g, scores), mask]), v]);
}

/** The published row: L2-normalised, or LayerNorm without affine. `(B, T, D)` */
export function outputNorm(g: GraphBuilder, config: BundleConfig, x: Value): Value {
  if (config.outputNorm === 'layernorm') return layerNorm(g, x, config.dimension);
  const length = g.op('ReduceL2', [x, g.ints([-1])], { keepdims: 1 });
  return g.op('Div', [x, g.op('Max', [length, g.scalar(EPSILON)])]);
}
