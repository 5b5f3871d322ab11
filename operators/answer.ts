/** Answers requests for candidates beside the stream of actions, which a long list must not hold up. */
import { map, mergeMap, Observable, type OperatorFunction, Subject, takeUntil } from 'rxjs';
import type { ScoredUnit } from '../schemas/batch.ts';
import { type AnswerRequestsOptions, answerRequests } from './answer-requests.ts';
import { requireInteger } from './require-option.ts';

export interface AnswerOptions extends AnswerRequestsOptions {
  /** Batches of requests being answered at once. @default 4 */
  readonly maxInFlight?: number;
}

/** A unit in its partition's line: it may leave when it is done and all before it have left. */
interface Waiting {
  unit: ScoredUnit;
  done: boolean;
}

/**
 * Answers the requests of units that carry some; lets all others by.
 *
 * - **in** `ScoredUnit[]` · **out** `ScoredUnit[]`, the same units, cut differently where requests are among them
 * - **order** units of one partition number leave in order of arrival, so that an answer is committed after the actions it
 *   was made of; units of different partitions do not wait for each other
 * - **fair** one call at a time a batch, of at most `maxCandidates` candidates: other work of the encoder comes between
 * - **deadline** a request whose deadline has passed when its batch's turn comes is not scored, nor a batch whose last deadline
 *   passes while it waits for the encoder
 * - **retry, error** as for `encode`
 * - **memory** units that wait for an earlier one: bounded by what the source lets in
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a bound out of range.
 * @example scored$.pipe(answer({ encoder, heads, vocabularySize, entityOf, now: Date.now }))
 */
export function answer(options: AnswerOptions): OperatorFunction<readonly ScoredUnit[], readonly ScoredUnit[]> {
  const maxInFlight = requireInteger('maxInFlight', options.maxInFlight ?? 4, 1);
  requireInteger('maxCandidates', options.maxCandidates ?? 1, 1);
  requireInteger('retrieve', options.retrieve ?? 1, 1);
  return (units$) =>
    new Observable((subscriber) => {
      /** By partition number; no line where nobody waits. */
      const lines = new Map<number, Waiting[]>();
      const asked$ = new Subject<Waiting>();
      subscriber.add(
        asked$
          .pipe(
            mergeMap(
              (waiting) =>
                answerRequests(waiting.unit.batch.requests!, options, waiting.unit.batch.source.partition).pipe(
                  map((answers) => {
                    waiting.unit = { ...waiting.unit, answers };
                    waiting.done = true;
                    return waiting.unit.batch.source.partition;
                  }),
                ),
              maxInFlight,
            ),
          )
          .subscribe({
            next: (partition) => {
              const line = lines.get(partition)!;
              const undone = line.findIndex(({ done }) => !done);
              const ready = line.splice(0, undone < 0 ? line.length : undone);
              if (line.length === 0) lines.delete(partition);
              if (ready.length > 0) subscriber.next(ready.map(({ unit }) => unit));
            },
            error: (error) => subscriber.error(error),
            complete: () => subscriber.complete(),
          }),
      );

      const take = (units: readonly ScoredUnit[]) => {
        const free: ScoredUnit[] = [];
        const asked: Waiting[] = [];
        for (const unit of units) {
          const { requests, source } = unit.batch;
          const line = lines.get(source.partition);
          if (requests === undefined && line === undefined) {
            free.push(unit);
            continue;
          }
          const waiting = { unit, done: requests === undefined };
          if (line === undefined) lines.set(source.partition, [waiting]);
          else line.push(waiting);
          if (requests !== undefined) asked.push(waiting);
        }
        if (free.length > 0) subscriber.next(free);
        for (const waiting of asked) asked$.next(waiting);
      };
      // A source that emits while it is being subscribed to must be stopped before `subscribe` has returned.
      const closed$ = new Subject<void>();
      subscriber.add(() => closed$.next());
      subscriber.add(
        units$.pipe(takeUntil(closed$)).subscribe({
          next: take,
          error: (error) => subscriber.error(error),
          complete: () => asked$.complete(),
        }),
      );
    });
}
