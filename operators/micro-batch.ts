import {
  asapScheduler,
  asyncScheduler,
  Observable,
  type OperatorFunction,
  type SchedulerLike,
  Subject,
  type Subscription,
  takeUntil,
} from 'rxjs';
import { requireDuration, requireInteger } from './require-option.ts';

export interface MicroBatchOptions {
  /** Close the batch at this many rows: the model's largest batch dimension `B`. */
  readonly maxRows: number;
  /** Close a part-filled batch this long after its first row, ms; 0: as soon as what is under way has been done. @default 5 */
  readonly maxDelayMs?: number;
  /** Clock; tests pass the TestScheduler. @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/**
 * Groups rows into batches for one run of the model: whichever comes first of `maxRows` or `maxDelayMs`.
 *
 * Unlike `bufferTime`, the timer starts at the first row, so an idle stream emits nothing (never `[]`).
 *
 * - **in** `T` one row · **out** `T[]`, `1 ≤ length ≤ maxRows`, arrival order kept, no row lost or repeated
 * - **latency** adds at most `maxDelayMs` to any row · **memory** holds fewer than `maxRows` rows
 * - **complete** flushes the open batch first · **error** drops it (its offsets stay uncommitted)
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, unless `maxRows` is a positive integer and `maxDelayMs` ≥ 0.
 * @example rows$.pipe(microBatch({ maxRows: 32, maxDelayMs: 5 }))
 */
export function microBatch<T>(options: MicroBatchOptions): OperatorFunction<T, T[]> {
  const maxRows = requireInteger('maxRows', options.maxRows, 1);
  const maxDelayMs = requireDuration('maxDelayMs', options.maxDelayMs ?? 5);
  // A timer of 0 ms is one of at least 1.
  const scheduler = options.scheduler ?? (maxDelayMs === 0 ? asapScheduler : asyncScheduler);

  return (rows$) =>
    new Observable((subscriber) => {
      let open: T[] = [];
      let timer: Subscription | undefined;

      const flush = () => {
        timer?.unsubscribe();
        timer = undefined;
        if (open.length === 0) return;
        // Replaced before it is emitted: the receiver may push the next row from within `next`.
        const full = open;
        open = [];
        subscriber.next(full);
      };

      subscriber.add(() => timer?.unsubscribe());
      // A source that emits while it is being subscribed to must be stopped before `subscribe` has returned.
      const closed$ = new Subject<void>();
      subscriber.add(() => closed$.next());
      subscriber.add(
        rows$.pipe(takeUntil(closed$)).subscribe({
          next: (row) => {
            open.push(row);
            if (open.length >= maxRows) flush();
            else if (open.length === 1) timer = scheduler.schedule(flush, maxDelayMs);
          },
          error: (error) => subscriber.error(error),
          complete: () => {
            flush();
            subscriber.complete();
          },
        }),
      );
    });
}
