import { mergeMap, type OperatorFunction } from 'rxjs';
import type { SequencedBatch, UpdateUnit } from '../schemas/batch.ts';

/**
 * Spreads a batch into its users' updates, so that micro-batches are cut by the encoder's measure and not by the source's.
 *
 * - **in** `SequencedBatch` · **out** `UpdateUnit`, one an update, in order; one of `null` for a batch without updates
 * - **state** none; `gather` is the inverse
 *
 * @example sequenced$.pipe(spread(), microBatch({ maxRows: 64 }))
 */
export function spread(): OperatorFunction<SequencedBatch, UpdateUnit> {
  return mergeMap((batch): UpdateUnit[] =>
    batch.updates.length === 0 ? [{ batch, update: null }] : batch.updates.map((update) => ({ batch, update })),
  );
}
