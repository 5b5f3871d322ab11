/** Small models for the laws: every switch of the architecture. */
import { type Bundle, makeBundle } from '../../models/hstu/bundle.ts';
import { type RandomBundleOptions, randomBundle } from '../../models/hstu/random-bundle.ts';
import { TokenCode } from '../../models/hstu/token-code.ts';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';

/** Longest window of these models: crosses the pages of the digest (32) twice. */
export const MAX_LENGTH = 72;
export const VOCABULARY = 50;

/**
 * Random weights at which float32 is within 1e-6 of float64 and another query time still moves rows by 0.1: with the
 * projections twice as large, windows of one to three events lose two more digits (5e-5), because a sum near silu's zero is
 * divided by its own small spread.
 */
function smallBundle(options: Partial<RandomBundleOptions> & { readonly seed: number }): Bundle {
  const { config, tensors, entities } = randomBundle({
    dimension: 16,
    layers: 3,
    heads: 2,
    maxSequenceLength: MAX_LENGTH,
    vocabularySize: VOCABULARY,
    ...options,
  });
  const halved = [...tensors].map(([name, tensor]) =>
    /uvqk|output_weight/.test(name)
      ? ([name, { shape: tensor.shape, data: tensor.data.map((value) => value / 2) }] as const)
      : ([name, tensor] as const),
  );
  return makeBundle({ config, tensors: new Map(halved), entities });
}

type Stu = NonNullable<BundleConfig['stu']>;
type StuOptions = Partial<Omit<RandomBundleOptions, 'stu'>> & { readonly seed: number; readonly stu?: Partial<Stu> };

/** The ranking layer at the same size, with task heads. */
function stuBundle({ stu, ...options }: StuOptions): Bundle {
  return smallBundle({
    architecture: 'hstu-stu',
    concatUa: true,
    timeBias: false,
    positionBias: false,
    stu: { divisor: MAX_LENGTH, alpha: 0.5, groupNorm: false, maxAttnLen: null, embeddingScale: 4, ...stu },
    ranking: { tasks: TASKS, hidden: 0 },
    ...options,
  });
}

const TASKS = [
  { name: 'like', weight: 1 },
  { name: 'buy', weight: 4 },
  { name: 'hide', weight: -2 },
];

const HETEROGENEOUS = {
  actions: { encoded: ['view', 'like', 'rate', 'buy'], skipped: ['tag'] },
  unknownEntity: 'hash',
  outOfVocabulary: 3,
} as const satisfies Partial<BundleConfig> as Pick<BundleConfig, 'actions' | 'unknownEntity' | 'outOfVocabulary'>;
const VALUES = { rate: [2, 3.5, 4.5], buy: [10, 100] };

/** Models that rank candidates, and whose rows may be kept. */
export const RANKING: Readonly<Record<string, Bundle>> = {
  STU: stuBundle({ seed: 31 }),
  'STU, local attention': stuBundle({ stu: { maxAttnLen: 5 }, seed: 32 }),
  'STU, group norm, dqk 4, dv 12': stuBundle({ stu: { groupNorm: true }, heads: 3, dqk: 4, dv: 12, seed: 33 }),
  'STU, both biases, layernorm output': stuBundle({ timeBias: true, positionBias: true, outputNorm: 'layernorm', seed: 34 }),
  'STU, local, time bias, no positions': stuBundle({ stu: { maxAttnLen: 20 }, timeBias: true, positions: 'none', seed: 35 }),
  'STU, local, position bias, group norm, hidden head': stuBundle({
    stu: { maxAttnLen: 1, groupNorm: true },
    positionBias: true,
    ranking: { tasks: TASKS, hidden: 8 },
    seed: 36,
  }),
  'STU, rows as they are': stuBundle({ outputNorm: 'none', layers: 2, seed: 37 }),
  'STU, additive tokens, values, both biases': stuBundle({
    ...HETEROGENEOUS,
    tokens: { layout: 'additive', values: VALUES },
    timeBias: true,
    positionBias: true,
    seed: 39,
  }),
  'STU, interleaved tokens, values, local': stuBundle({
    ...HETEROGENEOUS,
    tokens: { layout: 'interleaved', values: VALUES },
    stu: { maxAttnLen: 12 },
    timeBias: true,
    seed: 40,
  }),
  'research with heads': smallBundle({ ranking: { tasks: TASKS, hidden: 0 }, seed: 38 }),
};

/** Models whose rows may be kept. */
export const CACHEABLE: Readonly<Record<string, Bundle>> = {
  plain: smallBundle({ seed: 11 }),
  'one head': smallBundle({ heads: 1, layers: 2, seed: 12 }),
  'dqk 4, dv 12, 3 heads': smallBundle({ heads: 3, dqk: 4, dv: 12, seed: 13 }),
  'no time bias': smallBundle({ timeBias: false, seed: 14 }),
  'no position bias': smallBundle({ positionBias: false, seed: 15 }),
  'no bias at all': smallBundle({ timeBias: false, positionBias: false, seed: 16 }),
  'concatUa, dqk 10, dv 6 (not for the kernel)': smallBundle({ concatUa: true, dqk: 10, dv: 6, seed: 17 }),
  'layernorm output, 4 heads': smallBundle({ outputNorm: 'layernorm', heads: 4, seed: 18 }),
  'no positions': smallBundle({ positions: 'none', seed: 19 }),
  ...RANKING,
};

/** Models that only a full encode serves. */
export const REENCODED: Readonly<Record<string, Bundle>> = {
  'positions from the end': smallBundle({ positions: 'from-end', seed: 21 }),
  bidirectional: smallBundle({ attention: 'bidirectional', seed: 22 }),
};

/**
 * The window of a script, whose tokens are the numbers 1 … VOCABULARY, in tokens of the bundle's own layout: several actions at
 * once, values and entities outside the vocabulary among them. Equal numbers stay equal tokens.
 */
export function inLayout({ config }: Bundle, segment: EncodeSegment): EncodeSegment {
  if (config.tokens === undefined) return segment;
  const code = new TokenCode(config);
  const entities = segment.entities.map((number) => {
    const [actionBits, bucket] = [1 + (number % 15), number % 8];
    const entity = number % 10 === 0 ? VOCABULARY + 1 + (number % 3) : number;
    if (config.tokens!.layout === 'additive') return code.encode({ entity, actionBits, bucket });
    return number % 2 === 0 ? entity : code.encode({ entity: 0, actionBits, bucket });
  });
  return { ...segment, entities, pageDigests: pageDigests(entities, segment.timesS) };
}
