/** What flows in a backfill, in one sentence: histories → sequence → shape → encode in bulk → rank → outputs → publish → commit. */
import { concatMap, map, type OperatorFunction, of, pipe } from 'rxjs';
import {
  assemble,
  type CandidateScorer,
  type Committer,
  type Encoder,
  encode,
  type ModelHeads,
  orderedCommit,
  type Publisher,
  publish,
  type Scorer,
  sequence,
  type Tokenizer,
} from '../../operators/index.ts';
import type { PositionedAction } from '../../schemas/action.ts';
import type { EncodedUnit, OutputBatch, ScoredBatch, ScoredUnit } from '../../schemas/batch.ts';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import type { Config } from '../../schemas/config.ts';
import type { ScoreResult } from '../../schemas/encoding.ts';
import type { UserEmbedding } from '../../schemas/output.ts';
import type { ListModel } from '../list-rules.ts';
import { featuresOfContexts, listsOf, scoring, sequencing } from '../pipeline.ts';
import { Histories } from './histories.ts';
import { type HistoryBatch, type ShapedUpdate, shapeUpdates } from './shape-updates.ts';

/** Encodes windows that are met once. */
export interface BulkEncoder {
  encodeInBulk: Encoder['encode'];
}

/** The model, as the steps need it. */
export interface BulkModel extends Pick<ListModel, 'fields'> {
  readonly digest: string;
  readonly window: BundleConfig['window'];
  readonly tokenizer: Tokenizer & ListModel['tokenizer'] & { entityOf(row: number): string };
  readonly heads: ModelHeads;
}

export interface BulkParts {
  readonly settings: Pick<Config, 'sequence' | 'scores'>;
  readonly model: BulkModel;
  readonly encoder: BulkEncoder & Scorer & CandidateScorer;
  /** One embedding an event, as of just before it; else only that of the end of each history. */
  readonly everyEvent: boolean;
  /** Rank each event, and list the best entities at the end of each history, as live does: in two stages where the model has both. */
  readonly ranks: boolean;
  /** The moment that the end of a history is asked about, ms. @default its newest event's */
  readonly asOfMs?: number | undefined;
  /** Give the state that each history ends with. @default false */
  readonly keepState?: boolean | undefined;
  /** Batches in the encoder at once. */
  readonly maxInFlight: number;
  readonly publisher: Publisher;
  readonly committer: Committer;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/** A batch of histories, decoded. */
export interface DecodedHistories {
  readonly source: HistoryBatch;
  readonly actions: readonly PositionedAction[];
}

/**
 * Batches in their order; each comes out when all it gives is published and its position committed. An update's segments go to
 * the encoder together, and those of a whole batch in one call, so that it can batch users by length.
 */
export function bulkFlow(parts: BulkParts): OperatorFunction<DecodedHistories, OutputBatch> {
  const { settings, model, encoder, everyEvent, ranks, asOfMs, keepState, maxInFlight, publisher, committer, now } = parts;
  const histories = new Histories();
  const shape = shapeUpdates({ histories, everyEvent, ranks, asOfMs, keepState });
  const scored = scoring({ settings: { ...settings, encoder: { maxInFlight } }, model, encoder });
  const ranked = ranks ? scored : map(unscored);
  return pipe(
    map(({ source, actions }: DecodedHistories) => ({ source, actions, deadLetters: [] })),
    pipe(
      featuresOfContexts(settings, model.tokenizer),
      sequence({ ...sequencing(settings, model), publish: 'every-batch', store: histories }),
    ),
    map((batch) => {
      const shaped = shape(batch);
      if (shaped.updates.length === 0) return [{ batch: shaped, update: null }];
      return shaped.updates.map((update) => ({ batch: shaped, update }));
    }),
    encode({ encoder: { encode: (requests) => encoder.encodeInBulk(requests) }, maxInFlight }),
    ranked,
    map(gathered),
    withPoints(model, ranks && listsOf(settings, model), now),
    publish({ publisher, maxInFlight: 64 }),
    orderedCommit({ committer }),
  );
}

const NO_SCORES: ScoreResult = { ranks: new Int32Array(0), topEntities: new Int32Array(0), topScores: new Float32Array(0) };

/** Encoded units of which nothing is scored. */
export const unscored = (units: readonly EncodedUnit[]): readonly ScoredUnit[] =>
  units.map(({ batch, update }) => ({
    batch,
    update: update === null ? null : { ...update, scores: update.segments.map(() => NO_SCORES) },
  }));

const gathered = (units: readonly ScoredUnit[]): ScoredBatch => ({
  batch: units[0]!.batch,
  updates: units.flatMap(({ update }) => (update === null ? [] : [update])),
});

/** Assembles a batch's outputs, the embeddings as of its events before those of its histories' ends. */
function withPoints(model: BulkModel, listed: boolean, now: () => number): OperatorFunction<ScoredBatch, OutputBatch> {
  const entityOf = (row: number) => model.tokenizer.entityOf(row);
  const assembled = assemble({ modelDigest: model.digest, entityOf, listed, now });
  return concatMap((batch) =>
    of(batch).pipe(
      assembled,
      map((output) => ({ ...output, embeddings: [...pointEmbeddings(batch, model.digest, now()), ...output.embeddings] })),
    ),
  );
}

function pointEmbeddings({ batch, updates }: ScoredBatch, modelDigest: string, computedAtMs: number): UserEmbedding[] {
  const embeddings: UserEmbedding[] = [];
  for (const { update, segments } of updates) {
    const { points, request } = update as ShapedUpdate;
    let paid = -1;
    for (const point of points) {
      const { rows, rowsComputed, outcome } = segments[point.segment]!;
      const { entities, from } = request.segments[point.segment]!;
      const D = rows.length / (entities.length - from);
      embeddings.push({
        userId: update.userId,
        version: point.version,
        // A view: the rows came from the encoder for this batch alone.
        embedding: rows.subarray(point.row * D, (point.row + 1) * D),
        sequenceLength: point.sequenceLength,
        lastEventTimeMs: point.lastEventTimeMs,
        queryTimeMs: point.queryTimeMs,
        lineage: {
          topic: point.position.topic,
          partition: point.position.partition,
          offset: point.position.offset,
          sequenceDigest: point.sequenceDigest,
          modelDigest,
        },
        computedAtMs,
        latencyMs: computedAtMs - batch.source.readAtMs,
        // A segment's rows are paid for by the first that is wanted of it.
        rowsComputed: point.segment === paid ? 0 : rowsComputed,
        outcome,
      });
      paid = point.segment;
    }
  }
  return embeddings;
}
