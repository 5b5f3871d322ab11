/** Ranks what users did against what was expected of them, and picks the best entities for every embedding to publish. */
import { defer, map, type OperatorFunction, of } from 'rxjs';
import type { EncodedUnit, EncodedUpdate, ScoredUnit } from '../schemas/batch.ts';
import type { AllowedRows, CallTerms, ScoreRequest, ScoreResult } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import { scoreWithin } from './capped-lists.ts';
import type { Caps } from './caps.ts';
import type { HiddenOf } from './hidden-events.ts';
import { mapInOrder } from './map-in-order.ts';
import { requireInteger } from './require-option.ts';
import { type RetryOptions, retryRetriable } from './retry-retriable.ts';
import { type ScorePart, scoreParts } from './score-parts.ts';
import { termsOf } from './terms-of.ts';

export interface Scorer {
  /** One result a request, in the order of the requests. */
  score(requests: readonly ScoreRequest[], terms?: CallTerms): Promise<readonly ScoreResult[]>;
}

export interface ScoreOptions extends RetryOptions {
  readonly scorer: Scorer;
  /** Entities to publish with every embedding; 0 for none. @default 10 */
  readonly topK?: number;
  /** Leave out of the published entities what the user has seen, or what of it the function says. Ranks always leave out all. @default true */
  readonly seenFilter?: boolean | HiddenOf;
  /** Entities that may be published. Ranks go by all. @default all that are offered */
  readonly allowed?: AllowedRows | undefined;
  /** What of one kind a published list may hold at most. @default any */
  readonly caps?: Caps | undefined;
  /** The model's rows compare with the catalogue. Where they do not, nothing is ranked and no entities are published. @default true */
  readonly retrieves?: boolean;
  /** Micro-batches in the scorer at once. @default 4 */
  readonly maxInFlight?: number;
}

/**
 * Scores every wanted row of a micro-batch in one call.
 *
 * - **in** `EncodedUnit[]` · **out** `ScoredUnit[]`, the same units in the same order; units of `null` pass through
 * - **shape** `scores[k]` belongs to `segments[k]`: `ranks` `(R,)` for its rows, 0 where none was asked; candidates for its
 *   last row where it is published. A segment of which nothing was asked is not sent
 * - **retry, error** as for `encode`
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a bound out of range.
 * @example encoded$.pipe(score({ scorer, topK: 10 }))
 */
export function score(options: ScoreOptions): OperatorFunction<readonly EncodedUnit[], readonly ScoredUnit[]> {
  const { scorer, seenFilter = true, retrieves = true, allowed, caps } = options;
  const topK = requireInteger('topK', options.topK ?? 10, 0);
  const maxInFlight = requireInteger('maxInFlight', options.maxInFlight ?? 4, 1);
  const retried = retryRetriable<readonly ScoreResult[]>(options);

  return mapInOrder((units) => {
    const partsOfUnits = units.map(({ update }) =>
      update === null || !retrieves ? [] : scoreParts(update, topK, seenFilter, allowed),
    );
    const requests = partsOfUnits.flatMap((parts) => parts.map(({ request }) => request));
    const results$ =
      requests.length === 0
        ? of([])
        : defer(() => scoreWithin(scorer, requests, termsOf(units), caps && (() => caps))).pipe(retried);
    return results$.pipe(
      map((results) => {
        const matches =
          results.length === requests.length && results.every((result, i) => result.ranks.length === requests[i]!.targets.length);
        if (!matches)
          throw new PipelineError(
            'ENCODER_FAILED',
            `the scorer's ${results.length} results are not those of its ${requests.length} requests`,
          );
        let next = 0;
        return units.map(({ batch, update }, i) => {
          const parts = partsOfUnits[i]!;
          const scored = results.slice(next, next + parts.length);
          next += parts.length;
          return { batch, update: update === null ? null : { ...update, scores: joinParts(update, parts, scored) } };
        });
      }),
    );
  }, maxInFlight);
}

/** One result a segment. */
function joinParts({ update }: EncodedUpdate, parts: readonly ScorePart[], results: readonly ScoreResult[]): ScoreResult[] {
  const scores = update.request.segments.map(
    ({ entities, from }): ScoreResult => ({
      ranks: new Int32Array(entities.length - from),
      topEntities: new Int32Array(0),
      topScores: new Float32Array(0),
    }),
  );
  parts.forEach(({ segment, firstRow }, i) => {
    const { ranks } = scores[segment]!;
    // A list that is asked for by itself ranks nothing.
    for (const [row, rank] of results[i]!.ranks.entries()) if (rank !== 0) ranks[firstRow + row] = rank;
    // Only a segment's last part is asked for candidates, so the last result is the one to keep.
    scores[segment] = { ...results[i]!, ranks };
  });
  return scores;
}
