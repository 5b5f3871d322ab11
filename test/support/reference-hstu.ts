/**
 * HSTU research straight from its formulas (docs of the architecture, arXiv 2402.17152 §3.2): plain loops in float64, no ONNX,
 * no cache, no batch, no threshold table. Slow, short enough to be believed, and what the encoder is compared with.
 */
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { Window } from './encode-segments.ts';
import { bucket, l2Normalised, layerNorm, silu, times, type Vector } from './reference-parts.ts';

/** Every row's output for a window whose newest row is asked about `queryTimeS`: `(n, D)` row-major. */
export function referenceRows(bundle: Bundle, { entities, timesS }: Window, queryTimeS: number): Float64Array {
  const { config } = bundle;
  const { dimension: D, heads: H, dqk, dv, paddedLength: N, layers: L } = config;
  const n = entities.length;
  const tensor = (name: string) => bundle.tensors.get(name)?.data;
  const table = tensor('entity_embedding')!;
  const positions = tensor('position_embedding');

  // x_i = E[id_i] * sqrt(D) + P[position of i]
  let x: Vector[] = Array.from({ length: n }, (_, i) => {
    const position = config.positions === 'from-end' ? n - 1 - i : i;
    return Float64Array.from(
      { length: D },
      (_, d) => table[entities[i]! * D + d]! * Math.sqrt(D) + (config.positions === 'none' ? 0 : positions![position * D + d]!),
    );
  });

  for (let l = 0; l < L; l++) {
    const W = tensor(`layers.${l}.uvqk`)!;
    const timeBias = tensor(`layers.${l}.time_bias`);
    const positionBias = tensor(`layers.${l}.position_bias`);
    // [u|v|q|k] = silu(LayerNorm(x) @ W)
    const uvqk = x.map((row) => times(layerNorm(row), W, H * (2 * dv + 2 * dqk)).map(silu));
    const u = uvqk.map((row) => row.subarray(0, H * dv));
    const v = uvqk.map((row) => row.subarray(H * dv, 2 * H * dv));
    const q = uvqk.map((row) => row.subarray(2 * H * dv, 2 * H * dv + H * dqk));
    const k = uvqk.map((row) => row.subarray(2 * H * dv + H * dqk));

    x = x.map((residual, i) => {
      const o = new Float64Array(H * dv);
      const last = config.attention === 'causal' ? i : n - 1;
      const nextTimeS = i + 1 < n ? timesS[i + 1]! : queryTimeS;
      for (let h = 0; h < H; h++) {
        for (let j = 0; j <= last; j++) {
          let s = 0;
          for (let d = 0; d < dqk; d++) s += q[i]![h * dqk + d]! * k[j]![h * dqk + d]!;
          if (config.positionBias) s += positionBias![N - 1 + j - i]!;
          if (config.timeBias) s += timeBias![bucket(nextTimeS - timesS[j]!)]!;
          const a = silu(s) / N;
          for (let d = 0; d < dv; d++) o[h * dv + d]! += a * v[j]![h * dv + d]!;
        }
      }
      const g = layerNorm(o);
      const gated = g.map((value, d) => value * u[i]![d]!);
      const features = config.concatUa ? Float64Array.from([...u[i]!, ...g, ...gated]) : gated;
      const projected = times(features, tensor(`layers.${l}.output_weight`)!, D);
      return residual.map((value, d) => value + projected[d]! + tensor(`layers.${l}.output_bias`)![d]!);
    });
  }

  const out = new Float64Array(n * D);
  for (const [i, row] of x.entries()) out.set(config.outputNorm === 'l2' ? l2Normalised(row) : layerNorm(row), i * D);
  return out;
}

/** `score(c) = user · E[c] / max(||E[c]||, 1e-6)` of every entity; entry `c - 1` is entity row `c`. */
export function referenceScores(bundle: Bundle, user: ArrayLike<number>): Float64Array {
  const { dimension: D, vocabularySize } = bundle.config;
  const table = bundle.tensors.get('entity_embedding')!.data;
  return Float64Array.from({ length: vocabularySize }, (_, c) => {
    const entity = Float64Array.from(table.subarray((c + 1) * D, (c + 2) * D));
    const direction = l2Normalised(entity);
    let sum = 0;
    for (let d = 0; d < D; d++) sum += direction[d]! * user[d]!;
    return sum;
  });
}
