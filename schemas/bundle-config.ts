/** `config.json` of a model bundle: what the model is, as far as serving it exactly must know. */
import { z } from 'zod';

const positive = z.int().positive();

export const bundleConfigSchema = z
  .strictObject({
    format: z.literal('hstu-bundle/1'),
    name: z.string().min(1),
    architecture: z.literal('hstu-research'),
    /** Model width `D`. */
    dimension: positive,
    /** Layers `L`. */
    layers: positive,
    /** Heads `H`. */
    heads: positive,
    /** Width of a head's queries and keys. */
    dqk: positive,
    /** Width of a head's values. */
    dv: positive,
    /** Lines of `entities.txt`; the embedding has one row more, row 0 for padding. */
    vocabularySize: positive,
    maxSequenceLength: positive,
    /** Padded length `N`: the constant divisor of attention, and the number of positions. */
    paddedLength: positive,
    positions: z.enum(['from-start', 'from-end', 'none']),
    /** Whether a token's INPUT depends on the query time (a next-time bias does not count). */
    tokenTime: z.enum(['none', 'query-relative']),
    divisor: z.enum(['constant', 'batch-max']),
    normalization: z.enum(['per-token', 'batch']),
    attention: z.enum(['causal', 'bidirectional']),
    timeBias: z.boolean(),
    positionBias: z.boolean(),
    concatUa: z.boolean(),
    outputNorm: z.enum(['l2', 'layernorm']),
    /** Entry `k-1` is the smallest |Δt| in seconds of time bucket `k`; a bucket is the number of thresholds ≤ max(1, |Δt|). */
    timeBucketThresholds: z.array(z.number().int().positive()),
    window: z.strictObject({
      /** Tokens a window may hold before its oldest block is dropped. */
      maxLength: positive,
      /** Tokens dropped at once. */
      blockLength: positive,
    }),
    actions: z.strictObject({
      /** Kinds that become tokens. */
      encoded: z.array(z.string().min(1)).min(1),
      /** Kinds kept in the sequence and in analytics, and not encoded. */
      skipped: z.array(z.string().min(1)),
    }),
    /** What becomes of an action on an entity outside the vocabulary. */
    unknownEntity: z.enum(['dead-letter', 'skip']),
    /** How the model was made; free form, carried along. */
    training: z.record(z.string(), z.unknown()).optional(),
  })
  .superRefine((config, context) => {
    const refuse = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message });
    if (config.window.maxLength > config.maxSequenceLength)
      refuse('window', `maxLength ${config.window.maxLength} exceeds maxSequenceLength ${config.maxSequenceLength}`);
    if (config.window.blockLength > config.window.maxLength)
      refuse('window', `blockLength ${config.window.blockLength} exceeds maxLength ${config.window.maxLength}`);
    if (config.maxSequenceLength > config.paddedLength)
      refuse('maxSequenceLength', `${config.maxSequenceLength} exceeds paddedLength ${config.paddedLength}`);
    const thresholds = config.timeBucketThresholds;
    const drop = thresholds.findIndex((value, i) => i > 0 && value < thresholds[i - 1]!);
    if (drop > 0)
      refuse('timeBucketThresholds', `must not decrease: entry ${drop} is ${thresholds[drop]} after ${thresholds[drop - 1]}`);
    if (config.timeBias && thresholds.length === 0) refuse('timeBucketThresholds', 'must not be empty when timeBias is true');
    for (const kind of config.actions.encoded)
      if (config.actions.skipped.includes(kind)) refuse('actions', `'${kind}' is both encoded and skipped`);
  });

export type BundleConfig = z.infer<typeof bundleConfigSchema>;
