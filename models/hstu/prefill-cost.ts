/** What encoding a window from nothing costs, by its length. */
import type { BundleConfig } from '../../schemas/bundle-config.ts';

/**
 * Multiplications for `n` rows: a layer's projections to u, v, q, k and back to `D`, and its scores and sums over all pairs of rows
 * (the graph computes those that the causal mask hides, too).
 */
export function prefillCost({ layers, dimension: D, heads: H, dqk, dv }: BundleConfig): (rows: number) => number {
  const aRow = layers * D * H * (2 * dqk + 3 * dv);
  const aPair = layers * H * (dqk + dv);
  return (rows) => rows * aRow + rows * rows * aPair;
}
