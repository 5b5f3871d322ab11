/** What flows, in one sentence: the same for live, replay and tests. */
import { type OperatorFunction, pipe } from 'rxjs';
import {
  assemble,
  type Committer,
  type Decoder,
  decode,
  type Encoder,
  encode,
  gather,
  microBatch,
  orderedCommit,
  type Publisher,
  publish,
  type Scorer,
  type SequenceStore,
  score,
  sequence,
  spread,
  type Tokenizer,
} from '../operators/index.ts';
import type { OutputBatch, SequencedBatch, SourceBatch } from '../schemas/batch.ts';
import type { BundleConfig } from '../schemas/bundle-config.ts';
import type { Config } from '../schemas/config.ts';

/** The model, as the steps need it. */
export interface PipelineModel {
  readonly digest: string;
  readonly window: BundleConfig['window'];
  readonly tokenizer: Tokenizer & { entityOf(row: number): string };
}

export type PipelineSettings = Pick<Config, 'publish' | 'scores' | 'sequence' | 'encoder'>;

/** What a pipeline is wired to. */
export interface PipelineParts {
  readonly settings: PipelineSettings;
  readonly model: PipelineModel;
  readonly decoder: Decoder;
  readonly store: SequenceStore;
  readonly encoder: Encoder & Scorer;
  readonly publisher: Publisher;
  readonly committer: Committer;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/** Records to sequences: also how a restart rebuilds the state of what was committed, without encoding. */
export const toSequences = ({
  decoder,
  model,
  settings,
  store,
}: Omit<PipelineParts, 'encoder' | 'publisher' | 'committer' | 'now'>): OperatorFunction<SourceBatch, SequencedBatch> =>
  pipe(
    decode({ decoder }),
    sequence({
      tokenizer: model.tokenizer,
      window: model.window,
      ...settings.sequence,
      publish: settings.publish,
      store,
    }),
  );

/** Batches in, the same batches out when all they give is published and their position is committed. */
export function pipeline(parts: PipelineParts): OperatorFunction<SourceBatch, OutputBatch> {
  const { settings, model, encoder, publisher, committer, now } = parts;
  const { maxBatchUsers, maxDelayMs, maxInFlight } = settings.encoder;
  return pipe(
    toSequences(parts),
    spread(),
    microBatch({ maxRows: maxBatchUsers, maxDelayMs }),
    encode({ encoder, maxInFlight }),
    score({ scorer: encoder, ...settings.scores, maxInFlight }),
    gather(),
    assemble({ modelDigest: model.digest, entityOf: (row) => model.tokenizer.entityOf(row), now }),
    publish({ publisher, maxInFlight: 64 }),
    orderedCommit({ committer }),
  );
}
