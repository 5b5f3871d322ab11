import type { EntityVectors } from '../infra/clickhouse/entity-vectors.ts';
import type { Bundle } from '../models/hstu/bundle.ts';

/**
 * The catalogue's vectors as retrieval scores with them: `E[c] / max(||E[c]||, 1e-6)`, so that an entity's score is its dot
 * product with a published embedding.
 */
export function entityVectorsOf({ config, tensors, entities, digest }: Bundle): EntityVectors {
  const { dimension: D } = config;
  const table = tensors.get('entity_embedding')!.data;
  // Row 0 of the table is no entity's.
  const vectors = new Float32Array(entities.length * D);
  for (let i = 0; i < entities.length; i++) {
    const row = table.subarray((i + 1) * D, (i + 2) * D);
    const scale = 1 / Math.max(Math.hypot(...row), 1e-6);
    for (let d = 0; d < D; d++) vectors[i * D + d] = row[d]! * scale;
  }
  return { modelDigest: digest, entities, vectors, dimension: D };
}
