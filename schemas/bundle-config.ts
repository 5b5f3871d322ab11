/** `config.json` of a model bundle: what the model is, as far as serving it exactly must know. */
import { z } from 'zod';

/**
 * Largest numbers of a model that is served: far above any that there is, so that a mistyped or hostile one is refused before anything of
 * its size is made.
 */
export const MODEL_LIMITS = {
  layers: 1_024,
  heads: 1_024,
  /** Of the model, of a head's queries and values, of content embeddings, of the task heads. */
  width: 65_536,
  /** Tokens of a window, and positions. */
  length: 1_048_576,
  /** Kinds of action, and tasks. */
  kinds: 64,
  /** Value edges of a kind, and thresholds of time buckets. */
  edges: 65_536,
} as const;

const positive = z.int().positive();
const width = positive.max(MODEL_LIMITS.width);
const length = positive.max(MODEL_LIMITS.length);
const kinds = z.array(z.string().min(1)).max(MODEL_LIMITS.kinds);

/** What the STU layer (Meta's `modules/stu.py`) has beyond the research layer's switches. */
const stuSchema = z.strictObject({
  /** Constant divisor of attention: never a batch's length. */
  divisor: z.number().positive(),
  /** Factor of `q · k`; the reference takes `1 / sqrt(dqk)`. */
  alpha: z.number().positive(),
  /** Normalise the attention output per head, with one weight and one offset a head, instead of over all heads at once. */
  groupNorm: z.boolean(),
  /** A row sees this many rows before itself; null: all of them. */
  maxAttnLen: length.nullable(),
  /** Factor of the token embedding before positions are added; the reference takes `sqrt(D)`. */
  embeddingScale: z.number().positive(),
});

/** Candidates as target rows, and the heads that judge them. */
const rankingSchema = z.strictObject({
  /** Each task is a probability of its own: several may be true of one candidate. */
  tasks: z
    .array(
      z.strictObject({
        name: z.string().min(1),
        /** Weight of its probability in the combined score; negative for what should not happen. */
        weight: z.number(),
      }),
    )
    .min(1)
    .max(MODEL_LIMITS.kinds),
  /** Width of the heads' shared hidden layer; 0: one linear map. */
  hidden: z.int().nonnegative().max(MODEL_LIMITS.width),
});

/** What a token says besides its entity. Absent: one token an event, the entity alone. */
const tokensSchema = z.strictObject({
  /**
   * - `additive`: one token an event, entity plus actions plus value
   * - `interleaved`: two, the entity and then what was done with it; a candidate is a lone entity
   */
  layout: z.enum(['additive', 'interleaved']),
  /** Ascending edges of the value buckets of an action kind: a value is in bucket `number of edges ≤ value`. None: no values. */
  values: z.record(z.string(), z.array(z.number()).min(1).max(MODEL_LIMITS.edges)),
});

