/** The cacheability lint: may rows of this model, once computed, be kept when the sequence grows? */
import type { BundleConfig } from '../../schemas/bundle-config.ts';

/**
 * - `exact`: every row is final as soon as it is computed.
 * - `provisional-tail`: a row's bias uses the time of the NEXT event, so the newest row stays open until that is known.
 * - `re-encode`: some rule fails; the model still runs, by a full encode each time.
 */
export type CacheVerdict = 'exact' | 'provisional-tail' | 're-encode';

export interface Cacheability {
  readonly verdict: CacheVerdict;
  /** One sentence for each rule that decided. */
  readonly reasons: readonly string[];
}

/** Judges a bundle by what its configuration declares. */
export function judgeCacheability(config: BundleConfig): Cacheability {
  const failures = [
    config.positions === 'from-end' && 'positions count from the end: every row moves when an event is appended',
    config.tokenTime === 'query-relative' &&
      'the time to the query enters the token input: every row changes with the query time',
    config.divisor === 'batch-max' && "the attention divisor is the batch's longest length: rows depend on their batch-mates",
    config.attention === 'bidirectional' && 'attention is not causal: older rows see newer events',
    config.normalization === 'batch' && 'normalisation is over the batch: rows depend on their batch-mates',
  ].filter((reason) => reason !== false);
  if (failures.length > 0) return { verdict: 're-encode', reasons: failures };
  if (config.timeBias)
    return {
      verdict: 'provisional-tail',
      reasons: ['the time bias of a row uses the next event: the newest row stays open until it is known'],
    };
  return { verdict: 'exact', reasons: ['no row depends on anything after it'] };
}
