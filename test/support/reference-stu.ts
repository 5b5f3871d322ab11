/**
 * The STU stack straight from its formulas (`modules/stu.py`, `ops/pytorch/pt_hstu_attention.py` of meta-recsys/
 * generative-recommenders), candidates and relative biases included: plain loops in float64, no ONNX, no cache, no batch.
 */
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { Window } from './encode-segments.ts';
import { bucket, l2Normalised, layerNorm, silu, times, type Vector } from './reference-parts.ts';

/** Output rows of the window's tokens and then of the candidates, asked about `queryTimeS`: `(n + b, D)` row-major. */
export function referenceStuRows(
  bundle: Bundle,
  { entities, timesS }: Window,
  queryTimeS: number,
  candidates: readonly number[] = [],
): Float64Array {
  const { config } = bundle;
  const { dimension: D, heads: H, dqk, dv, paddedLength: N, layers: L } = config;
  const { alpha, divisor, groupNorm, maxAttnLen, embeddingScale } = config.stu!;
  const tensor = (name: string) => bundle.tensors.get(name)!.data;
  const n = entities.length;
  const tokens = [...entities, ...candidates];
  const idOf = (i: number) => Math.min(i, n);
  /** Time of row i, and of the row after it. */
  const at = [...timesS, ...candidates.map(() => queryTimeS)];
  const next = (i: number) => (i + 1 < n ? timesS[i + 1]! : queryTimeS);
  const sees = (i: number, j: number) =>
    i === j || (idOf(i) > idOf(j) && (maxAttnLen === null || idOf(i) - idOf(j) <= maxAttnLen));

  let x: Vector[] = tokens.map((token, i) =>
    Float64Array.from({ length: D }, (_, d) => {
      const position = config.positions === 'none' ? 0 : tensor('position_embedding')[idOf(i) * D + d]!;
      return content(bundle, token, i >= n, d) * embeddingScale + position;
    }),
  );

  for (let l = 0; l < L; l++) {
    const part = (name: string) => tensor(`layers.${l}.${name}`);
    const uvqk = x.map((row) => {
      const h = affine(layerNorm(row), part('input_norm_weight'), part('input_norm_bias'));
      return times(h, part('uvqk'), H * (2 * dv + 2 * dqk)).map((value, c) => value + part('uvqk_bias')[c]!);
    });
    const u = uvqk.map((row) => row.subarray(0, H * dv).map(silu));
    const v = uvqk.map((row) => row.subarray(H * dv, 2 * H * dv));
    const q = uvqk.map((row) => row.subarray(2 * H * dv, 2 * H * dv + H * dqk));
    const k = uvqk.map((row) => row.subarray(2 * H * dv + H * dqk));
    x = x.map((residual, i) => {
      const o = new Float64Array(H * dv);
      for (let h = 0; h < H; h++) {
        for (let j = 0; j < tokens.length; j++) {
          if (!sees(i, j)) continue;
          let s = 0;
          for (let d = 0; d < dqk; d++) s += alpha * q[i]![h * dqk + d]! * k[j]![h * dqk + d]!;
          if (config.positionBias) s += part('position_bias')[N - 1 + idOf(j) - idOf(i)]!;
          if (config.timeBias) s += part('time_bias')[bucket(next(i) - at[j]!)]!;
          for (let d = 0; d < dv; d++) o[h * dv + d]! += (silu(s) / divisor) * v[j]![h * dv + d]!;
        }
      }
      const weight = part('output_norm_weight');
      const bias = part('output_norm_bias');
      const normed = groupNorm
        ? Float64Array.from({ length: H }).reduce<Vector>(
            (all, _, h) => {
              const head = layerNorm(o.subarray(h * dv, (h + 1) * dv));
              all.set(
                head.map((value) => value * weight[h]! + bias[h]!),
                h * dv,
              );
              return all;
            },
            new Float64Array(H * dv),
          )
        : affine(layerNorm(o), weight, bias);
      const y = normed.map((value, d) => value * u[i]![d]!);
      const projected = times(Float64Array.from([...u[i]!, ...o, ...y]), part('output_weight'), D);
      return residual.map((value, d) => value + projected[d]!);
    });
  }

  const finish = { none: (row: Vector) => row, l2: l2Normalised, layernorm: layerNorm }[config.outputNorm];
  const out = new Float64Array(tokens.length * D);
  for (const [i, row] of x.entries()) out.set(finish(row), i * D);
  return out;
}

/** `E[entity] + Σ A[action] + V[bucket]` at dimension `d`, from the digits of a token: entity, then value bucket, then action bits. */
function content({ config, tensors }: Bundle, token: number, isCandidate: boolean, d: number): number {
  const { dimension: D, vocabularySize, outOfVocabulary = 0, tokens } = config;
  const at = (name: string, row: number) => tensors.get(name)!.data[row * D + d]!;
  if (tokens === undefined) return at('entity_embedding', token);
  const additive = tokens.layout === 'additive';
  if (isCandidate) return at('entity_embedding', token) + (additive ? at('action_embedding', 0) : 0);
  const entities = 1 + vocabularySize + outOfVocabulary;
  const buckets = 1 + Object.values(tokens.values).reduce((sum, edges) => sum + edges.length + 1, 0);
  const entity = token % entities;
  const bucket = ((token - entity) / entities) % buckets;
  const actions = ((token - entity) / entities - bucket) / buckets;
  let sum = at('entity_embedding', entity) + (bucket > 0 ? at('value_embedding', bucket - 1) : 0);
  for (const [a, bit] of [...actions.toString(2)].reverse().entries())
    if (bit === '1') sum += at('action_embedding', a + (additive ? 1 : 0));
  return sum;
}

/** Probabilities `(b, K)` of output rows `(b, D)`. */
export function referenceTasks({ config, tensors }: Bundle, rows: Float64Array): Float64Array {
  const { dimension: D, ranking } = config;
  const K = ranking!.tasks.length;
  const map = (row: Vector, part: string, width: number) =>
    times(row, tensors.get(`ranking.${part}weight`)!.data, width).map(
      (value, c) => value + tensors.get(`ranking.${part}bias`)!.data[c]!,
    );
  const out = new Float64Array((rows.length / D) * K);
  for (let i = 0; i < rows.length / D; i++) {
    const row = rows.subarray(i * D, (i + 1) * D);
    const features = ranking!.hidden > 0 ? map(row, 'hidden_', ranking!.hidden).map(silu) : row;
    out.set(
      map(features, '', K).map((logit) => 1 / (1 + Math.exp(-logit))),
      i * K,
    );
  }
  return out;
}

const affine = (row: Vector, weight: Float32Array, bias: Float32Array): Vector =>
  row.map((value, d) => value * weight[d]! + bias[d]!);
