/** Cuts candidate lists into calls of bounded size, and puts the results together again. Plain functions, no RxJS. */
import type { CandidateRequest, CandidateResult } from '../schemas/encoding.ts';

export interface CandidateCall {
  readonly requests: readonly CandidateRequest[];
  /** Which list each request is a part of. */
  readonly lists: readonly number[];
}

/** What is judged of one list. */
export type CandidateScoresOfList = Pick<CandidateResult, 'tasks' | 'combined'>;

/**
 * Calls of at most `maxCandidates` candidates each, lists in order. A long list takes several calls, so that others come
 * between them; short ones share one.
 */
export function candidateCalls(lists: readonly CandidateRequest[], maxCandidates: number): CandidateCall[] {
  const calls: { requests: CandidateRequest[]; lists: number[] }[] = [];
  let room = 0;
  for (const [list, request] of lists.entries())
    for (let start = 0; start < request.candidates.length; ) {
      if (room === 0) {
        calls.push({ requests: [], lists: [] });
        room = maxCandidates;
      }
      const candidates = request.candidates.subarray(start, start + room);
      const call = calls.at(-1)!;
      call.requests.push({ ...request, candidates });
      call.lists.push(list);
      start += candidates.length;
      room -= candidates.length;
    }
  return calls;
}

/** One result a list, candidates in the order of the list; undefined for a list without candidates. */
export function joinCalls(
  lists: readonly CandidateRequest[],
  calls: readonly CandidateCall[],
  results: readonly (readonly CandidateResult[])[],
): (CandidateScoresOfList | undefined)[] {
  const joined = lists.map(() => undefined as CandidateScoresOfList | undefined);
  const filled = lists.map(() => 0);
  for (const [c, call] of calls.entries())
    for (const [r, list] of call.lists.entries()) {
      const { combined, tasks } = results[c]![r]!;
      const length = lists[list]!.candidates.length;
      const into = joined[list] ?? {
        combined: new Float32Array(length),
        tasks: Object.fromEntries(Object.keys(tasks).map((task) => [task, new Float32Array(length)])),
      };
      joined[list] = into;
      into.combined.set(combined, filled[list]);
      for (const [task, probabilities] of Object.entries(tasks)) into.tasks[task]!.set(probabilities, filled[list]);
      filled[list]! += combined.length;
    }
  return joined;
}
