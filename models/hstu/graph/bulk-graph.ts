/**
 * The graph of backfills: whole windows, nothing cached, nothing kept. Queries go in chunks that see only the keys up to their
 * own end, which spares nearly half of what the causal mask of one square would throw away.
 *
 * Legend: `B` users · `T` rows a user, a multiple of `chunks` · `S = T / chunks` · `D` width · `H` heads · `dqk`, `dv` widths per head.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { GraphBuilder, type Value } from '../../onnx/graph-builder.ts';
import type { Bundle } from '../bundle.ts';
import { hasBias } from './attention.ts';
import { encoderStack } from './graphs.ts';
import { type Attention, outputNorm, preciseSilu, silu } from './layer.ts';

/** How many chunks windows of `rows` rows are cut into: few distinct numbers, for each is a session of its own. */
export const bulkChunks = (rows: number): number => (rows <= 128 ? 1 : rows <= 512 ? 4 : 8);

/**
 * All rows of `B` users.
 *
 * in: `x (B,T,D)` token embeddings; per chunk `c` `mask.c (1,1,S,(c+1)*S)`, 1 where a row may see a key, and per layer
 * `bias.l.c (B,1,S,(c+1)*S)` · out: `y (B,T,D)`
 *
 * @param blank leading chunks whose rows nobody wants: the last layer leaves out their attention, and their `y` means nothing
 */
export function bulkGraph(bundle: Bundle, chunks: number, blank: number): Uint8Array {
  const { config } = bundle;
  const g = new GraphBuilder(`hstu-bulk-${chunks}-${blank}`);
  const x = g.input('x', 'float32', ['B', 'T', config.dimension]);
  const attention = attentionInChunks(g, config, chunks);
  const y = encoderStack(g, bundle, x, (heads, l) => attention(heads, l, l === config.layers - 1 ? blank : 0));
  g.output('y', outputNorm(g, config, y), 'float32', ['B', 'T', config.dimension]);
  return g.build();
}

function attentionInChunks(
  g: GraphBuilder,
  config: BundleConfig,
  chunks: number,
): (heads: Parameters<Attention>[0], layer: number, blank: number) => Value {
  const masks = Array.from({ length: chunks }, (_, c) => g.input(`mask.${c}`, 'float32', [1, 1, 'S', `S${c}`]));
  const activation = config.architecture === 'hstu-stu' ? preciseSilu : silu;
  const split = (value: Value, axis: number) =>
    chunks === 1 ? [value] : g.ops('Split', [value], chunks, { axis, num_outputs: chunks });
  const upTo = (parts: readonly Value[], c: number, axis: number) =>
    c === 0 ? parts[0]! : g.op('Concat', parts.slice(0, c + 1), { axis });
  return ({ q, kTransposed, v }, l, blank) => {
    const [queries, keys, values] = [split(q, 2), split(kTransposed, 3), split(v, 2)];
    const sums = queries.map((query, c) => {
      if (c < blank) return g.op('Mul', [values[c]!, g.scalar(0)]); // (B, H, S, dv)
      const scores = g.op('MatMul', [query, upTo(keys, c, 3)]); // (B, H, S, (c+1)*S)
      const biased = hasBias(config)
        ? g.op('Add', [scores, g.input(`bias.${l}.${c}`, 'float32', ['B', 1, 'S', `S${c}`])])
        : scores;
      return g.op('MatMul', [g.op('Mul', [activation(g, biased), masks[c]!]), upTo(values, c, 2)]);
    });
    return chunks === 1 ? sums[0]! : g.op('Concat', sums, { axis: 2 });
  };
}
