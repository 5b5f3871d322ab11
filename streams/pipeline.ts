/** What flows, in one sentence: the same for live, replay and tests. */
import { identity, type MonoTypeOperatorFunction, type OperatorFunction, pipe, tap } from 'rxjs';
import {
  answer,
  assemble,
  type CandidateScorer,
  type Committer,
  type DecodeOptions,
  type Decoder,
  decode,
  type Encoder,
  encode,
  gather,
  microBatch,
  orderedCommit,
  type Publisher,
  publish,
  rank,
  type Scorer,
  type SequenceOptions,
  scaledCaps,
  score,
  sequence,
  sideFeatures,
  spread,
  type Tokenizer,
} from '../operators/index.ts';
import type {
  DecodedBatch,
  EncodedUnit,
  OutputBatch,
  ScoredBatch,
  ScoredUnit,
  SequencedBatch,
  SourceBatch,
  UpdateUnit,
} from '../schemas/batch.ts';
import type { Config } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';
import { type PipelineObserver, stepTimer } from './instrument.ts';
import { type ListModel, listRules } from './list-rules.ts';
import type { PipelineModel } from './pipeline-model.ts';

type FeatureTokenizer = Tokenizer & { entityOf(token: number): string };

export type PipelineSettings = Pick<Config, 'publish' | 'scores' | 'sequence' | 'encoder'>;

/** What a pipeline is wired to. */
export interface PipelineParts {
  readonly settings: PipelineSettings;
  readonly model: PipelineModel;
  readonly decoder: Decoder;
  /** Batches of this topic are requests for candidates. @default there are none */
  readonly requests?: DecodeOptions['requests'];
  /** One for all, or each partition's own. */
  readonly store: NonNullable<SequenceOptions['store']>;
  readonly encoder: Encoder & Scorer & CandidateScorer;
  /** Whether the rank of what users did is wanted: `OutputBatch.quality`. @default true */
  readonly ranks?: boolean;
  readonly publisher: Publisher;
  readonly committer: Committer;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
  /** Is told how long each step takes. @default none, at no cost */
  readonly observer?: PipelineObserver;
}

/** What scoring needs; the in-flight bound is the encoder's. */
interface ScoringParts {
  readonly settings: Pick<Config, 'scores'> & { readonly encoder: Pick<Config['encoder'], 'maxInFlight'> };
  readonly model: Pick<PipelineModel, 'heads'> & ListModel;
  readonly encoder: Scorer & CandidateScorer;
}

/** What the sequence step is told by the settings and the model, wherever it runs. */
export function sequencing(
  { sequence: { sideFeatures: side, ...sequence } }: Pick<Config, 'sequence'>,
  { tokenizer, window }: Pick<PipelineModel, 'window'> & { readonly tokenizer: FeatureTokenizer },
): SequenceOptions {
  const options = { tokenizer, window, ...sequence };
  if (side === undefined) return options;
  return { ...options, featureRuns: { namespaces: side.namespaces, entityOf: (token) => tokenizer.entityOf(token) } };
}

/**
 * Side features out of actions' contexts, where the settings ask for it.
 *
 * @throws PipelineError `CONFIG_INVALID` for a kind of action that the model does not have
 */
export function featuresOfContexts(
  { sequence: { sideFeatures: side } }: Pick<Config, 'sequence'>,
  tokenizer: Tokenizer,
): MonoTypeOperatorFunction<DecodedBatch> {
  const action = side?.contextAction;
  if (side === undefined || action === undefined) return identity;
  const trial = tokenizer.token({ eventId: '', userId: '', action, entity: '', eventTimeMs: 0 });
  if (trial.kind === 'refuse' && trial.code === 'ACTION_UNKNOWN')
    throw new PipelineError('CONFIG_INVALID', `sequence.sideFeatures.contextAction: ${trial.message}`);
  return sideFeatures({ names: side.namespaces, action });
}

