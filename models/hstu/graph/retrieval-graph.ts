/** The graph that ranks the whole catalogue by dot product: retrieval. */
import { GraphBuilder, type Value } from '../../onnx/graph-builder.ts';
import type { Bundle } from '../bundle.ts';
import { rowNorm } from '../row-norm.ts';

/**
 * Ranks of targets and the best entities for `R` embeddings. Retired entities are not among the best; ranks are among all that the
 * model was trained with, so that they compare over time.
 *
 * in: `rows (R,D)`, `targets (R,1)` entity rows, `hidden (S,2)` pairs (row, entity) to leave out, `offered (1,V)` or `(1,1)` added
 * to the scores that are listed, `-∞` for what is retired, `best (1,)` how many ·
 * out: `above (R,1)` how many entities score higher than the target, `scores (R,best)`, `entities (R,best)`; entity row = index + 1
 */
export function scoreGraph(bundle: Bundle): Uint8Array {
  const { dimension: D, vocabularySize: V } = bundle.config;
  const g = new GraphBuilder('hstu-score');
  const rows = g.input('rows', 'float32', ['R', D]);
  const targets = g.input('targets', 'int64', ['R', 1]);
  const hidden = g.input('hidden', 'int64', ['S', 2]);
  const offered = g.input('offered', 'float32', [1, 'M']);
  const best = g.input('best', 'int64', [1]);
  const table = g.float(normalisedEntities(bundle), [D, V], 'entities_normalised');
  const all = g.op('MatMul', [rows, table]);
  const minusInfinity = g.op('Expand', [g.scalar(-Infinity), g.op('Slice', [g.op('Shape', [hidden]), g.ints([0]), g.ints([1])])]);
  const visible = g.op('ScatterND', [all, hidden, minusInfinity]);
  const higher = g.op('Greater', [visible, g.op('GatherElements', [all, targets], { axis: 1 })]);
  const above = g.op('ReduceSum', [g.op('Cast', [higher], { to: 6 }), g.ints([1])], { keepdims: 1 });
  const listed = g.op('Add', [visible, offered]);
  const [scores, entities] = g.ops('TopK', [listed, best], 2, { axis: -1, largest: 1, sorted: 1 }) as [Value, Value];
  g.output('above', above, 'int32', ['R', 1]);
  g.output('scores', scores, 'float32', ['R', 'best']);
  g.output('entities', entities, 'int64', ['R', 'best']);
  return g.build();
}

/** `E[c] / max(||E[c]||, 1e-6)` of rows 1 … V, transposed: `(D, V)`. */
function normalisedEntities({ config, tensors }: Bundle): Float32Array {
  const { dimension: D, vocabularySize: V } = config;
  const table = tensors.get('entity_embedding')!.data;
  const out = new Float32Array(D * V);
  for (let row = 1; row <= V; row++) {
    const scale = 1 / rowNorm(table, row * D, D);
    for (let d = 0; d < D; d++) out[d * V + row - 1] = table[row * D + d]! * scale;
  }
  return out;
}
