/** Turns a checkpoint of Meta's research code (its state-dict names, its configuration) into a bundle. */
import { z } from 'zod';
import { describeIssues } from '../../schemas/describe-issues.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type Bundle, makeBundle } from './bundle.ts';
import type { Tensor, TensorMap } from './safetensors.ts';
import { timeBucketThresholds } from './time-buckets.ts';

const positive = z.int().positive();

/** The fields that decide the numbers; the rest of a training configuration is carried along in `training`. */
const researchConfigSchema = z.looseObject({
  max_item_id: positive,
  max_sequence_length: positive,
  gr_output_length: z.int().nonnegative(),
  item_embedding_dim: positive,
  num_blocks: positive,
  num_heads: positive,
  dqk: positive,
  dv: positive,
  N: positive.optional(),
  /** Not every export states it: the width of the output projection tells. */
  concat_ua: z.boolean().optional(),
  output_norm: z.enum(['l2', 'layernorm']).default('l2'),
});

const EMBEDDING = '_embedding_module._item_emb.weight';
const POSITIONS = '_input_features_preproc._pos_emb.weight';
const layerName = (l: number, part: string) => `_hstu._attention_layers.${l}.${part}`;

/**
 * @param tensors a state dict by its names in the reference code
 * @param config the `config` object of the checkpoint, or a file that holds it under the key `config`
 * @throws PipelineError `BUNDLE_INVALID` with everything missing, left over or of the wrong shape
 */
export function importResearch(tensors: TensorMap, config: unknown, name: string): Bundle {
  const given = typeof config === 'object' && config !== null && 'config' in config ? config.config : config;
  const parsed = researchConfigSchema.safeParse(given);
  if (!parsed.success)
    throw new PipelineError('BUNDLE_INVALID', ['research configuration:', ...describeIssues(parsed.error, given)].join('\n'));
  const c = parsed.data;
  const L = c.num_blocks;
  const N = c.N ?? c.max_sequence_length + c.gr_output_length + 1;
  const taken = new Set<string>();
  const take = (from: string): Tensor | undefined => {
    taken.add(from);
    return tensors.get(from);
  };
  const renamed = new Map<string, Tensor>();
  const put = (to: string, tensor: Tensor | undefined) => tensor && renamed.set(to, tensor);

  put('entity_embedding', withZeroPadding(take(EMBEDDING)));
  put('position_embedding', take(POSITIONS));
  for (let l = 0; l < L; l++) {
    put(`layers.${l}.uvqk`, take(layerName(l, '_uvqk')));
    put(`layers.${l}.time_bias`, take(layerName(l, '_rel_attn_bias._ts_w')));
    put(`layers.${l}.position_bias`, take(layerName(l, '_rel_attn_bias._pos_w')));
    put(`layers.${l}.output_weight`, transposed(take(layerName(l, '_o.weight'))));
    put(`layers.${l}.output_bias`, take(layerName(l, '_o.bias')));
  }
  const left = [...tensors.keys()].filter((key) => !taken.has(key));
  if (left.length > 0)
    throw new PipelineError('BUNDLE_INVALID', `tensors that the research architecture does not have: ${left.join(', ')}`);

  const outputRows = renamed.get('layers.0.output_weight')?.shape[0];
  return makeBundle({
    config: {
      format: 'hstu-bundle/1',
      name,
      architecture: 'hstu-research',
      dimension: c.item_embedding_dim,
      layers: L,
      heads: c.num_heads,
      dqk: c.dqk,
      dv: c.dv,
      vocabularySize: c.max_item_id,
      maxSequenceLength: c.max_sequence_length,
      paddedLength: N,
      positions: 'from-start',
      tokenTime: 'none',
      divisor: 'constant',
      normalization: 'per-token',
      attention: 'causal',
      timeBias: renamed.has('layers.0.time_bias'),
      positionBias: renamed.has('layers.0.position_bias'),
      concatUa: c.concat_ua ?? outputRows === 3 * c.num_heads * c.dv,
      outputNorm: c.output_norm,
      timeBucketThresholds: timeBucketThresholds(),
      window: { maxLength: c.max_sequence_length, blockLength: Math.max(1, Math.floor(c.max_sequence_length / 4)) },
      actions: { encoded: ['interaction'], skipped: [] },
      unknownEntity: 'dead-letter',
      training: { importedFrom: 'generative-recommenders research', config: c },
    },
    tensors: renamed,
    entities: Array.from({ length: c.max_item_id }, (_, i) => String(i + 1)),
  });
}

/** Row 0 is padding: the reference masks it out of every sum, so its value must not matter; here it is zero. */
function withZeroPadding(tensor: Tensor | undefined): Tensor | undefined {
  if (tensor === undefined) return undefined;
  const data = Float32Array.from(tensor.data);
  data.fill(0, 0, tensor.shape[1] ?? 0);
  return { shape: tensor.shape, data };
}

/** A `Linear` of the reference holds its weight as (out, in); the bundle holds (in, out). */
function transposed(tensor: Tensor | undefined): Tensor | undefined {
  if (tensor === undefined || tensor.shape.length !== 2) return tensor;
  const [rows, columns] = tensor.shape as [number, number];
  const data = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) data[c * rows + r] = tensor.data[r * columns + c]!;
  return { shape: [columns, rows], data };
}
