import { defer, mergeMap, type OperatorFunction } from 'rxjs';
import type { RequestAnswer, ScoredBatch, ScoredUnit, ScoredUpdate, SequencedBatch } from '../schemas/batch.ts';

/** A batch some of whose units have come back. */
interface OpenBatch {
  readonly updates: ScoredUpdate[];
  answers?: readonly RequestAnswer[];
  /** Units still to come. */
  missing: number;
}

/**
 * Puts the units of every batch together again: the inverse of `spread`.
 *
 * - **in** `ScoredUnit[]`, units of many batches mixed · **out** `ScoredBatch`, when its last unit has come, its updates in unit order
 * - **order** batches of one partition leave in the order of their first units; a batch waits for the ones before it
 * - **memory** batches of which units are missing: bounded by what the source lets in
 * - **complete** drops batches that are not whole (their offsets stay uncommitted)
 *
 * @example scored$.pipe(gather())
 */
export function gather(): OperatorFunction<readonly ScoredUnit[], ScoredBatch> {
  return (units$) =>
    defer(() => {
      /** By partition number, whatever the topic, since topics of one number share their users' state: its open batches, in order of arrival. */
      const partitions = new Map<number, Map<SequencedBatch, OpenBatch>>();

      const take = ({ batch, update, answers }: ScoredUnit): ScoredBatch[] => {
        const key = batch.source.partition;
        const open = partitions.get(key) ?? new Map<SequencedBatch, OpenBatch>();
        partitions.set(key, open);
        const entry: OpenBatch = open.get(batch) ?? { updates: [], missing: Math.max(1, batch.updates.length) };
        open.set(batch, entry);
        entry.missing--;
        if (update !== null) entry.updates.push(update);
        if (answers !== undefined) entry.answers = answers;

        const whole: ScoredBatch[] = [];
        for (const [head, { updates, answers: answered, missing }] of open) {
          if (missing > 0) break;
          open.delete(head);
          whole.push({ batch: head, updates, ...(answered !== undefined && { answers: answered }) });
        }
        if (open.size === 0) partitions.delete(key);
        return whole;
      };

      return units$.pipe(mergeMap((units) => units.flatMap(take)));
    });
}
