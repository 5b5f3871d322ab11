/** The model as a peer would export it: a whole window in, its newest row out. The formula is Meta's, time buckets included. */
import type { Bundle } from '../../models/hstu/bundle.ts';
import { encoderStack } from '../../models/hstu/graph/graphs.ts';
import type { Attention } from '../../models/hstu/graph/layer.ts';
import { outputNorm, silu } from '../../models/hstu/graph/layer.ts';
import { GraphBuilder, type Value } from '../../models/onnx/graph-builder.ts';

const INT64 = 7;
const FLOAT = 1;

/**
 * in: `ids (n,)` of entities, `times (n+1,)` whole seconds, the last one the query time · out: `y (D,)`
 *
 * Buckets are `trunc(ln(max(1, |d|)) / 0.301)` in float32, as in the published code of arXiv 2402.17152.
 */
export function fullEncodeGraph(bundle: Bundle): Uint8Array {
  const { config, tensors } = bundle;
  const { dimension: D, paddedLength: N } = config;
  const g = new GraphBuilder('hstu-full-encode');
  const ids = g.input('ids', 'int64', ['n']);
  const times = g.input('times', 'int64', ['m']);
  const table = (name: string) => {
    const { data, shape } = tensors.get(name)!;
    return g.float(data, shape, name);
  };
  const n = g.op('Shape', [ids]);
  const zero = g.ints([0]);

  const entities = g.op('Mul', [g.op('Gather', [table('entity_embedding'), ids]), g.scalar(Math.sqrt(D))]);
  const positions = g.op('Slice', [table('position_embedding'), zero, n]);
  const x = g.op('Unsqueeze', [g.op('Add', [entities, positions]), zero]);

  const column = (value: Value) => g.op('Unsqueeze', [value, g.ints([1])]);
  const next = column(g.op('Slice', [times, g.ints([1]), g.ints([Number.MAX_SAFE_INTEGER])]));
  const gaps = g.op('Cast', [g.op('Sub', [next, g.op('Slice', [times, zero, g.ints([-1])])])], { to: FLOAT }); // (n, n)
  const logarithms = g.op('Div', [g.op('Log', [g.op('Max', [g.op('Abs', [gaps]), g.scalar(1)])]), g.scalar(Math.fround(0.301))]);
  const buckets = g.op('Cast', [g.op('Min', [logarithms, g.scalar(128)])], { to: INT64 });
  const scalar = (value: Value) => g.op('Squeeze', [value]);
  const rows = g.op('Range', [scalar(zero), scalar(n), scalar(g.ints([1]))]);
  const distances = g.op('Add', [g.op('Sub', [rows, column(rows)]), g.ints([N - 1])]); // (n, n)
  const causal = g.op('Trilu', [g.op('Add', [g.op('Mul', [gaps, g.scalar(0)]), g.scalar(1)])], { upper: 0 });

  const attention: Attention = ({ q, kTransposed, v }, l) => {
    const bias = g.op('Add', [
      g.op('Gather', [table(`layers.${l}.time_bias`), buckets]),
      g.op('Gather', [table(`layers.${l}.position_bias`), distances]),
    ]);
    const weights = silu(g, g.op('Add', [g.op('MatMul', [q, kTransposed]), bias])); // (1, H, n, n)
    return g.op('MatMul', [g.op('Mul', [weights, causal]), v]);
  };
  const y = outputNorm(g, config, encoderStack(g, bundle, x, attention)); // (1, n, D)
  const newest = g.op('Slice', [y, g.ints([-1]), g.ints([Number.MAX_SAFE_INTEGER]), g.ints([1])]);
  g.output('y', g.op('Reshape', [newest, g.ints([D])]), 'float32', [D]);
  return g.build();
}
