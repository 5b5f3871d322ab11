/** The shadow check: published embeddings against a full encode of the same users' windows, which must agree. */

import type { Bundle } from '../models/hstu/bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { SequenceStore } from '../operators/index.ts';
import type { Config } from '../schemas/config.ts';

/** Largest deviation the system promises, absolute, float32. */
export const SHADOW_TOLERANCE = 1e-4;
/** The same where K and V are held in 16 bits (measured: below 1e-3; decision 001). */
const TOLERANCE_16_BITS = 5e-3;

/** What a check allows in place of its own tolerance; undefined where K and V are held as computed. */
export const toleranceOf16Bits = ({ encoder: { kvPrecision } }: Config): number | undefined =>
  kvPrecision === 'bfloat16' ? TOLERANCE_16_BITS : undefined;

export interface ShadowCheck {
  readonly users: number;
  /** Largest |published − full encode| over all users and dimensions; NaN when no user was compared. */
  readonly maxDelta: number;
  readonly worstUser: string | undefined;
  /** Users whose published embedding was made of other events than they have now. */
  readonly digestMismatches: number;
}

export interface Published {
  readonly embedding: Float32Array;
  readonly sequenceDigest: string;
  readonly queryTimeMs: number;
}

/** Encodes every user's window from nothing, by an engine of its own, and compares. */
export async function shadowCheck(
  bundle: Bundle,
  store: SequenceStore,
  published: ReadonlyMap<string, Published>,
): Promise<ShadowCheck> {
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  let maxDelta = published.size === 0 ? Number.NaN : 0;
  let worstUser: string | undefined;
  let digestMismatches = 0;
  for (const [userId, { embedding, sequenceDigest, queryTimeMs }] of published) {
    const sequence = store.get(userId);
    if (sequence === undefined || sequence.digest !== sequenceDigest) {
      digestMismatches += 1;
      continue;
    }
    const window = sequence.snapshot();
    const segment = { ...window, from: window.entities.length - 1, queryTimeS: Math.floor(queryTimeMs / 1000) };
    const [full] = await engine.encode([{ userId, segments: [segment] }]);
    const rows = full!.segments[0]!.rows;
    for (let d = 0; d < rows.length; d++) {
      const delta = Math.abs(rows[d]! - embedding[d]!);
      if (delta > maxDelta || Number.isNaN(delta)) {
        maxDelta = delta;
        worstUser = userId;
      }
    }
  }
  await engine.release();
  return { users: published.size, maxDelta, worstUser, digestMismatches };
}
