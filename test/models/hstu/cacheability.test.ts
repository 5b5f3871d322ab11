import { describe, expect, it } from 'vitest';
import { judgeCacheability } from '../../../models/hstu/cacheability.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';

const { config } = randomBundle({ dimension: 2, layers: 1, heads: 1, maxSequenceLength: 4, vocabularySize: 2 });
const judge = (change: Partial<BundleConfig>) => judgeCacheability({ ...config, ...change });

describe('judgeCacheability', () => {
  it.each<[Partial<BundleConfig>, string, string]>([
    [{}, 'provisional-tail', 'uses the next event'],
    [{ timeBias: false }, 'exact', 'no row depends on anything after it'],
    [{ timeBias: false, positionBias: false }, 'exact', 'no row depends'],
    [{ positions: 'none' }, 'provisional-tail', 'uses the next event'],
    [{ positions: 'none', timeBias: false }, 'exact', 'no row depends'],
    [{ outputNorm: 'layernorm', concatUa: true }, 'provisional-tail', 'uses the next event'],
    [{ positions: 'from-end' }, 're-encode', 'positions count from the end'],
    [{ tokenTime: 'query-relative' }, 're-encode', 'time to the query enters the token input'],
    [{ divisor: 'batch-max' }, 're-encode', "divisor is the batch's longest length"],
    [{ attention: 'bidirectional' }, 're-encode', 'attention is not causal'],
    [{ normalization: 'batch' }, 're-encode', 'normalisation is over the batch'],
    [{ positions: 'from-end', timeBias: false }, 're-encode', 'positions count from the end'],
  ])('%o → %s', (change, verdict, reason) => {
    const { verdict: actual, reasons } = judge(change);
    expect(actual).toBe(verdict);
    expect(reasons).toEqual([expect.stringContaining(reason)]);
  });

  it('gives one reason for each rule that fails', () => {
    const all = judge({
      positions: 'from-end',
      tokenTime: 'query-relative',
      divisor: 'batch-max',
      attention: 'bidirectional',
      normalization: 'batch',
    });
    expect(all.verdict).toBe('re-encode');
    expect(all.reasons).toHaveLength(5);
  });
});
