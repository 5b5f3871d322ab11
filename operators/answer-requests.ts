/** The answers to a batch of requests: retrieved where nothing is named, judged by the model's heads, best first. */
import { catchError, concatMap, defer, map, type Observable, of } from 'rxjs';
import type { RequestAnswer, SequencedRequest } from '../schemas/batch.ts';
import { type CallTerms, isAllowed, type ScoreRequest } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import type { CandidateScoresOfList } from './candidate-calls.ts';
import { scoreWithin } from './capped-lists.ts';
import { bestWithin, type Caps, placesWithin, scaledCaps } from './caps.ts';
import type { Encoder } from './encode.ts';
import { bestFirst, type CandidateScorer, inTurn, type JudgeOptions, judgeLists, pickTasks, send } from './judge-lists.ts';
import { type OwnHistory, ownRows, withOwn } from './own-history.ts';
import type { Scorer } from './score.ts';

/** What the model can do. */
export interface ModelHeads {
  /** Its newest row compares with the catalogue by dot product. */
  readonly retrieval: boolean;
  /** It has task heads that judge candidates. */
  readonly ranking: boolean;
}

/** How popular the entities are. */
export interface PopularityOrder {
  /** Of an embedding row, the more popular the higher; 0 for one out of the vocabulary. */
  valueOf(row: number): number;
  /** All rows, the most popular first. */
  order(): Int32Array;
}

