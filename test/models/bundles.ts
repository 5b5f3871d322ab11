/** Small models for the laws: every switch of the architecture. */
import { type Bundle, makeBundle } from '../../models/hstu/bundle.ts';
import { type RandomBundleOptions, randomBundle } from '../../models/hstu/random-bundle.ts';

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

/** Models whose rows may be kept. */
export const CACHEABLE: Readonly<Record<string, Bundle>> = {
  plain: smallBundle({ seed: 11 }),
  'one head': smallBundle({ heads: 1, layers: 2, seed: 12 }),
  'dqk 4, dv 12, 3 heads': smallBundle({ heads: 3, dqk: 4, dv: 12, seed: 13 }),
  'no time bias': smallBundle({ timeBias: false, seed: 14 }),
  'no position bias': smallBundle({ positionBias: false, seed: 15 }),
  'no bias at all': smallBundle({ timeBias: false, positionBias: false, seed: 16 }),
  'concatUa, dqk 12, dv 4': smallBundle({ concatUa: true, dqk: 12, dv: 4, seed: 17 }),
  'layernorm output, 4 heads': smallBundle({ outputNorm: 'layernorm', heads: 4, seed: 18 }),
  'no positions': smallBundle({ positions: 'none', seed: 19 }),
};

/** Models that only a full encode serves. */
export const REENCODED: Readonly<Record<string, Bundle>> = {
  'positions from the end': smallBundle({ positions: 'from-end', seed: 21 }),
  bidirectional: smallBundle({ attention: 'bidirectional', seed: 22 }),
};
