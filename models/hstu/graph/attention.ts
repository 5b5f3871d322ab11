/**
 * Pointwise attention as ONNX nodes: `Σ_j silu(q_i·k_j + bias_ij) v_j`, a plain sum, so the cached rows, the new rows and a
 * candidate's own row are summed apart and added.
 *
 * Cached rows enter as they lie in the pool, one zero-copy tensor per user, layer and kind: `(H, C, d)` with `C` rows of
 * capacity. Rows beyond the user's length hold V = 0 and so add nothing: no mask over the past. Local attention reads only the
 * `S` rows that a new row may reach, from row `start` on, and masks those that the others may not. Elsewhere `S` is `C`.
 */
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { type GraphBuilder, MICROSOFT, type Value } from '../../onnx/graph-builder.ts';
import { type Attention, preciseSilu, silu } from './layer.ts';

/** Whether scores carry a relative bias: without one the graphs have no inputs for it. */
export const hasBias = ({ timeBias, positionBias }: Pick<BundleConfig, 'timeBias' | 'positionBias'>): boolean =>
  timeBias || positionBias;

/** Whether rows see only the nearest rows before them: the graphs then read a part of the past, under a mask. */
export const isLocal = ({ stu }: Pick<BundleConfig, 'stu'>): boolean => (stu?.maxAttnLen ?? null) !== null;

/** New rows among themselves. Inputs: `mask (B,1,T,T)`, 1 where row i may see row j, and `bias.l (B,1,T,T)`. */
export function attentionToNewRows(g: GraphBuilder, config: BundleConfig): Attention {
  const mask = g.input('mask', 'float32', ['B', 1, 'T', 'T']);
  const activation = config.architecture === 'hstu-stu' ? preciseSilu : silu;
  return ({ q, kTransposed, v }, l) => {
    const scores = g.op('MatMul', [q, kTransposed]); // (B, H, T, T)
    const bias = hasBias(config) ? g.input(`bias.${l}`, 'float32', ['B', 1, 'T', 'T']) : undefined;
    return g.op('MatMul', [weightsOf(g, scores, bias, mask, activation), v]);
  };
}

/**
 * New rows of one user against its cached ones. Inputs: `pk.l`, `pv.l`, `past.l (1,1,T,S)` and, for local attention,
 * `pastMask (1,1,T,S)`, `start (1,)` and `end (1,)`.
 */
export function attentionToPast(g: GraphBuilder, config: BundleConfig): Attention {
  const { dqk, dv } = config;
  const cached = cachedRows(g, config);
  const ofPast = (name: string) => g.input(name, 'float32', [1, 1, 'T', 'S']);
  const mask = isLocal(config) ? ofPast('pastMask') : undefined;
  return ({ q }, l) => {
    const scores = g.op('FusedMatMul', [q, cached(`pk.${l}`, dqk)], { transB: 1 }, MICROSOFT); // (1, H, T, S)
    const bias = hasBias(config) ? ofPast(`past.${l}`) : undefined;
    return g.op('MatMul', [weightsOf(g, scores, bias, mask), cached(`pv.${l}`, dv)]);
  };
}

/**
 * Candidates of one user: each sees the cached rows, the newest row and itself, and no other candidate. All of them stand at
 * the same position and are asked about the same time, so one row of biases serves them all.
 *
 * Inputs per layer: `pk.l`, `pv.l` as above; the newest row's `tk.l (1,H,1,dqk)` and `tv.l (1,H,1,dv)`, zero where there is none;
 * biases of the past `past.l (1,1,1,S)`, of the newest row and of itself `near.l (2,)`. For local attention `pastMask (1,1,1,S)`,
 * `start (1,)` and `end (1,)`.
 */
export function attentionOfCandidates(g: GraphBuilder, config: BundleConfig): Attention {
  const { heads: H, dqk, dv } = config;
  const mask = isLocal(config) ? g.input('pastMask', 'float32', [1, 1, 1, 'S']) : undefined;
  const cached = cachedRows(g, config);
  return ({ q, kTransposed, v }, l) => {
    const biased = hasBias(config);
    const past = biased ? g.input(`past.${l}`, 'float32', [1, 1, 1, 'S']) : undefined;
    const near = biased ? g.ops('Split', [g.input(`near.${l}`, 'float32', [2]), g.ints([1, 1])], 2, { axis: 0 }) : [];
    const dot = (keys: Value) => g.op('ReduceSum', [g.op('Mul', [q, keys]), g.ints([-1])], { keepdims: 1 }); // (1, H, T, 1)
    const sees = (keys: Value, values: Value, bias: Value | undefined) =>
      g.op('Mul', [weightsOf(g, dot(keys), bias, undefined, preciseSilu), values]);

    const scores = g.op('FusedMatMul', [q, cached(`pk.${l}`, dqk)], { transB: 1 }, MICROSOFT); // (1, H, T, S)
    const history = g.op('MatMul', [weightsOf(g, scores, past, mask), cached(`pv.${l}`, dv)]);
    const newest = sees(g.input(`tk.${l}`, 'float32', [1, H, 1, dqk]), g.input(`tv.${l}`, 'float32', [1, H, 1, dv]), near[0]);
    const itself = sees(g.op('Transpose', [kTransposed], { perm: [0, 1, 3, 2] }), v, near[1]);
    return g.op('Add', [history, g.op('Add', [newest, itself])]);
  };
}

/** Cached rows by input name: all of them as they lie in the pool, or, for local attention, a copy of those in reach. `(H, S, width)` */
function cachedRows(g: GraphBuilder, config: BundleConfig): (name: string, width: number) => Value {
  const all = (name: string, width: number) => g.input(name, 'float32', [config.heads, 'C', width]);
  if (!isLocal(config)) return all;
  const bounds = [g.input('start', 'int64', [1]), g.input('end', 'int64', [1])];
  return (name, width) => g.op('Slice', [all(name, width), ...bounds, g.ints([1])]);
}

/** `silu(score + bias) * mask`, where there are any. */
function weightsOf(
  g: GraphBuilder,
  scores: Value,
  bias: Value | undefined,
  mask: Value | undefined,
  activation: typeof silu = silu,
): Value {
  const weights = activation(g, bias === undefined ? scores : g.op('Add', [scores, bias]));
  return mask === undefined ? weights : g.op('Mul', [weights, mask]);
}
