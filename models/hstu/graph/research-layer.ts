/** One layer of HSTU research as ONNX nodes (arXiv 2402.17152, §3.2). */
import { EPSILON, type Layer, layerNorm, silu, splitUvqk } from './layer.ts';

export const researchLayer: Layer = {
  // h = LayerNorm(x);  [u|v|q|k] = silu(h @ W)
  project(g, config, weight, x) {
    const { dimension: D, heads: H, dqk, dv } = config;
    const uvqk = silu(g, g.op('MatMul', [layerNorm(g, x, D), weight('uvqk', [D, H * (2 * dv + 2 * dqk)])]));
    const [u, v, q, k] = splitUvqk(g, config, uvqk);
    return { u, v, q, k };
  },

  // o = Σ_j silu(q_i·k_j + bias) / N * v_j. The division is left to the norm that follows: LayerNorm(o/N, ε) = LayerNorm(o, ε N²).
  // x = (u * LayerNorm(o)) @ Wo + bo + x;  concat_ua: [u, LayerNorm(o), u * LayerNorm(o)] @ Wo
  leave(g, { dimension: D, heads: H, dv, paddedLength, concatUa }, weight, x, u, sum) {
    const a = layerNorm(g, sum, H * dv, EPSILON * paddedLength ** 2);
    const gated = g.op('Mul', [u, a]);
    const features = concatUa ? g.op('Concat', [u, a, gated], { axis: -1 }) : gated;
    const projected = g.op('MatMul', [features, weight('output_weight', [(concatUa ? 3 : 1) * H * dv, D])]);
    return g.op('Add', [g.op('Add', [projected, weight('output_bias', [D])]), x]);
  },
};
