import { defer, first, from, map, mergeMap, type ObservableInput, type OperatorFunction } from 'rxjs';

/**
 * `mergeMap` whose results leave in the order of their inputs.
 *
 * - **in** `T` · **out** `R`, the first value of each `project(value)`, in input order; a projection that gives none is an error
 * - **concurrency** projections are started in input order, at most `maxInFlight` at once
 * - **memory** inputs that wait for a slot, and results that wait for an earlier one: bounded by what the source lets in
 * - **complete** after the last result · **error** at once, of the source or of any projection
 */
export function mapInOrder<T, R>(project: (value: T) => ObservableInput<R>, maxInFlight: number): OperatorFunction<T, R> {
  return (values$) =>
    defer(() => {
      const early = new Map<number, R>();
      let next = 0;
      return values$.pipe(
        mergeMap(
          (value, index) =>
            from(project(value)).pipe(
              first(),
              map((result) => ({ index, result })),
            ),
          maxInFlight,
        ),
        mergeMap(({ index, result }) => {
          early.set(index, result);
          const ready: R[] = [];
          for (; early.has(next); next++) {
            ready.push(early.get(next)!);
            early.delete(next);
          }
          return ready;
        }),
      );
    });
}
