/**
 * The graphs of a bundle. `prefill` encodes rows that have nothing before them; `step` encodes `T` new rows against cached
 * rows; `score` ranks entities against embeddings.
 *
 * Cached rows enter as they lie in the pool, one zero-copy tensor per user, layer and kind: `(H, 1, C, d)` with `C` rows of
 * capacity. Rows beyond the user's length hold V = 0 and so add nothing: pointwise attention needs no mask over the past.
 */
import { GraphBuilder, MICROSOFT, type Value } from '../onnx/graph-builder.ts';
import type { Bundle } from './bundle.ts';
import { type Attention, attendToNewRows, type Heads, hstuLayer, outputNorm, silu } from './layer.ts';

/** Up to how many new rows a user the step multiplies row by row (matrix-vector); beyond, one matrix product per user. */
export const MAX_ROWWISE = 4;

/**
 * All rows of `B` users, nothing cached.
 *
 * in: `x (B,T,D)` token embeddings, `bias.l (B,1,T,T)`, `mask (B,1,T,T)` 1 where row i may see row j ·
 * out: `y (B,T,D)`, `k.l (B,T,H*dqk)`, `v.l (B,T,H*dv)`
 */
export function prefillGraph(bundle: Bundle): Uint8Array {
  const g = new GraphBuilder('hstu-prefill');
  const { mask, bias } = newRowInputs(g, bundle);
  return encoderGraph(g, bundle, 'B', (heads, l) => attendToNewRows(g, heads, bias(l), mask));
}

/**
 * `T` new rows of each of `users` users against their cached rows, all of the same capacity `C`.
 *
 * in: those of prefill with `B = users`, and per layer `past.l (B,1,T,C,1)` the bias of the cached keys, and per user `b`
 * `pk.l.b (H,1,C,dqk)`, `pv.l.b (H,1,C,dv)` · out: those of prefill
 */
export function stepGraph(bundle: Bundle, users: number, rowwise: boolean): Uint8Array {
  const g = new GraphBuilder(`hstu-step-${users}`);
  const { mask, bias } = newRowInputs(g, bundle);
  const past = rowwise ? attendToPastRowwise : attendToPast;
  return encoderGraph(g, bundle, users, (heads, l) =>
    g.op('Add', [attendToNewRows(g, heads, bias(l), mask), past(g, bundle, users, heads, l)]),
  );
}

/**
 * Ranks of targets and the best entities for `R` embeddings.
 *
 * in: `rows (R,D)`, `targets (R,1)` entity rows, `hidden (S,2)` pairs (row, entity) to leave out, `best (1,)` how many ·
 * out: `above (R,1)` how many entities score higher than the target, `scores (R,best)`, `entities (R,best)`; entity row = index + 1
 */
export function scoreGraph(bundle: Bundle): Uint8Array {
  const { dimension: D, vocabularySize: V } = bundle.config;
  const g = new GraphBuilder('hstu-score');
  const rows = g.input('rows', 'float32', ['R', D]);
  const targets = g.input('targets', 'int64', ['R', 1]);
  const hidden = g.input('hidden', 'int64', ['S', 2]);
  const best = g.input('best', 'int64', [1]);
  const table = g.float(normalisedEntities(bundle), [D, V], 'entities_normalised');
  const all = g.op('MatMul', [rows, table]);
  const minusInfinity = g.op('Expand', [g.scalar(-Infinity), g.op('Slice', [g.op('Shape', [hidden]), g.ints([0]), g.ints([1])])]);
  const visible = g.op('ScatterND', [all, hidden, minusInfinity]);
  const higher = g.op('Greater', [visible, g.op('GatherElements', [all, targets], { axis: 1 })]);
  const above = g.op('ReduceSum', [g.op('Cast', [higher], { to: 6 }), g.ints([1])], { keepdims: 1 });
  const [scores, entities] = g.ops('TopK', [visible, best], 2, { axis: -1, largest: 1, sorted: 1 }) as [Value, Value];
  g.output('above', above, 'int32', ['R', 1]);
  g.output('scores', scores, 'float32', ['R', 'best']);
  g.output('entities', entities, 'int64', ['R', 'best']);
  return g.build();
}

