/**
 * The encoder's graphs. `prefill` encodes rows that have nothing before them; `step` encodes `T` new rows against cached rows,
 * `stage` a part of a step of few rows;
 * `candidates` judges entities against cached rows.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { GraphBuilder, type Value } from '../../onnx/graph-builder.ts';
import type { Bundle } from '../bundle.ts';
import { attentionOfCandidates, attentionToNewRows, attentionToPast } from './attention.ts';
import { type Attention, type Layer, mergeHeads, outputNorm, type Projected, splitHeads, weightsOf } from './layer.ts';
import { taskHeads } from './ranking-head.ts';
import { researchLayer } from './research-layer.ts';
import { stuLayer } from './stu-layer.ts';

/**
 * All rows of `B` users, nothing cached. A model without biases has no `bias.l`.
 *
 * in: `x (B,T,D)` token embeddings, `bias.l (B,1,T,T)`, `mask (B,1,T,T)` 1 where row i may see row j ·
 * out: `y (B,T,D)`, `k.l (B,T,H*dqk)`, `v.l (B,T,H*dv)`
 */
export function prefillGraph(bundle: Bundle): Uint8Array {
  const g = new GraphBuilder('hstu-prefill');
  return encoderGraph(g, bundle, 'B', attentionToNewRows(g, bundle.config));
}

/**
 * `T` new rows of one user against its cached rows: for many new rows at once.
 *
 * in: those of prefill with `B = 1`, and what `attentionToPast` takes · out: those of prefill
 */
export function stepGraph(bundle: Bundle): Uint8Array {
  const g = new GraphBuilder('hstu-step');
  const among = attentionToNewRows(g, bundle.config);
  const past = attentionToPast(g, bundle.config);
  return encoderGraph(g, bundle, 1, (heads, l) => g.op('Add', [among(heads, l), past(heads, l)]));
}

/**
 * What a step computes between the attention of layer `l - 1` and that of layer `l`, over `R` rows of any users; the attention
 * itself is not the runtime's work.
 *
 * in: `x_in (1,R,D)`; from `l = 1` on also the gate `u_in` and the undivided sum `sum`, `(1,R,H*dv)` each, of layer `l - 1` ·
 * out: `x` as it enters layer `l`, and that layer's `u`, `v (1,R,H*dv)`, `q`, `k (1,R,H*dqk)`; behind the last layer `y (1,R,D)`
 */
export function stageGraph(bundle: Bundle, l: number): Uint8Array {
  const { config, tensors } = bundle;
  const { dimension: D, heads: H, dqk, dv, layers: L } = config;
  const g = new GraphBuilder(`hstu-stage-${l}`);
  const layer = layerOf(config);
  const entered = g.input('x_in', 'float32', [1, 'R', D]);
  const input = (name: string) => g.input(name, 'float32', [1, 'R', H * dv]);
  const x = l === 0 ? entered : layer.leave(g, config, weightsOf(g, tensors, l - 1), entered, input('u_in'), input('sum'));
  if (l === L) {
    g.output('y', outputNorm(g, config, x), 'float32', [1, 'R', D]);
    return g.build();
  }
  const { u, q, k, v } = layer.project(g, config, weightsOf(g, tensors, l), x);
  if (l > 0) g.output('x', x, 'float32', [1, 'R', D]);
  for (const [name, value, width] of [
    ['u', u, dv],
    ['q', q, dqk],
    ['k', k, dqk],
    ['v', v, dv],
  ] as const)
    g.output(name, value, 'float32', [1, 'R', H * width]);
  return g.build();
}

/**
 * `T` candidates of one user against its rows. Their keys and values do not leave the graph.
 *
 * in: `x (1,T,D)`, and what `attentionOfCandidates` takes · out: `y (1,T,D)`, `probabilities (1,T,K)`, `combined (1,T,1)`
 */
export function candidateGraph(bundle: Bundle): Uint8Array {
  const g = new GraphBuilder('hstu-candidates');
  return judgingGraph(g, bundle, attentionOfCandidates(g, bundle.config));
}

/** The same by one pass over history and candidates, which the mask tells apart. in: those of prefill · out: those of candidates */
export function fullCandidateGraph(bundle: Bundle): Uint8Array {
  const g = new GraphBuilder('hstu-full-candidates');
  return judgingGraph(g, bundle, attentionToNewRows(g, bundle.config));
}

function judgingGraph(g: GraphBuilder, bundle: Bundle, attention: Attention): Uint8Array {
  const { config } = bundle;
  const D = config.dimension;
  const y = outputNorm(g, config, encoderStack(g, bundle, g.input('x', 'float32', [1, 'T', D]), attention));
  const { probabilities, combined } = taskHeads(g, bundle, y);
  g.output('y', y, 'float32', [1, 'T', D]);
  g.output('probabilities', probabilities, 'float32', [1, 'T', config.ranking!.tasks.length]);
  g.output('combined', combined, 'float32', [1, 'T', 1]);
  return g.build();
}

function encoderGraph(g: GraphBuilder, bundle: Bundle, B: number | string, attention: Attention): Uint8Array {
  const { config } = bundle;
  const { dimension: D, heads: H, dqk, dv } = config;
  const x = encoderStack(g, bundle, g.input('x', 'float32', [B, 'T', D]), attention, ({ k, v }, l) => {
    g.output(`k.${l}`, k, 'float32', [B, 'T', H * dqk]);
    g.output(`v.${l}`, v, 'float32', [B, 'T', H * dv]);
  });
  g.output('y', outputNorm(g, config, x), 'float32', [B, 'T', D]);
  return g.build();
}

/** The layers over the rows `x (B,T,D)`; `after` sees what each keeps. `(B,T,D)` */
export function encoderStack(
  g: GraphBuilder,
  { config, tensors }: Bundle,
  x: Value,
  attention: Attention,
  after: (kept: Projected, l: number) => void = () => undefined,
): Value {
  const layer = layerOf(config);
  let rows = x;
  for (let l = 0; l < config.layers; l++) {
    const weights = weightsOf(g, tensors, l);
    const projected = layer.project(g, config, weights, rows);
    const sum = mergeHeads(g, config, attention(splitHeads(g, config, projected), l));
    after(projected, l);
    rows = layer.leave(g, config, weights, rows, projected.u, sum);
  }
  return rows;
}

const layerOf = ({ architecture }: BundleConfig): Layer => (architecture === 'hstu-stu' ? stuLayer : researchLayer);
