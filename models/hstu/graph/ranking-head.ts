/** The task heads of a ranking bundle: from a candidate's output row to one probability a task and the combined score. */
import type { GraphBuilder, Value } from '../../onnx/graph-builder.ts';
import type { Bundle } from '../bundle.ts';
import { silu } from './layer.ts';

/**
 * `p = sigmoid(f(y) @ W + b)` with `f` the identity or `silu(y @ Wh + bh)`; `combined = Σ_k weight_k p_k`.
 *
 * The tasks are independent (multi-label): several may be likely at once, as in the reference's multi-task module.
 *
 * @param y output rows `(B, T, D)`
 * @returns `probabilities (B, T, K)`, `combined (B, T, 1)`
 */
export function taskHeads(g: GraphBuilder, { config, tensors }: Bundle, y: Value): { probabilities: Value; combined: Value } {
  const { hidden, tasks } = config.ranking!;
  const affine = (value: Value, part: string) => {
    const weight = tensors.get(`ranking.${part}weight`)!;
    const bias = tensors.get(`ranking.${part}bias`)!;
    return g.op('Add', [g.op('MatMul', [value, g.float(weight.data, weight.shape)]), g.float(bias.data, bias.shape)]);
  };
  const features = hidden > 0 ? silu(g, affine(y, 'hidden_')) : y;
  const probabilities = g.op('Sigmoid', [affine(features, '')]);
  const weights = Float32Array.from(tasks, (task) => task.weight);
  return { probabilities, combined: g.op('MatMul', [probabilities, g.float(weights, [tasks.length, 1])]) };
}
