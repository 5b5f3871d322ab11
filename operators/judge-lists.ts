/** Candidate lists through the model's task heads: in calls of bounded size, one after another, so that other work comes between. */
import { concatMap, defer, from, map, type Observable, toArray } from 'rxjs';
import type { CallTerms, CandidateRequest, CandidateResult } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import { type CandidateScoresOfList, candidateCalls, joinCalls } from './candidate-calls.ts';
import { type RetryOptions, retryRetriable } from './retry-retriable.ts';

export interface CandidateScorer {
  /** One result a request, in the order of the requests; each result in the order of its candidates. */
  scoreCandidates(requests: readonly CandidateRequest[], terms?: CallTerms): Promise<readonly CandidateResult[]>;
}

export interface JudgeOptions extends RetryOptions {
  /** Candidates a call: how long one list may hold a worker. @default 512 */
  readonly maxCandidates?: number;
}

/** One result a list, candidates in the order of the list; undefined for a list without candidates. */
export function judgeLists(
  lists: readonly CandidateRequest[],
  scorer: CandidateScorer,
  options: JudgeOptions & { readonly terms: CallTerms },
): Observable<readonly (CandidateScoresOfList | undefined)[]> {
  const calls = candidateCalls(lists, options.maxCandidates ?? 512);
  return inTurn(calls, ({ requests }) => send(requests, (all) => scorer.scoreCandidates(all, options.terms), options)).pipe(
    map((results) => joinCalls(lists, calls, results)),
  );
}

/** Indices of the best `topK` scores, best first, ties in their order. */
export const bestFirst = (scores: Float32Array, topK?: number): number[] =>
  Array.from(scores, (_, i) => i)
    .sort((a, b) => scores[b]! - scores[a]! || a - b)
    .slice(0, topK);

/** The values of all tasks at these indices. */
export const pickTasks = (
  tasks: CandidateScoresOfList['tasks'],
  indices: readonly number[],
): Readonly<Record<string, Float32Array>> =>
  Object.fromEntries(Object.entries(tasks).map(([task, values]) => [task, Float32Array.from(indices, (i) => values[i]!)]));

/** One after another; all results. */
export const inTurn = <T, R>(items: readonly T[], project: (item: T) => Observable<R>): Observable<R[]> =>
  from(items).pipe(concatMap(project), toArray());

/** A call, made again where that can help, with as many results as it had requests. */
export function send<Q, R>(
  requests: readonly Q[],
  call: (requests: readonly Q[]) => Promise<readonly R[]>,
  options: RetryOptions,
): Observable<readonly R[]> {
  return defer(() => call(requests)).pipe(
    retryRetriable(options),
    map((results) => {
      if (results.length === requests.length) return results;
      throw new PipelineError('ENCODER_FAILED', `${results.length} results for ${requests.length} requests for candidates`);
    }),
  );
}
