/** Numbers become the records that the world is given, each with the lineage to make it again. */
import { map, type OperatorFunction } from 'rxjs';
import type { SourcePosition } from '../schemas/action.ts';
import type { OutputBatch, PublishPoint, RankTarget, RequestAnswer, ScoredBatch, ScoredUpdate } from '../schemas/batch.ts';
import type { CandidateScores, Lineage, PrequentialRank, UserEmbedding } from '../schemas/output.ts';

export interface AssembleOptions {
  /** Identity of the model that encoded. */
  readonly modelDigest: string;
  /** External id of an embedding row. */
  readonly entityOf: (row: number) => string;
  /** Lists come with embeddings: one of nothing is published too, in place of the one before. @default false */
  readonly listed?: boolean;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/**
 * Makes embeddings, candidate scores, answers and prequential ranks of a batch's numbers.
 *
 * - **in** `ScoredBatch` · **out** `OutputBatch`, one for one; users in the order of the updates, each user's outputs in the order of the
 *   events; answers in the order of the requests, none to an expired one
 * - **copies** embeddings share no memory with the encoder's rows
 * - **state** none; all outputs of a batch carry one `computedAtMs`
 *
 * @example gathered$.pipe(assemble({ modelDigest, entityOf, now: Date.now }))
 */
export function assemble({
  modelDigest,
  entityOf,
  listed = false,
  now,
}: AssembleOptions): OperatorFunction<ScoredBatch, OutputBatch> {
  const lineage = ({ topic, partition, offset }: SourcePosition, sequenceDigest: string): Lineage => ({
    topic,
    partition,
    offset,
    sequenceDigest,
    modelDigest,
  });

  const embeddingOf = (scored: ScoredUpdate, index: number, readAtMs: number, computedAtMs: number): UserEmbedding => {
    const point = scored.update.publish[index]!;
    const segment = scored.segments[point.segment]!;
    const { entities, from } = scored.update.request.segments[point.segment]!;
    // The segments since the previous point were computed for this one.
    const sincePoint = (scored.update.publish[index - 1]?.segment ?? -1) + 1;
    return {
      userId: scored.update.userId,
      version: point.version,
      embedding: segment.rows.slice(-segment.rows.length / (entities.length - from)),
      sequenceLength: point.sequenceLength,
      lastEventTimeMs: point.lastEventTimeMs,
      queryTimeMs: point.queryTimeMs,
      lineage: lineage(point.position, point.sequenceDigest),
      computedAtMs,
      latencyMs: computedAtMs - readAtMs,
      rowsComputed: scored.segments.slice(sincePoint, point.segment + 1).reduce((sum, { rowsComputed }) => sum + rowsComputed, 0),
      outcome: segment.outcome,
    };
  };

  const candidatesOf = (scored: ScoredUpdate, point: PublishPoint, computedAtMs: number): CandidateScores[] => {
    const { topEntities, topScores, tasks } = scored.scores[point.segment]!;
    if (topEntities.length === 0 && !listed) return [];
    return [
      {
        userId: scored.update.userId,
        version: point.version,
        candidates: Array.from(topEntities, (row, i) => ({ entity: entityOf(row), score: topScores[i]! })),
        ...(tasks !== undefined && { tasks }),
        lineage: lineage(point.position, point.sequenceDigest),
        computedAtMs,
      },
    ];
  };

  const answerOf = ({ asked, disposition, candidates, tasks }: RequestAnswer, computedAtMs: number): CandidateScores[] => {
    if (disposition === 'expired') return [];
    const { request, version, sequenceDigest, queryTimeMs, lastEventTimeMs, leftOut } = asked;
    return [
      {
        userId: request.userId,
        version,
        requestId: request.requestId,
        candidates,
        ...(tasks !== undefined && { tasks }),
        ...(leftOut.length > 0 && { leftOut }),
        ...(disposition === 'cold-start' && { coldStart: true }),
        queryTimeMs,
        ...(lastEventTimeMs !== undefined && { ageMs: queryTimeMs - lastEventTimeMs }),
        lineage: lineage(request.position, sequenceDigest),
        computedAtMs,
      },
    ];
  };

  const rankOf = (scored: ScoredUpdate, target: RankTarget): PrequentialRank[] => {
    const { segment, row, priorEvents, sequenceDigest, action } = target;
    const { userId, eventId, entity, eventTimeMs } = action;
    const rank = scored.scores[segment]!.ranks[row]!;
    // An entity outside the vocabulary has none, nor has any where the model does not retrieve.
    if (rank === 0) return [];
    const place = lineage(action.position, sequenceDigest);
    return [{ userId, eventId, action: action.action, entity, eventTimeMs, priorEvents, rank, lineage: place }];
  };

  return map(({ batch: { source, processed, deadLetters, unknownFeatures, erased, state }, updates, answers }) => {
    const computedAtMs = now();
    return {
      source,
      processed,
      deadLetters,
      embeddings: updates.flatMap((scored) =>
        scored.update.publish.map((_, i) => embeddingOf(scored, i, source.readAtMs, computedAtMs)),
      ),
      scores: [
        ...updates.flatMap((scored) => scored.update.publish.flatMap((point) => candidatesOf(scored, point, computedAtMs))),
        ...(answers ?? []).flatMap((answer) => answerOf(answer, computedAtMs)),
      ],
      quality: updates.flatMap((scored) => scored.update.targets.flatMap((target) => rankOf(scored, target))),
      ...(unknownFeatures !== undefined && { unknownFeatures }),
      ...(erased !== undefined && { erased }),
      ...(answers !== undefined && {
        requests: answers.map(({ asked, disposition }) => ({ request: asked.request, disposition })),
      }),
      ...(state !== undefined && { state }),
    };
  });
}
