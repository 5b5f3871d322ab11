/** Turns a checkpoint of Meta's STU stack (`modules/stu.py`: its state-dict names) into a bundle. */
import { z } from 'zod';
import { describeIssues } from '../../schemas/describe-issues.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type Bundle, makeBundle } from './bundle.ts';
import type { Tensor, TensorMap } from './safetensors.ts';
import { timeBucketThresholds } from './time-buckets.ts';

const positive = z.int().positive();

/** The stack's own shape, and what a bundle needs beyond it; the rest is carried along in `training`. */
const stuConfigSchema = z.looseObject({
  D: positive,
  H: positive,
  dv: positive,
  dqk: positive,
  L: positive,
  divisor: z.number().positive(),
  groupNorm: z.boolean().default(false),
  maxAttnLen: positive.nullable().default(null),
  /** The reference's default. */
  alpha: z.number().positive().optional(),
  /** @default the divisor, which in the reference is the longest sequence */
  maxSequenceLength: positive.optional(),
  /** @default sqrt(D), as the reference's position encoder */
  embeddingScale: z.number().positive().optional(),
  outputNorm: z.enum(['l2', 'layernorm', 'none']).default('none'),
  tasks: z.array(z.strictObject({ name: z.string().min(1), weight: z.number().default(1) })).optional(),
  entities: z.array(z.string().min(1)).optional(),
});

/** Names in the state dict of a layer, and in a bundle. */
const LAYER_PARTS = {
  _uvqk_weight: 'uvqk',
  _uvqk_beta: 'uvqk_bias',
  _input_norm_weight: 'input_norm_weight',
  _input_norm_bias: 'input_norm_bias',
  _output_weight: 'output_weight',
  _output_norm_weight: 'output_norm_weight',
  _output_norm_bias: 'output_norm_bias',
} as const;

/**
 * A stack has no embeddings and no heads of its own. Where the file also holds tensors by the bundle's names (`entity_embedding`,
 * `position_embedding`, `layers.L.time_bias`, `ranking.weight`, `popularity`, …) they are taken over; without `entity_embedding` the bundle gets
 * one entity whose row is zero: a stack to look into, not a model to serve.
 *
 * @param tensors a state dict by its names in the reference code: `_stu_layers.L._uvqk_weight` and so on
 * @param config the `config` object of the checkpoint, or a file that holds it under the key `config`
 * @throws PipelineError `BUNDLE_INVALID` with everything missing, left over or of the wrong shape
 */
export function importStu(tensors: TensorMap, config: unknown, name: string): Bundle {
  const given = typeof config === 'object' && config !== null && 'config' in config ? config.config : config;
  const parsed = stuConfigSchema.safeParse(given);
  if (!parsed.success)
    throw new PipelineError('BUNDLE_INVALID', ['STU configuration:', ...describeIssues(parsed.error, given)].join('\n'));
  const c = parsed.data;
  const renamed = new Map<string, Tensor>([['entity_embedding', { shape: [2, c.D], data: new Float32Array(2 * c.D) }]]);
  for (const [key, tensor] of tensors) renamed.set(bundleName(key), tensor);

  const vocabularySize = Math.max(1, (renamed.get('entity_embedding')!.shape[0] ?? 0) - 1);
  const maxSequenceLength = c.maxSequenceLength ?? Math.max(1, Math.floor(c.divisor));
  const paddedLength = renamed.get('position_embedding')?.shape[0] ?? maxSequenceLength + 1;
  const hidden = renamed.get('ranking.hidden_bias')?.shape[0] ?? 0;
  return makeBundle({
    config: {
      format: 'hstu-bundle/1',
      name,
      architecture: 'hstu-stu',
      dimension: c.D,
      layers: c.L,
      heads: c.H,
      dqk: c.dqk,
      dv: c.dv,
      vocabularySize,
      maxSequenceLength,
      paddedLength,
      positions: renamed.has('position_embedding') ? 'from-start' : 'none',
      tokenTime: 'none',
      divisor: 'constant',
      normalization: 'per-token',
      attention: 'causal',
      timeBias: renamed.has('layers.0.time_bias'),
      positionBias: renamed.has('layers.0.position_bias'),
      concatUa: true,
      outputNorm: c.outputNorm,
      timeBucketThresholds: timeBucketThresholds(),
      window: { maxLength: maxSequenceLength, blockLength: Math.max(1, Math.floor(maxSequenceLength / 4)) },
      actions: { encoded: ['interaction'], skipped: [] },
      unknownEntity: 'dead-letter',
      stu: {
        divisor: c.divisor,
        alpha: c.alpha ?? 1 / Math.sqrt(c.dqk),
        groupNorm: c.groupNorm,
        maxAttnLen: c.maxAttnLen,
        embeddingScale: c.embeddingScale ?? Math.sqrt(c.D),
      },
      ...(renamed.has('popularity') && { popularity: true }),
      ...(c.tasks !== undefined && { ranking: { tasks: c.tasks, hidden } }),
      training: {
        importedFrom: 'generative-recommenders STU',
        embedding: tensors.has('entity_embedding') ? 'imported' : 'absent',
      },
    },
    tensors: renamed,
    entities: c.entities ?? Array.from({ length: vocabularySize }, (_, i) => String(i + 1)),
  });
}

/** `_stu_layers.3._uvqk_beta` → `layers.3.uvqk_bias`; any other name stays, for `makeBundle` to accept or refuse. */
function bundleName(key: string): string {
  const [, l, part] = /^_stu_layers\.(\d+)\.(\w+)$/.exec(key) ?? [];
  const renamed = LAYER_PARTS[part as keyof typeof LAYER_PARTS];
  return renamed === undefined ? key : `layers.${l}.${renamed}`;
}
