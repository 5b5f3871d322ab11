/**
 * One STU layer as ONNX nodes: the ranking layer of the generative recommender (`modules/stu.py` and `ops/pytorch/pt_hstu_*.py`
 * in meta-recsys/generative-recommenders).
 *
 * It differs from the research layer in affine norms, an offset in the first projection, silu on `u` alone, a factor `alpha` on
 * `q·k`, a divisor of its own, and `[u | o | u * norm(o)]`, `o` as it is, into the last projection, which has no offset.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import type { GraphBuilder, Value } from '../../onnx/graph-builder.ts';
import { EPSILON, type Layer, layerNorm, silu, splitUvqk, type Weights } from './layer.ts';

export const stuLayer: Layer = {
  // h = LayerNorm(x) with affine;  [u|v|q|k] = h @ W + beta;  u = silu(u);  q meets the keys as alpha q
  project(g, config, weight, x) {
    const { dimension: D, heads: H, dqk, dv, stu } = config;
    const columns = H * (2 * dv + 2 * dqk);
    const h = g.op('LayerNormalization', [x, weight('input_norm_weight', [D]), weight('input_norm_bias', [D])], {
      axis: -1,
      epsilon: { float: EPSILON },
    });
    const uvqk = g.op('Add', [g.op('MatMul', [h, weight('uvqk', [D, columns])]), weight('uvqk_bias', [columns])]);
    const [gate, v, q, k] = splitUvqk(g, config, uvqk);
    return { u: silu(g, gate), v, q: g.op('Mul', [q, g.scalar(stu!.alpha)]), k };
  },

  // o = Σ_j silu(alpha q_i·k_j + bias) / divisor * v_j;  x = x + [u | o | u * norm(o)] @ Wo
  leave(g, config, weight, x, u, sum) {
    const { dimension: D, heads: H, dv, stu } = config;
    const o = g.op('Mul', [sum, g.scalar(1 / stu!.divisor)]);
    const features = g.op('Concat', [u, o, g.op('Mul', [u, attentionNorm(g, config, weight, o)])], { axis: -1 });
    return g.op('Add', [g.op('MatMul', [features, weight('output_weight', [3 * H * dv, D])]), x]);
  },
};

/** LayerNorm with affine over all heads, or over each head with one weight and one offset a head. `(B, T, H*dv)` */
function attentionNorm(g: GraphBuilder, { heads: H, dv, stu }: BundleConfig, weight: Weights, o: Value): Value {
  if (!stu!.groupNorm)
    return g.op('LayerNormalization', [o, weight('output_norm_weight', [H * dv]), weight('output_norm_bias', [H * dv])], {
      axis: -1,
      epsilon: { float: EPSILON },
    });
  const heads = layerNorm(g, g.op('Reshape', [o, g.ints([0, 0, H, dv])]), dv);
  const scaled = g.op('Mul', [heads, weight('output_norm_weight', [H, 1])]);
  return g.op('Reshape', [g.op('Add', [scaled, weight('output_norm_bias', [H, 1])]), g.ints([0, 0, H * dv])]);
}