export interface AnswerRequestsOptions extends JudgeOptions {
  readonly encoder: Encoder & Scorer & CandidateScorer;
  readonly heads: ModelHeads;
  /** Entities of the catalogue: embedding rows 1 to this. */
  readonly vocabularySize: number;
  /** What a user of whom nothing is known is given. @default nothing is popular: the vocabulary's order, and scores of 0 */
  readonly popularity?: PopularityOrder | undefined;
  /** What of one kind a list of the catalogue's best may hold at most. @default any */
  readonly caps?: Caps | undefined;
  /** Entities of the user's own that are judged beside what was retrieved. @default none */
  readonly ownHistory?: OwnHistory | undefined;
  /** External id of an embedding row. */
  readonly entityOf: (row: number) => string;
  /** Retrieved before ranking, for the catalogue's best. @default 5 × the request's `topK` */
  readonly retrieve?: number | undefined;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/** Entities to order, and their dot products where those were taken. */
interface Found {
  readonly rows: Int32Array;
  readonly scores?: Float32Array;
}

/** Users a call of the encoder. */
const MAX_USERS = 64;
/** Of a catalogue that cannot be retrieved from, so many rows are judged. */
const MAX_UNRETRIEVED = 10_000;

const isCatalogue = ({ request }: SequencedRequest): boolean => request.entities.length === 0 && request.topK !== undefined;
const hasHistory = ({ window }: SequencedRequest): boolean => window.entities.length > 0;

/** With on what terms the encoder is asked. */
type AskOptions = AnswerRequestsOptions & { readonly terms: CallTerms };

/**
 * One answer a request, in their order. One call at a time, so that other work of the encoder comes between them; each call before
 * the updates that wait, and none after the last of the deadlines.
 *
 * @param key the partition number. @default 0
 */
export function answerRequests(
  requests: readonly SequencedRequest[],
  answerOptions: AnswerRequestsOptions,
  key = 0,
): Observable<readonly RequestAnswer[]> {
  const expired = (asked: SequencedRequest): RequestAnswer => ({ asked, disposition: 'expired', candidates: [] });
  return defer(() => {
    const nowMs = answerOptions.now();
    const open = requests.filter(
      ({ expired, request: { deadlineMs } }) => !expired && !(deadlineMs !== undefined && deadlineMs < nowMs),
    );
    const deadlineMs = Math.max(...open.map(({ request }) => request.deadlineMs ?? Number.POSITIVE_INFINITY));
    const options: AskOptions = { ...answerOptions, terms: { workClass: 'request', key, deadlineMs } };
    return find(open, options).pipe(
      concatMap((found) =>
        (options.heads.ranking ? judge(open, found, options) : of(found.map(() => undefined))).pipe(
          map((judged) => {
            const answers = new Map(open.map((asked, i) => [asked, answerOf(asked, found[i]!, judged[i], options)]));
            return requests.map((asked) => answers.get(asked) ?? expired(asked));
          }),
        ),
      ),
      catchError((error: unknown) => {
        if (error instanceof PipelineError && error.code === 'DEADLINE_PASSED') return of(requests.map(expired));
        throw error;
      }),
    );
  });
}

/** What is to be ordered, per request. */
function find(open: readonly SequencedRequest[], options: AskOptions): Observable<readonly Found[]> {
  const { heads } = options;
  const byEmbedding = open.filter(
    (asked) => hasHistory(asked) && (isCatalogue(asked) ? heads.retrieval : !heads.ranking && asked.candidates.length > 0),
  );
  return byDotProduct(byEmbedding, options).pipe(
    map((dotProducts) => {
      const known = new Map(byEmbedding.map((asked, i) => [asked, dotProducts[i]!]));
      return open.map((asked) => {
        const found = known.get(asked) ?? { rows: isCatalogue(asked) ? catalogueOf(asked, options) : asked.candidates };
        if (heads.ranking) return isCatalogue(asked) ? { rows: withOwn(found.rows, ownOf(asked, options)) } : found;
        if (found.scores !== undefined) return found;
        // Without a history a dot product has nothing to go by.
        return { ...found, scores: Float32Array.from(found.rows, (row) => options.popularity?.valueOf(row) ?? 0) };
      });
    }),
  );
}

const NONE = new Int32Array(0);

const ownOf = ({ window, hidden, allowed }: SequencedRequest, { ownHistory }: AnswerRequestsOptions): Int32Array =>
  ownHistory === undefined ? NONE : ownRows(window, ownHistory, new Set(hidden), allowed);

/** The catalogue where there is nothing to retrieve by: the most popular first, else in its own order. */
function catalogueOf({ hidden, request, allowed }: SequencedRequest, options: AnswerRequestsOptions): Int32Array {
  const { heads, popularity, vocabularySize } = options;
  const left = new Set(hidden);
  // Popularity stands in for the first stage of two; a model of one judges what it can.
  const wanted = popularity !== undefined && heads.retrieval ? retrievedFor(request.topK!, options) : MAX_UNRETRIEVED;
  const caps = capsOf(request.topK!, options);
  const most = caps === undefined ? wanted : Number.POSITIVE_INFINITY;
  const rows: number[] = [];
  for (const row of popularity?.order() ?? rowsUpTo(vocabularySize)) {
    if (rows.length >= most) break;
    if (!left.has(row) && (allowed === undefined || isAllowed(allowed, row))) rows.push(row);
  }
  return Int32Array.from(caps === undefined ? rows : placesWithin(rows, wanted, caps).map((place) => rows[place]!));
}

/** What a first stage keeps to, so that the second has as much of each kind to choose from as a list may hold. */
const capsOf = (topK: number, options: AnswerRequestsOptions): Caps | undefined =>
  options.heads.retrieval ? options.caps && scaledCaps(options.caps, retrievedFor(topK, options) / topK) : undefined;

/** How many are retrieved for the best `topK`. */
const retrievedFor = (topK: number, { heads, retrieve }: AnswerRequestsOptions): number =>
  heads.ranking ? Math.max(topK, retrieve ?? 5 * topK) : topK;

function* rowsUpTo(last: number): Generator<number> {
  for (let row = 1; row <= last; row++) yield row;
}

function byDotProduct(asked: readonly SequencedRequest[], options: AskOptions): Observable<readonly Found[]> {
  const { encoder } = options;
  const groups = Array.from({ length: Math.ceil(asked.length / MAX_USERS) }, (_, i) =>
    asked.slice(i * MAX_USERS, (i + 1) * MAX_USERS),
  );
  return inTurn(groups, (group) => {
    const encodes = group.map(({ request: { userId }, window }) => ({
      userId,
      segments: [{ ...window, from: window.entities.length - 1 }],
    }));
    return send(encodes, (all) => encoder.encode(all, options.terms), options).pipe(
      concatMap((encoded) => {
        const scores = group.map((one, i): ScoreRequest => {
          const { topK = 0 } = one.request;
          return {
            rows: encoded[i]!.segments[0]!.rows,
            targets: new Int32Array(1),
            seen: one.hidden,
            seenCount: Int32Array.of(one.hidden.length),
            topK: isCatalogue(one) ? retrievedFor(topK, options) : 0,
            ...(isCatalogue(one) ? { allowed: one.allowed } : { candidates: one.candidates }),
          };
        });
        const caps = options.caps && ((i: number) => capsOf(group[i]!.request.topK ?? 1, options));
        return send(scores, (all) => scoreWithin(encoder, all, options.terms, caps), options);
      }),
      map((results) =>
        results.map(({ topEntities, topScores, candidateScores }, i): Found => {
          const one = group[i]!;
          return isCatalogue(one) ? { rows: topEntities, scores: topScores } : { rows: one.candidates, scores: candidateScores! };
        }),
      ),
    );
  }).pipe(map((groupsFound) => groupsFound.flat()));
}

function judge(open: readonly SequencedRequest[], found: readonly Found[], options: AskOptions) {
  const lists = open.map(({ request: { userId }, window }, i) => ({ userId, segment: window, candidates: found[i]!.rows }));
  return judgeLists(lists, options.encoder, options);
}

function answerOf(
  asked: SequencedRequest,
  { rows, scores: dotProducts }: Found,
  judged: CandidateScoresOfList | undefined,
  { entityOf, caps }: AnswerRequestsOptions,
): RequestAnswer {
  const scores = judged?.combined ?? dotProducts ?? new Float32Array(0);
  const named = !isCatalogue(asked);
  const { topK } = asked.request;
  const best = named ? bestFirst(scores, topK) : bestWithin(rows, bestFirst(scores), topK!, caps);
  return {
    asked,
    disposition: hasHistory(asked) ? 'answered' : 'cold-start',
    candidates: best.map((i) => ({ entity: named ? asked.entities[i]! : entityOf(rows[i]!), score: scores[i]! })),
    ...(judged !== undefined && { tasks: pickTasks(judged.tasks, best) }),
  };
}