export const bundleConfigSchema = z
  .strictObject({
    format: z.literal('hstu-bundle/1'),
    name: z.string().min(1),
    /** The layer: HSTU research, or the generative recommender's ranking layer. */
    architecture: z.enum(['hstu-research', 'hstu-stu']),
    /** Model width `D`. */
    dimension: width,
    /** Layers `L`. */
    layers: positive.max(MODEL_LIMITS.layers),
    /** Heads `H`. */
    heads: positive.max(MODEL_LIMITS.heads),
    /** Width of a head's queries and keys. */
    dqk: width,
    /** Width of a head's values. */
    dv: width,
    /** Lines of `entities.txt`; the embedding has one row more, row 0 for padding. */
    vocabularySize: positive,
    maxSequenceLength: length,
    /** Padded length `N`: the constant divisor of attention, and the number of positions. */
    paddedLength: length,
    positions: z.enum(['from-start', 'from-end', 'none']),
    /** Whether a token's INPUT depends on the query time (a next-time bias does not count). */
    tokenTime: z.enum(['none', 'query-relative']),
    divisor: z.enum(['constant', 'batch-max']),
    normalization: z.enum(['per-token', 'batch']),
    attention: z.enum(['causal', 'bidirectional']),
    timeBias: z.boolean(),
    positionBias: z.boolean(),
    concatUa: z.boolean(),
    outputNorm: z.enum(['l2', 'layernorm', 'none']),
    /** Entry `k-1` is the smallest |Δt| in seconds of time bucket `k`; a bucket is the number of thresholds ≤ max(1, |Δt|). */
    timeBucketThresholds: z.array(z.number().int().positive()).max(MODEL_LIMITS.edges),
    window: z.strictObject({
      /** Tokens a window may hold before its oldest block is dropped. */
      maxLength: length,
      /** Tokens dropped at once. */
      blockLength: length,
    }),
    actions: z.strictObject({
      /** Kinds that become tokens. */
      encoded: kinds.min(1),
      /** Kinds kept in the sequence and in analytics, and not encoded. */
      skipped: kinds,
    }),
    /** What becomes of an action on an entity outside the vocabulary; `hash`: it takes one of the `outOfVocabulary` rows. */
    unknownEntity: z.enum(['dead-letter', 'skip', 'hash']),
    /** Rows of the embedding behind the vocabulary's, shared by all other entities. Given exactly for `hash`. */
    outOfVocabulary: positive.optional(),
    tokens: tokensSchema.optional(),
    /** Present exactly for architecture `hstu-stu`. */
    stu: stuSchema.optional(),
    /** Present in a bundle that ranks candidates. */
    ranking: rankingSchema.optional(),
    /** Whether the newest row is an embedding to rank the catalogue with by dot product. @default true */
    retrieval: z.boolean().optional(),
    /** Whether tensor `popularity` orders the vocabulary for users of whom nothing is known. @default false */
    popularity: z.boolean().optional(),
    /** Content embeddings that become rows of new entities: tensors `content.weight` and `content.bias`. @default none */
    content: z
      .strictObject({
        /** Numbers of a content embedding. */
        dimension: width,
        /** What makes them: for people, and compared with nothing. */
        model: z.string().min(1).optional(),
      })
      .optional(),
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
    if ((config.stu !== undefined) !== (config.architecture === 'hstu-stu'))
      refuse('stu', `must be given for architecture hstu-stu and for no other; the architecture is ${config.architecture}`);
    if (config.stu !== undefined && !config.concatUa)
      refuse('concatUa', 'architecture hstu-stu always projects [u, o, y]: must be true');
    if (config.ranking !== undefined) {
      if (config.attention !== 'causal') refuse('ranking', 'candidates need causal attention: no history row may see one');
      if (config.positions === 'from-end') refuse('ranking', 'candidates need positions from the start, or none');
      if ((config.positions !== 'none' || config.positionBias) && config.paddedLength <= config.maxSequenceLength)
        refuse('paddedLength', `candidates take the position after the window: must exceed ${config.maxSequenceLength}`);
      const names = config.ranking.tasks.map((task) => task.name);
      const twice = names.find((name, i) => names.indexOf(name) < i);
      if (twice !== undefined) refuse('ranking', `task '${twice}' is there twice`);
    }
    if (config.retrieval === false && config.ranking === undefined)
      refuse('retrieval', 'a bundle without ranking must serve retrieval');
    if ((config.unknownEntity === 'hash') !== (config.outOfVocabulary !== undefined))
      refuse('outOfVocabulary', `must be given for unknownEntity 'hash' and for nothing else (found: '${config.unknownEntity}')`);
    if (config.tokens?.layout === 'interleaved' && config.window.blockLength % 2 !== 0)
      refuse(
        'window',
        `blockLength ${config.window.blockLength} must be even: an interleaved event's two tokens are dropped together`,
      );
    for (const [kind, edges] of Object.entries(config.tokens?.values ?? {})) {
      if (!config.actions.encoded.includes(kind)) refuse('tokens', `values of '${kind}', which is not an encoded action`);
      if (edges.some((edge, i) => i > 0 && edge <= edges[i - 1]!)) refuse('tokens', `value edges of '${kind}' must ascend`);
    }
    const ids = tokenIds(config);
    if (ids > MAX_TOKEN_IDS)
      refuse(
        'tokens',
        `${config.vocabularySize} entities, ${config.actions.encoded.length} actions and the value buckets make ${ids} tokens; ` +
          `at most ${MAX_TOKEN_IDS}`,
      );
    for (const kind of config.actions.encoded)
      if (config.actions.skipped.includes(kind)) refuse('actions', `'${kind}' is both encoded and skipped`);
  });

export type BundleConfig = z.infer<typeof bundleConfigSchema>;

/** Tokens are 32-bit integers. */
const MAX_TOKEN_IDS = 2 ** 31;

/** Rows of the entity embedding: padding, the vocabulary, and those that all other entities share. */
export const entityRows = ({
  vocabularySize,
  outOfVocabulary = 0,
}: Pick<BundleConfig, 'vocabularySize' | 'outOfVocabulary'>): number => 1 + vocabularySize + outOfVocabulary;

/** Value buckets of all action kinds together. */
export const valueRows = ({ tokens }: Pick<BundleConfig, 'tokens'>): number =>
  Object.values(tokens?.values ?? {}).reduce((sum, edges) => sum + edges.length + 1, 0);

/** How many token ids there are, 0 (padding) among them: `entity + entityRows * (bucket + (valueRows + 1) * actionBits)`. */
export const tokenIds = (config: Pick<BundleConfig, 'vocabularySize' | 'outOfVocabulary' | 'tokens' | 'actions'>): number =>
  entityRows(config) * (config.tokens === undefined ? 1 : (valueRows(config) + 1) * 2 ** config.actions.encoded.length);

/** Whether a bundle's newest row may be compared with the catalogue by dot product. */
export const servesRetrieval = ({ retrieval = true }: Pick<BundleConfig, 'retrieval'>): boolean => retrieval;
