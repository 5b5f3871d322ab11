/**
 * The encoder's graphs. `prefill` encodes rows that have nothing before them; `step` encodes `T` new rows against cached rows;
 * `candidates` judges entities against cached rows.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { GraphBuilder, type Value } from '../../onnx/graph-builder.ts';
import type { Bundle } from '../bundle.ts';
import { attentionOfCandidates, attentionToNewRows, attentionToPast, attentionToPastRowwise } from './attention.ts';
import { type Attention, type Layer, type LayerResult, outputNorm } from './layer.ts';
import { taskHeads } from './ranking-head.ts';
import { researchLayer } from './research-layer.ts';
import { stuLayer } from './stu-layer.ts';

/** Up to how many new rows a user the step multiplies row by row (matrix-vector); beyond, one matrix product per user. */
export const MAX_ROWWISE = 4;

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
 * `T` new rows of each of `users` users against their cached rows, all of the same capacity `C`.
 *
 * in: those of prefill with `B = users`, and per layer `past.l (B,1,T,S,1)` the bias of the cached keys, and per user `b`
 * `pk.l.b (H,1,C,dqk)`, `pv.l.b (H,1,C,dv)`; for local attention `pastMask (B,1,T,S,1)`, `start.b`, `end.b` · out: those of prefill
 */
export function stepGraph(bundle: Bundle, users: number, rowwise: boolean): Uint8Array {
  const g = new GraphBuilder(`hstu-step-${users}`);
  const among = attentionToNewRows(g, bundle.config);
  const past = (rowwise ? attentionToPastRowwise : attentionToPast)(g, bundle.config, users);
  return encoderGraph(g, bundle, users, (heads, l) => g.op('Add', [among(heads, l), past(heads, l)]));
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

/** The layers over the rows `x (B,T,D)`; `after` sees what each has made. `(B,T,D)` */
export function encoderStack(
  g: GraphBuilder,
  { config, tensors }: Bundle,
  x: Value,
  attention: Attention,
  after: (layer: LayerResult, l: number) => void = () => undefined,
): Value {
  const layer = layerOf(config);
  let rows = x;
  for (let l = 0; l < config.layers; l++) {
    const result = layer(g, config, tensors, l, rows, attention);
    after(result, l);
    rows = result.x;
  }
  return rows;
}

const layerOf = ({ architecture }: BundleConfig): Layer => (architecture === 'hstu-stu' ? stuLayer : researchLayer);
