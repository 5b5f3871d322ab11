/** One layer of HSTU research as ONNX nodes (arXiv 2402.17152, §3.2). */
import { EPSILON, type Layer, layerNorm, mergeHeads, silu, splitHeads, splitUvqk, weightsOf } from './layer.ts';

export const researchLayer: Layer = (g, config, tensors, l, x, attention) => {
  const { dimension: D, heads: H, dqk, dv } = config;
  const weight = weightsOf(g, tensors, l);

  // h = LayerNorm(x);  [u|v|q|k] = silu(h @ W)
  const uvqk = silu(g, g.op('MatMul', [layerNorm(g, x, D), weight('uvqk', [D, H * (2 * dv + 2 * dqk)])]));
  const [u, v, q, k] = splitUvqk(g, config, uvqk);

  // o = Σ_j silu(q_i·k_j + bias) / N * v_j. The division is left to the norm that follows: LayerNorm(o/N, ε) = LayerNorm(o, ε N²).
  const merged = mergeHeads(g, config, attention(splitHeads(g, config, q, k, v), l));

  // x = (u * LayerNorm(o)) @ Wo + bo + x;  concat_ua: [u, LayerNorm(o), u * LayerNorm(o)] @ Wo
  const a = layerNorm(g, merged, H * dv, EPSILON * config.paddedLength ** 2);
  const gated = g.op('Mul', [u, a]);
  const features = config.concatUa ? g.op('Concat', [u, a, gated], { axis: -1 }) : gated;
  const projected = g.op('MatMul', [features, weight('output_weight', [(config.concatUa ? 3 : 1) * H * dv, D])]);
  return { x: g.op('Add', [g.op('Add', [projected, weight('output_bias', [D])]), x]), k, v };
};
