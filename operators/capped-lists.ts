/** Lists within caps, exactly: longer ones are asked for until enough of them may stay. Plain functions, no RxJS. */
import type { CallTerms, ScoreRequest, ScoreResult } from '../schemas/encoding.ts';
import { type Caps, placesWithin } from './caps.ts';
import type { Scorer } from './score.ts';

/** So many times as long as what is wanted is asked for, and as often again while it is too short: few lists are of one value alone. */
const FACTOR = 4;

/**
 * One result a request, in their order; of `topK` entities where as many of the catalogue go within its caps.
 *
 * @param capsOf of the request at an index. @default none has any
 */
export function scoreWithin(
  scorer: Scorer,
  requests: readonly ScoreRequest[],
  terms: CallTerms | undefined,
  capsOf: ((request: number) => Caps | undefined) | undefined,
): Promise<readonly ScoreResult[]> {
  return capsOf === undefined ? scorer.score(requests, terms) : scoreUntilFilled(scorer, requests, terms, capsOf);
}

async function scoreUntilFilled(
  scorer: Scorer,
  requests: readonly ScoreRequest[],
  terms: CallTerms | undefined,
  capsOf: (request: number) => Caps | undefined,
): Promise<readonly ScoreResult[]> {
  const caps = requests.map(({ topK }, i) => (topK > 0 ? capsOf(i) : undefined));
  const first = requests.map((request, i) => (caps[i] === undefined ? request : longer(request, FACTOR)));
  const results = [...(await scorer.score(first, terms))];
  // What is not one result a request is the caller's to refuse.
  if (results.length !== requests.length) return results;
  let short = caps.flatMap((each, i) => (each === undefined ? [] : [i]));
  for (let factor = FACTOR; ; factor *= FACTOR) {
    short = short.filter((i) => {
      const { topEntities, topScores } = results[i]!;
      const { topK } = requests[i]!;
      const kept = placesWithin(topEntities, topK, caps[i]!);
      // A list that is shorter than was asked for is all there is.
      if (kept.length < topK && topEntities.length === topK * factor) return true;
      results[i] = {
        ...results[i]!,
        topEntities: Int32Array.from(kept, (place) => topEntities[place]!),
        topScores: Float32Array.from(kept, (place) => topScores[place]!),
      };
      return false;
    });
    if (short.length === 0) return results;
    const again = await scorer.score(
      short.map((i) => longer(listOf(requests[i]!), factor * FACTOR)),
      terms,
    );
    for (const [k, i] of short.entries()) {
      const { topEntities, topScores } = again[k]!;
      results[i] = { ...results[i]!, topEntities, topScores };
    }
  }
}

const longer = (request: ScoreRequest, factor: number): ScoreRequest => ({ ...request, topK: request.topK * factor });

/** A request for the list alone: ranks and scores were given before. */
function listOf({ rows, targets, seen, seenCount, topK, allowed }: ScoreRequest): ScoreRequest {
  const last = targets.length - 1;
  const width = rows.length / targets.length;
  const row = { rows: rows.subarray(last * width), targets: targets.subarray(last), seen, seenCount: seenCount.subarray(last) };
  return { ...row, topK, allowed };
}