/** Records to sequences: also how a restart rebuilds the state of what was committed, without encoding. */
export const toSequences = ({
  decoder,
  requests,
  model,
  settings,
  store,
  ranks,
  observer,
}: Omit<PipelineParts, 'encoder' | 'publisher' | 'committer' | 'now'>): OperatorFunction<SourceBatch, SequencedBatch> => {
  const timed = stepTimer(observer);
  const { publish, scores } = settings;
  const { unknownCandidates = 'hash' } = scores;
  const { seenFilter, allowedFor: allowed } = listRules(settings, model);
  const asked = { vocabulary: model.tokenizer, seenFilter, unknownCandidates, allowed };
  const decoded = decode({ decoder, ...(requests !== undefined && { requests }) });
  const told = tap<DecodedBatch>(({ leftOut }) => {
    if (leftOut !== undefined) observer?.leftOut?.(leftOut);
  });
  return pipe(
    timed(
      'decode',
      'batch',
      pipe(decoded, observer?.leftOut === undefined ? identity : told, featuresOfContexts(settings, model.tokenizer)),
    ),
    timed(
      'sequence',
      'batch',
      sequence({ ...sequencing(settings, model), publish, requests: asked, store, ...(ranks !== undefined && { ranks }) }),
    ),
  );
};

/** Whether every embedding comes with a list. */
export const listsOf = ({ scores }: Pick<Config, 'scores'>, { heads }: Pick<PipelineModel, 'heads'>): boolean =>
  heads.retrieval && scores.topK > 0;

/**
 * From encoded rows to ranks and listed entities: those that the model retrieves by dot product, in the order of its task heads
 * where it has both. What lists in live, replay and backfill.
 */
export function scoring({
  settings,
  model,
  encoder,
}: ScoringParts): OperatorFunction<readonly EncodedUnit[], readonly ScoredUnit[]> {
  const { heads } = model;
  const { topK, retrieve } = settings.scores;
  const { seenFilter, allowed, caps, ownOf } = listRules(settings, model);
  const { maxInFlight } = settings.encoder;
  if (!(heads.retrieval && heads.ranking && topK > 0))
    return score({ scorer: encoder, topK, seenFilter, allowed, caps, retrieves: heads.retrieval, maxInFlight });
  const retrieved = Math.max(topK, retrieve ?? 5 * topK);
  // The second stage has as much of each kind to choose from as a list may hold.
  const first = { seenFilter, allowed, caps: caps && scaledCaps(caps, retrieved / topK) };
  return pipe(
    score({ scorer: encoder, topK: retrieved, ...first, maxInFlight }),
    rank({ scorer: encoder, topK, ownOf, caps, maxInFlight }),
  );
}

/** Batches in, the same batches out when all they give is published and their position is committed. */
export function pipeline(parts: PipelineParts): OperatorFunction<SourceBatch, OutputBatch> {
  const { settings, model, encoder, publisher, committer, now, observer } = parts;
  const { maxBatchUsers, maxDelayMs, maxInFlight } = settings.encoder;
  const entityOf = (row: number) => model.tokenizer.entityOf(row);
  const timed = stepTimer(observer);
  const { heads, vocabularySize, popularity } = model;
  const { retrieve } = settings.scores;
  const { caps, ownHistory } = listRules(settings, model);
  const gathered = tap<ScoredBatch>((batch) => observer?.gathered?.(batch));
  // In two parts: `pipe` has types for nine operators.
  const toNumbers = pipe(
    toSequences(parts),
    spread(),
    timed('microBatch', 'user', microBatch<UpdateUnit>({ maxRows: maxBatchUsers, maxDelayMs })),
    timed('encode', 'user', encode({ encoder, maxInFlight })),
    timed('score', 'user', scoring({ settings, model, encoder })),
    timed(
      'answer',
      'batch',
      answer({ encoder, heads, vocabularySize, popularity, caps, ownHistory, entityOf, retrieve, now, maxInFlight }),
    ),
  );
  return pipe(
    toNumbers,
    timed('gather', 'batch', pipe(gather(), gathered)),
    timed('assemble', 'batch', assemble({ modelDigest: model.digest, entityOf, listed: listsOf(settings, model), now })),
    timed('publish', 'batch', publish({ publisher, maxInFlight: 64 })),
    timed('commit', 'batch', orderedCommit({ committer })),
  );
}
