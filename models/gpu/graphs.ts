/**
 * The encoder's graphs over a pool on the GPU. Unlike those of the CPU they read cached rows by number, so that users of any length
 * share a run, and write the new rows' K and V themselves: of K and V nothing passes between host and device.
 *
 * A pool is one buffer a layer, `(R, W)`: row `r` holds K and V of one token, `W = H*(dqk+dv)`. Row numbers serve all layers.
 * Legend: `B` users · `T` new rows a user · `S` cached rows read a user · `D`, `H`, `dqk`, `dv` as in `layer.ts`.
 */
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { attentionToNewRows, hasBias, isLocal } from '../hstu/graph/attention.ts';
import { encoderStack } from '../hstu/graph/graphs.ts';
import { type Attention, outputNorm, preciseSilu, silu } from '../hstu/graph/layer.ts';
import { taskHeads } from '../hstu/graph/ranking-head.ts';
import { GraphBuilder, type Value } from '../onnx/graph-builder.ts';

/** Floats of a pool row. */
export const poolWidth = ({ heads, dqk, dv }: Pick<BundleConfig, 'heads' | 'dqk' | 'dv'>): number => heads * (dqk + dv);

const pool = (l: number) => `pool.${l}`;
/** The output that is written in place to `pool.l`. */
const kept = (l: number) => `kept.${l}`;

/** By output, the input that it is written to in place. */
export const inPlace = ({ layers }: Pick<BundleConfig, 'layers'>): Record<string, string> =>
  Object.fromEntries(Array.from({ length: layers }, (_, l) => [kept(l), pool(l)]));

/** By input, the pool's buffers. */
export const bindPool = <T>(buffers: readonly T[]): Record<string, T> =>
  Object.fromEntries(buffers.map((buffer, l) => [pool(l), buffer]));

/**
 * `T` new rows of each of `B` users; K and V of row `(b, t)` go to pool row `rows[b*T+t]`.
 *
 * in: `x (B,T,D)`, `mask (B,1,T,T)`, `bias.l (B,1,T,T)`, `rows (B*T,1)`, `pool.l (R,W)`; with a past also `past (B,S)` row
 * numbers, `past.l (B,1,T,S)`, and for local attention `pastMask (B,1,T,S)` · out: `y (B,T,D)`, `kept.l` in place of `pool.l`
 */
export function poolEncodeGraph(bundle: Bundle, withPast: boolean): Uint8Array {
  const { config } = bundle;
  const D = config.dimension;
  const W = poolWidth(config);
  const g = new GraphBuilder(`hstu-gpu-${withPast ? 'step' : 'prefill'}`);
  const pools = poolInputs(g, config);
  const rows = g.input('rows', 'int64', ['U', 1]);
  const among = attentionToNewRows(g, config);
  const past = withPast ? attentionToPool(g, config, pools, silu) : undefined;
  const attention: Attention = past === undefined ? among : (heads, l) => g.op('Add', [among(heads, l), past(heads, l)]);
  const x = encoderStack(g, bundle, g.input('x', 'float32', ['B', 'T', D]), attention, ({ k, v }, l) => {
    const updates = g.op('Reshape', [g.op('Concat', [k, v], { axis: -1 }), g.ints([-1, W])]);
    g.output(kept(l), g.op('ScatterND', [pools[l]!, rows, updates]), 'float32', ['R', W]);
  });
  g.output('y', outputNorm(g, config, x), 'float32', ['B', 'T', D]);
  return g.build();
}

/**
 * `T` candidates of one user over its rows, the newest among them; each sees the past and itself. Nothing of them is stored.
 *
 * in: `x (1,T,D)`, `mask (1,1,T,T)` the unit matrix, `bias.l (1,1,T,T)`, `past (1,S)`, `past.l (1,1,1,S)`, for local attention
 * `pastMask (1,1,1,S)`, `pool.l` · out: `y (1,T,D)`, `probabilities (1,T,K)`, `combined (1,T,1)`
 */
