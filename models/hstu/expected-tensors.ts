/** Which tensors a bundle of a given configuration holds: the loader checks them, importers and random bundles make them. */
import { type BundleConfig, entityRows, valueRows } from '../../schemas/bundle-config.ts';
import { TIME_BUCKETS } from './time-buckets.ts';

/** Name and shape of every tensor that a bundle of this configuration must hold, and no other. */
export function expectedTensors(config: BundleConfig): Map<string, readonly number[]> {
  const { dimension: D, paddedLength: N, popularity = false, ranking, tokens, content, vocabularySize } = config;
  const shapes = new Map<string, readonly number[]>([['entity_embedding', [entityRows(config), D]]]);
  if (tokens !== undefined) {
    // Additive: row 0 is what a candidate has in place of the action that nobody has seen yet.
    shapes.set('action_embedding', [config.actions.encoded.length + (tokens.layout === 'additive' ? 1 : 0), D]);
    if (valueRows(config) > 0) shapes.set('value_embedding', [valueRows(config), D]);
  }
  if (config.positions !== 'none') shapes.set('position_embedding', [N, D]);
  for (let l = 0; l < config.layers; l++) {
    for (const [part, shape] of layerTensors(config)) shapes.set(`layers.${l}.${part}`, shape);
  }
  if (ranking !== undefined) {
    const { hidden, tasks } = ranking;
    if (hidden > 0) shapes.set('ranking.hidden_weight', [D, hidden]).set('ranking.hidden_bias', [hidden]);
    shapes.set('ranking.weight', [hidden > 0 ? hidden : D, tasks.length]).set('ranking.bias', [tasks.length]);
  }
  if (content !== undefined) shapes.set('content.weight', [content.dimension, D]).set('content.bias', [D]);
  if (popularity) shapes.set('popularity', [vocabularySize]);
  return shapes;
}

function layerTensors(config: BundleConfig): [string, readonly number[]][] {
  const { dimension: D, heads: H, dqk, dv, paddedLength: N, stu } = config;
  const columns = H * (2 * dv + 2 * dqk);
  const parts: [string, readonly number[]][] = [['uvqk', [D, columns]]];
  if (config.timeBias) parts.push(['time_bias', [TIME_BUCKETS]]);
  if (config.positionBias) parts.push(['position_bias', [2 * N - 1]]);
  parts.push(['output_weight', [(config.concatUa ? 3 : 1) * H * dv, D]]);
  if (stu === undefined) return [...parts, ['output_bias', [D]]];
  const outputs = stu.groupNorm ? H : H * dv;
  return [
    ...parts,
    ['uvqk_bias', [columns]],
    ['input_norm_weight', [D]],
    ['input_norm_bias', [D]],
    ['output_norm_weight', [outputs]],
    ['output_norm_bias', [outputs]],
  ];
}
