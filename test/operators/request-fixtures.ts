/** Requests for candidates, and a stand-in for a model that judges them. */

import type { Encoder } from '../../operators/encode.ts';
import type { CandidateScorer } from '../../operators/judge-lists.ts';
import type { Scorer } from '../../operators/score.ts';
import type { CandidateVocabulary } from '../../operators/sequence-requests.ts';
import type { PositionedRequest } from '../../schemas/avro/requests.ts';
import type { ScoredUnit, SequencedBatch, SequencedRequest } from '../../schemas/batch.ts';
import type { CandidateRequest, CandidateResult, ScoreRequest, ScoreResult } from '../../schemas/encoding.ts';
import { digestTokens } from '../../schemas/sequence-digest.ts';
import { fakeResult, segmentOf, sourceBatch } from './fixtures.ts';

/** Rows 1 … 20 are `movie:1` … `movie:20`; all others share rows 21 and 22. */
export const VOCABULARY_SIZE = 20;
export const vocabulary: CandidateVocabulary = {
  rowOf: (entity) => {
    const row = Number(entity.slice('movie:'.length));
    return row >= 1 && row <= VOCABULARY_SIZE ? row : VOCABULARY_SIZE + 1 + (entity.length % 2);
  },
  entityOf: (row) => (row <= VOCABULARY_SIZE ? `movie:${row}` : `row:${row}`),
};

export const requestOf = (request: Partial<PositionedRequest> & { readonly userId: string }, offset = 0): PositionedRequest => ({
  requestId: `r${offset}`,
  entities: [],
  queryTimeMs: 10_000,
  position: { topic: 'requests', partition: 0, offset },
  ...request,
});

/** A sequenced request over a window of these tokens. */
export const askedOf = (
  userId: string,
  tokens: readonly number[],
  request: Partial<PositionedRequest> = {},
): SequencedRequest => {
  const full = requestOf({ userId, ...request });
  const { from: _, ...window } = segmentOf(
    tokens.map((token, i) => [token, i + 1]),
    0,
    10,
  );
  return {
    request: full,
    expired: false,
    window,
    version: tokens.length,
    sequenceDigest: '0'.repeat(16),
    queryTimeMs: full.queryTimeMs,
    ...(tokens.length > 0 && { lastEventTimeMs: 1000 * tokens.length }),
    entities: full.entities,
    candidates: Int32Array.from(full.entities, (entity) => vocabulary.rowOf(entity)!),
    leftOut: [],
    hidden: new Int32Array(0),
  };
};

export const unitOf = (requests: readonly SequencedRequest[] | undefined, partition = 0, offset = 0): ScoredUnit => {
  const batch: SequencedBatch = {
    source: sourceBatch(offset, [], partition),
    processed: [],
    deadLetters: [],
    updates: [],
    ...(requests !== undefined && { requests }),
  };
  return { batch, update: null };
};

/** Depends on user, window, query time and candidate, and on nothing else: between 0 and 1. */
export const judgement = ({ userId, segment }: Omit<CandidateRequest, 'candidates'>, row: number, task = 0): number => {
  const { low } = digestTokens(segment.entities, segment.timesS);
  return (Math.imul(low ^ Math.imul(row, 0x9e3779b1) ^ segment.queryTimeS ^ userId.length ^ task, 0x85ebca6b) >>> 8) / 2 ** 24;
};

export const judge = (request: CandidateRequest): CandidateResult => ({
  userId: request.userId,
  tasks: Object.fromEntries(
    ['like', 'buy'].map((task, t) => [task, Float32Array.from(request.candidates, (row) => judgement(request, row, t + 1))]),
  ),
  combined: Float32Array.from(request.candidates, (row) => judgement(request, row)),
  rows: new Float32Array(0),
  rowsComputed: 1,
  outcome: 'hit',
});

/** The dot product of an embedding and row `row`, of no real kind. */
export const dotProduct = (embedding: ArrayLike<number>, row: number): number =>
  ((Math.round(embedding[0]! / 1024) + 7919 * row) % 997) / 997;

const fakeScore = ({ rows, seen, topK, candidates }: ScoreRequest): ScoreResult => {
  const hidden = new Set(seen);
  const best = Array.from({ length: VOCABULARY_SIZE }, (_, i) => i + 1)
    .filter((row) => !hidden.has(row))
    .sort((a, b) => dotProduct(rows, b) - dotProduct(rows, a))
    .slice(0, topK);
  return {
    ranks: new Int32Array(1),
    topEntities: Int32Array.from(best),
    topScores: Float32Array.from(best, (row) => dotProduct(rows, row)),
    ...(candidates !== undefined && { candidateScores: Float32Array.from(candidates, (row) => dotProduct(rows, row)) }),
  };
};

/** Answers at once, and remembers how many candidates each call had. */
export const fakeModel = () => {
  const calls: number[] = [];
  const encoder: Encoder & Scorer & CandidateScorer = {
    encode: async (requests) => requests.map(fakeResult),
    score: async (requests) => requests.map(fakeScore),
    scoreCandidates: async (requests) => {
      calls.push(requests.reduce((sum, { candidates }) => sum + candidates.length, 0));
      return requests.map(judge);
    },
  };
  return { calls, encoder };
};
