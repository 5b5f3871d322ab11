/** A bundle with seeded random weights, for tests, benchmarks and capacity trials: right in shape, large enough that errors show. */
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { type Bundle, makeBundle } from './bundle.ts';
import { expectedTensors } from './expected-tensors.ts';
import { sizeOf, type Tensor } from './safetensors.ts';
import { timeBucketThresholds } from './time-buckets.ts';

export interface RandomBundleOptions extends Partial<Omit<BundleConfig, 'dimension' | 'layers' | 'heads' | 'maxSequenceLength'>> {
  readonly dimension: number;
  readonly layers: number;
  readonly heads: number;
  readonly maxSequenceLength: number;
  /** @default 1 */
  readonly seed?: number;
}

export function randomBundle({ seed = 1, ...options }: RandomBundleOptions): Bundle {
  const { dimension: D, heads: H, maxSequenceLength: n } = options;
  const config: BundleConfig = {
    format: 'hstu-bundle/1',
    name: `random-d${D}-l${options.layers}-n${n}`,
    architecture: 'hstu-research',
    dqk: Math.max(1, Math.floor(D / H)),
    dv: Math.max(1, Math.floor(D / H)),
    vocabularySize: 1000,
    paddedLength: n + 11,
    positions: 'from-start',
    tokenTime: 'none',
    divisor: 'constant',
    normalization: 'per-token',
    attention: 'causal',
    timeBias: true,
    positionBias: true,
    concatUa: false,
    outputNorm: 'l2',
    timeBucketThresholds: timeBucketThresholds(),
    window: { maxLength: n, blockLength: Math.max(1, Math.floor(n / 4)) },
    actions: { encoded: ['view'], skipped: ['tag'] },
    unknownEntity: 'dead-letter',
    ...options,
  };
  const random = seededNormal(seed);
  const tensors = new Map<string, Tensor>();
  for (const [name, shape] of expectedTensors(config)) {
    const scale = name.endsWith('bias')
      ? 0.5
      : name.endsWith('norm_weight')
        ? 0.2
        : isProjection(name)
          ? 2 / Math.sqrt(shape[0]!)
          : 0.3;
    const middle = name.endsWith('norm_weight') ? 1 : 0;
    const data = Float32Array.from({ length: sizeOf(shape) }, () => middle + scale * random());
    if (name === 'entity_embedding') data.fill(0, 0, D);
    tensors.set(name, { shape, data });
  }
  return makeBundle({ config, tensors, entities: Array.from({ length: config.vocabularySize }, (_, i) => `item:${i + 1}`) });
}

const isProjection = (name: string): boolean => name.startsWith('layers.') || name.startsWith('ranking.');

/** Standard normal numbers by Box and Muller over a 32-bit generator (Mulberry32, public domain). */
function seededNormal(seed: number): () => number {
  let state = seed | 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