export function poolCandidateGraph(bundle: Bundle): Uint8Array {
  const { config } = bundle;
  const D = config.dimension;
  const g = new GraphBuilder('hstu-gpu-candidates');
  const among = attentionToNewRows(g, config);
  const past = attentionToPool(g, config, poolInputs(g, config), preciseSilu);
  const x = encoderStack(g, bundle, g.input('x', 'float32', [1, 'T', D]), (heads, l) =>
    g.op('Add', [among(heads, l), past(heads, l)]),
  );
  const y = outputNorm(g, config, x);
  const { probabilities, combined } = taskHeads(g, bundle, y);
  g.output('y', y, 'float32', [1, 'T', D]);
  g.output('probabilities', probabilities, 'float32', [1, 'T', config.ranking!.tasks.length]);
  g.output('combined', combined, 'float32', [1, 'T', 1]);
  return g.build();
}

/** A buffer of zeros. in: `shape (2,)` · out: `zeros` */
export function zerosGraph(): Uint8Array {
  const g = new GraphBuilder('hstu-gpu-zeros');
  g.output('zeros', g.op('Expand', [g.scalar(0), g.input('shape', 'int64', [2])]), 'float32', ['R', 'W']);
  return g.build();
}

/** A trial of the device. in: `x (n,n)` · out: `y (n,n)` the fifth power of `x` */
export function matrixProductGraph(): Uint8Array {
  const g = new GraphBuilder('hstu-gpu-trial');
  const x = g.input('x', 'float32', ['n', 'n']);
  let power = x;
  for (let i = 0; i < 4; i++) power = g.op('MatMul', [power, x]);
  g.output('y', power, 'float32', ['n', 'n']);
  return g.build();
}

/** Rows of the pool to the host. in: `past (S,)`, `pool.l` · out: `rows.l (S,W)` */
export function gatherGraph(config: BundleConfig): Uint8Array {
  const g = new GraphBuilder('hstu-gpu-gather');
  const wanted = g.input('past', 'int32', ['S']);
  for (const [l, rows] of poolInputs(g, config).entries())
    g.output(`rows.${l}`, g.op('Gather', [rows, wanted], { axis: 0 }), 'float32', ['S', poolWidth(config)]);
  return g.build();
}

/** Rows of the host to the pool. in: `rows (S,1)`, `rows.l (S,W)`, `pool.l` · out: `kept.l` in place of `pool.l` */
export function scatterGraph(config: BundleConfig): Uint8Array {
  const W = poolWidth(config);
  const g = new GraphBuilder('hstu-gpu-scatter');
  const rows = g.input('rows', 'int64', ['S', 1]);
  for (const [l, into] of poolInputs(g, config).entries())
    g.output(kept(l), g.op('ScatterND', [into, rows, g.input(`rows.${l}`, 'float32', ['S', W])]), 'float32', ['R', W]);
  return g.build();
}

const poolInputs = (g: GraphBuilder, config: BundleConfig): Value[] =>
  Array.from({ length: config.layers }, (_, l) => g.input(pool(l), 'float32', ['R', poolWidth(config)]));

/** New rows against the pool rows `past`. Those that stand for no cached row are a row of zeros and add nothing: V = 0. */
function attentionToPool(g: GraphBuilder, config: BundleConfig, pools: readonly Value[], activation: typeof silu): Attention {
  const { heads: H, dqk, dv } = config;
  const wanted = g.input('past', 'int32', ['B', 'S']);
  const mask = isLocal(config) ? g.input('pastMask', 'float32', ['B', 1, 'P', 'S']) : undefined;
  return ({ q }, l) => {
    const cached = g.op('Gather', [pools[l]!, wanted], { axis: 0 }); // (B, S, W)
    const [k, v] = g.ops('Split', [cached, g.ints([H * dqk, H * dv])], 2, { axis: -1 }) as [Value, Value];
    const byHead = (value: Value, width: number, perm: readonly number[]) =>
      g.op('Transpose', [g.op('Reshape', [value, g.ints([0, 0, H, width])])], { perm });
    const scores = g.op('MatMul', [q, byHead(k, dqk, [0, 2, 3, 1])]); // (B, H, T, S)
    const biased = hasBias(config) ? g.op('Add', [scores, g.input(`past.${l}`, 'float32', ['B', 1, 'P', 'S'])]) : scores;
    const weights = activation(g, biased);
    const masked = mask === undefined ? weights : g.op('Mul', [weights, mask]);
    return g.op('MatMul', [masked, byHead(v, dv, [0, 2, 1, 3])]); // (B, H, T, dv)
  };
}
