/** Live: Kafka's partitions of this instance → the pipeline → Kafka, each batch committed as one. */
import { lastValueFrom, merge, type Observable, Subject, takeUntil, tap } from 'rxjs';
import type { OutputBatch } from '../schemas/batch.ts';
import type { PartitionTask } from './live/partition-task.ts';
import type { ModelSlot } from './model-change/model-slot.ts';
import { type PipelineParts, pipeline } from './pipeline.ts';

/** What of a pipeline comes with its model. */
export interface FlowParts {
  readonly pipeline: Omit<PipelineParts, 'store' | 'committer'>;
}

export interface FlowOptions {
  readonly tasks: ReadonlyMap<number, PartitionTask>;
  /** The model's place: the rest of the pipeline's parts, state and commits being the tasks'. */
  readonly parts: Pick<ModelSlot<FlowParts>, 'hold'>;
  /** When aborted, nothing more is read: the flow ends when what was read is committed. */
  readonly drain: AbortSignal;
  /** Ends the flow with the error it emits, whatever is under way. */
  readonly failure$: Observable<never>;
  /** Called for every committed batch. */
  readonly onCommitted: (batch: OutputBatch) => void;
}

/** Runs the partitions until drained: with one model until another takes its place, all that was read committed, then with that. */
export async function flow({ parts, drain, ...options }: FlowOptions): Promise<void> {
  do {
    const { model, replaced, letGo } = parts.hold();
    // Not AbortSignal.any: a signal that lives as long as the process would remember every model and catalogue.
    const ending = new AbortController();
    const end = () => ending.abort();
    for (const signal of [drain, replaced]) signal.addEventListener('abort', end, { once: true });
    if (drain.aborted || replaced.aborted) end();
    try {
      await flowWith(model, { ...options, drain: ending.signal });
    } finally {
      drain.removeEventListener('abort', end);
      letGo();
    }
  } while (!drain.aborted);
}

/** The sentence: every partition's batches, merged, through the pipeline, committed by their partition. */
async function flowWith(
  { pipeline: parts }: FlowParts,
  { tasks, drain, failure$, onCommitted }: Omit<FlowOptions, 'parts'>,
): Promise<void> {
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