function encoderGraph(g: GraphBuilder, { config, tensors }: Bundle, B: number | string, attention: Attention): Uint8Array {
  const { dimension: D, heads: H, dqk, dv, layers: L } = config;
  let x = g.input('x', 'float32', [B, 'T', D]);
  for (let l = 0; l < L; l++) {
    const layer = hstuLayer(g, config, tensors, l, x, attention);
    x = layer.x;
    g.output(`k.${l}`, layer.k, 'float32', [B, 'T', H * dqk]);
    g.output(`v.${l}`, layer.v, 'float32', [B, 'T', H * dv]);
  }
  g.output('y', outputNorm(g, config, x), 'float32', [B, 'T', D]);
  return g.build();
}

function newRowInputs(g: GraphBuilder, { config }: Bundle): { mask: Value; bias: (l: number) => Value } {
  const mask = g.input('mask', 'float32', ['B', 1, 'T', 'T']);
  const biases = Array.from({ length: config.layers }, (_, l) => g.input(`bias.${l}`, 'float32', ['B', 1, 'T', 'T']));
  return { mask, bias: (l) => biases[l]! };
}

/**
 * `Σ_j silu(q·k_j + bias_j) v_j` over the cached rows, each new row alone: keys times one query vector streams K from memory
 * once without repacking it, and the second row finds it in the processor's cache.
 */
function attendToPastRowwise(g: GraphBuilder, { config }: Bundle, users: number, { q }: Heads, l: number): Value {
  const { heads: H, dqk, dv } = config;
  const queries = split(g, g.op('Unsqueeze', [q, g.ints([4])]), users); // each (1, H, T, dqk, 1)
  const scores = queries.map((query, b) => g.op('MatMul', [g.input(`pk.${l}.${b}`, 'float32', [H, 1, 'C', dqk]), query]));
  const bias = g.input(`past.${l}`, 'float32', [users, 1, 'T', 'C', 1]);
  const weights = silu(g, g.op('Add', [concat(g, scores), bias])); // (B, H, T, C, 1)
  const rows = split(g, g.op('Reshape', [weights, g.ints([0, 0, 0, 1, -1])]), users); // each (1, H, T, 1, C)
  const sums = rows.map((row, b) => g.op('MatMul', [row, g.input(`pv.${l}.${b}`, 'float32', [H, 1, 'C', dv])]));
  return g.op('Squeeze', [concat(g, sums), g.ints([3])]); // (B, H, T, dv)
}

/** The same with one matrix product per user and head: for many new rows at once. */
function attendToPast(g: GraphBuilder, { config }: Bundle, users: number, { q }: Heads, l: number): Value {
  const { heads: H, dqk, dv } = config;
  const flat = (name: string, width: number) => g.op('Squeeze', [g.input(name, 'float32', [H, 1, 'C', width]), g.ints([1])]);
  const queries = split(g, q, users); // each (1, H, T, dqk)
  const scores = queries.map((query, b) => g.op('FusedMatMul', [query, flat(`pk.${l}.${b}`, dqk)], { transB: 1 }, MICROSOFT));
  const bias = g.op('Squeeze', [g.input(`past.${l}`, 'float32', [users, 1, 'T', 'C', 1]), g.ints([4])]);
  const weights = split(g, silu(g, g.op('Add', [concat(g, scores), bias])), users); // each (1, H, T, C)
  return concat(
    g,
    weights.map((weight, b) => g.op('MatMul', [weight, flat(`pv.${l}.${b}`, dv)])),
  );
}

const split = (g: GraphBuilder, value: Value, parts: number): Value[] =>
  parts === 1 ? [value] : g.ops('Split', [value], parts, { axis: 0, num_outputs: parts });
const concat = (g: GraphBuilder, values: readonly Value[]): Value =>
  values.length === 1 ? values[0]! : g.op('Concat', values, { axis: 0 });

/** `E[c] / max(||E[c]||, 1e-6)` of rows 1 … V, transposed: `(D, V)`. */
function normalisedEntities({ config, tensors }: Bundle): Float32Array {
  const { dimension: D, vocabularySize: V } = config;
  const table = tensors.get('entity_embedding')!.data;
  const out = new Float32Array(D * V);
  for (let row = 1; row <= V; row++) {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += table[row * D + d]! ** 2;
    const scale = 1 / Math.max(Math.sqrt(sum), 1e-6);
    for (let d = 0; d < D; d++) out[d * V + row - 1] = table[row * D + d]! * scale;
  }
  return out;
}
