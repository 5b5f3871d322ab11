/** An embedding as it was stored, with what is needed to compute it again. */
import type { Lineage, UserEmbedding } from './output.ts';

export type StoredState = Pick<Lineage, 'sequenceDigest' | 'modelDigest'> & Pick<UserEmbedding, 'embedding' | 'queryTimeMs'>;
