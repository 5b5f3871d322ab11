/** Last step: the position moves, and the source is told that it may go on. */
import { defer, Observable, type OperatorFunction, Subject, type Subscription, takeUntil } from 'rxjs';
import type { OutputBatch } from '../schemas/batch.ts';

export interface Committer {
  /** Resolves when `batch.source.nextOffset` is what a restart of its partition begins at. */
  commit(batch: OutputBatch): Promise<void>;
}

export interface OrderedCommitOptions {
  readonly committer: Committer;
}

/**
 * Commits batches, acknowledges each to its source, and lets it on.
 *
 * - **in** `OutputBatch`, whose outputs are published · **out** the same, after its commit
 * - **order** within a partition one commit at a time, in order of arrival; partitions do not wait for each other
 * - **ack** once a batch, after its commit and before it is let on; never for a batch whose commit failed
 * - **memory** batches that wait for their partition's commit: bounded by what the source lets in
 * - **complete** after the last commit · **error** at once; commits under way are not waited for
 *
 * @example published$.pipe(orderedCommit({ committer }))
 */
export function orderedCommit({ committer }: OrderedCommitOptions): OperatorFunction<OutputBatch, OutputBatch> {
  return (batches$) =>
    new Observable((subscriber) => {
      /** By partition number, whatever the topic, since topics of one number share state and producer: the batch whose commit is under way, and those behind it. No entry where nothing is under way. */
      const partitions = new Map<number, OutputBatch[]>();
      let ended = false;

      const commitHead = (key: number, queue: OutputBatch[]): Subscription =>
        defer(() => committer.commit(queue[0]!)).subscribe({
          error: (error) => subscriber.error(error),
          complete: () => {
            const batch = queue.shift()!;
            try {
              batch.source.ack();
            } catch (error) {
              subscriber.error(error);
              return;
            }
            subscriber.next(batch);
            if (subscriber.closed) return;
            if (queue.length > 0) subscriber.add(commitHead(key, queue));
            else partitions.delete(key);
            if (ended && partitions.size === 0) subscriber.complete();
          },
        });

      // A source that emits while it is being subscribed to must be stopped before `subscribe` has returned.
      const closed$ = new Subject<void>();
      subscriber.add(() => closed$.next());
      subscriber.add(
        batches$.pipe(takeUntil(closed$)).subscribe({
          next: (batch) => {
            const key = batch.source.partition;
            const waiting = partitions.get(key);
            if (waiting !== undefined) {
              waiting.push(batch);
              return;
            }
            const queue = [batch];
            partitions.set(key, queue);
            subscriber.add(commitHead(key, queue));
          },
          error: (error) => subscriber.error(error),
          complete: () => {
            ended = true;
            if (partitions.size === 0) subscriber.complete();
          },
        }),
      );
    });
}
