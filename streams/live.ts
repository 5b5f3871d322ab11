/** Live: Kafka's partitions of this instance → the pipeline → Kafka, each batch committed as one. */
import { lastValueFrom, merge, type Observable, Subject, takeUntil, tap } from 'rxjs';
import type { OutputBatch } from '../schemas/batch.ts';
import type { PartitionTask } from './live/partition-task.ts';
import { type PipelineParts, pipeline } from './pipeline.ts';

export interface FlowOptions {
  readonly tasks: ReadonlyMap<number, PartitionTask>;
  /** The rest of the pipeline's parts: state and commits are the tasks'. */
  readonly parts: Omit<PipelineParts, 'store' | 'committer'>;
  /** When aborted, nothing more is read: the flow ends when what was read is committed. */
  readonly drain: AbortSignal;
  /** Ends the flow with the error it emits, whatever is under way. */
  readonly failure$: Observable<never>;
  /** Called for every committed batch. */
  readonly onCommitted: (batch: OutputBatch) => void;
}

/** Runs the partitions until drained. The sentence: every partition's batches, merged, through the pipeline, committed by their partition. */
export async function flow({ tasks, parts, drain, failure$, onCommitted }: FlowOptions): Promise<void> {
  const taskOf = (partition: number): PartitionTask => tasks.get(partition)!;
  const drained$ = new Subject<void>();
  const idle$ = new Subject<never>();
  const onDrain = () => idle$.complete();
  if (drain.aborted) idle$.complete();
  else drain.addEventListener('abort', onDrain, { once: true });

  const batches$ = merge(...[...tasks.values()].map(({ source }) => source.batches(drain)), idle$);
  const committed$ = batches$.pipe(
    pipeline({
      ...parts,
      store: ({ partition }) => taskOf(partition).sequences,
      committer: { commit: (batch) => taskOf(batch.source.partition).commit(batch) },
    }),
    tap({ next: onCommitted, complete: () => drained$.next() }),
  );
  await lastValueFrom(merge(committed$, failure$.pipe(takeUntil(drained$))), { defaultValue: undefined });
}
