/** Second stage of two: the entities that were retrieved for an embedding are put in the order of the model's task heads. */
import { map, type OperatorFunction, of } from 'rxjs';
import type { ScoredUnit, ScoredUpdate } from '../schemas/batch.ts';
import type { CandidateRequest } from '../schemas/encoding.ts';
import type { CandidateScoresOfList } from './candidate-calls.ts';
import { bestWithin, type Caps } from './caps.ts';
import { bestFirst, type CandidateScorer, type JudgeOptions, judgeLists, pickTasks } from './judge-lists.ts';
import { mapInOrder } from './map-in-order.ts';
import { withOwn } from './own-history.ts';
import { requireInteger } from './require-option.ts';
import { termsOf } from './terms-of.ts';

export interface RankOptions extends JudgeOptions {
  readonly scorer: CandidateScorer;
  /** Entities to publish with every embedding, of those retrieved. @default 10 */
  readonly topK?: number;
  /** Entities of the window's own that are judged as well. @default none */
  readonly ownOf?: ((window: CandidateRequest['segment']) => Int32Array) | undefined;
  /** What of one kind a list may hold at most. @default any */
  readonly caps?: Caps | undefined;
  /** Micro-batches in the scorer at once. @default 4 */
  readonly maxInFlight?: number;
}

/**
 * Ranks what was retrieved for the embeddings of a micro-batch, and keeps the best.
 *
 * - **in** `ScoredUnit[]`, with the entities that `score` retrieved · **out** the same units in the same order, with the best
 *   `topK` of them, and of the user's own where they are judged too, by combined score, and what each task says; units of `null` pass through
 * - **exact** judged from the very window that the embedding is of, asked about the same time
 * - **retry, error** as for `encode`
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a bound out of range.
 * @example scored$.pipe(rank({ scorer, topK: 10 }))
 */
export function rank(options: RankOptions): OperatorFunction<readonly ScoredUnit[], readonly ScoredUnit[]> {
  const topK = requireInteger('topK', options.topK ?? 10, 0);
  const maxInFlight = requireInteger('maxInFlight', options.maxInFlight ?? 4, 1);
  requireInteger('maxCandidates', options.maxCandidates ?? 1, 1);
  return mapInOrder((units) => {
    const listsOfUnits = units.map(({ update }) => (update === null ? [] : retrievedLists(update, options)));
    const lists = listsOfUnits.flat();
    if (lists.length === 0) return of(units);
    return judgeLists(
      lists.map(({ list }) => list),
      options.scorer,
      { ...options, terms: termsOf(units) },
    ).pipe(
      map((judged) => {
        let next = 0;
        return units.map((unit, i) => {
          const own = listsOfUnits[i]!;
          const results = judged.slice(next, next + own.length);
          next += own.length;
          return unit.update === null ? unit : { ...unit, update: ranked(unit.update, own, results, topK, options.caps) };
        });
      }),
    );
  }, maxInFlight);
}

interface RetrievedList {
  readonly segment: number;
  readonly list: CandidateRequest;
}

function retrievedLists({ update: { userId, request, publish }, scores }: ScoredUpdate, { ownOf }: RankOptions): RetrievedList[] {
  return publish.flatMap(({ segment }) => {
    const window = request.segments[segment]!;
    const { topEntities } = scores[segment]!;
    const candidates = ownOf === undefined ? topEntities : withOwn(topEntities, ownOf(window));
    return candidates.length === 0 ? [] : [{ segment, list: { userId, segment: window, candidates } }];
  });
}

function ranked(
  update: ScoredUpdate,
  lists: readonly RetrievedList[],
  judged: readonly (CandidateScoresOfList | undefined)[],
  topK: number,
  caps: Caps | undefined,
): ScoredUpdate {
  const scores = [...update.scores];
  for (const [i, { segment, list }] of lists.entries()) {
    const { combined, tasks } = judged[i]!;
    const best = bestWithin(list.candidates, bestFirst(combined), topK, caps);
    scores[segment] = {
      ...scores[segment]!,
      topEntities: Int32Array.from(best, (at) => list.candidates[at]!),
      topScores: Float32Array.from(best, (at) => combined[at]!),
      tasks: pickTasks(tasks, best),
    };
  }
  return { ...update, scores };
}
