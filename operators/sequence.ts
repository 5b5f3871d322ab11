/** Second step: actions become tokens of their users' sequences, and what has to be encoded because of them. */
import { defer, map, type OperatorFunction } from 'rxjs';
import type { DeadLetter, PositionedAction, SourcePosition, SourceRecord, UserAction } from '../schemas/action.ts';
import type { DecodedBatch, ProcessedAction, SequencedBatch, SourceBatch, UserUpdate } from '../schemas/batch.ts';
import { type ErrorCode, PipelineError } from '../schemas/errors.ts';
import { requireWindow, type WindowOptions } from './block-window.ts';
import { deadLetter } from './dead-letter.ts';
import { eraseUser } from './erase-user.ts';
import { FeatureRuns, type FeatureRunsOptions, namespaceOf } from './feature-runs.ts';
import { InMemorySequenceStore } from './in-memory-sequence-store.ts';
import { requireInteger } from './require-option.ts';
import { type SequenceRequestsOptions, sequenceRequests } from './sequence-requests.ts';
import type { SequenceStore } from './sequence-store.ts';
import { type PublishMode, UpdateBuilder } from './update-builder.ts';
import { UserSequence } from './user-sequence.ts';

export type TokenResult =
  /** Encoded: `entity` is the event's token, an embedding row or what a token layout makes of it. */
  | { readonly kind: 'token'; readonly entity: number }
  /** Encoded as two tokens, the entity (`entity`, again) and what was done with it. */
  | { readonly kind: 'token'; readonly entity: number; readonly tokens: readonly [number, number] }
  /** Of a kind that is kept and not encoded. */
  | { readonly kind: 'keep'; readonly unknownEntity?: true }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly message: string };

export interface Tokenizer {
  token(action: UserAction): TokenResult;
}

export interface SequenceOptions {
  readonly tokenizer: Tokenizer;
  readonly window: WindowOptions;
  /** Distinct entities remembered per user for the seen filter. @default 4096 */
  readonly seenLimit?: number;
  /** @default 'every-batch' */
  readonly publish?: PublishMode;
  /** Ask of every event in order which rank the embedding before it gave it: a row more to encode, and a scan of the catalogue. @default true */
  readonly ranks?: boolean;
  /** An action of this kind erases its user. @default none does */
  readonly erasureAction?: string;
  /** Side features: only the earliest event of each run of equal values becomes a token, and none is ranked. @default none are */
  readonly featureRuns?: FeatureRunsOptions;
  /** How requests for candidates are understood. @default a batch of requests is an error */
  readonly requests?: SequenceRequestsOptions;
  /**
   * Holds the users' sequences, or says which store holds those of a batch (asked for every batch, before it is applied).
   * @default a new one in memory per subscription
   */
  readonly store?: SequenceStore | ((source: SourceBatch) => SequenceStore);
}

/**
 * Applies every action to its user's sequence and says what is to be encoded, ranked and published.
 *
 * - **in** `DecodedBatch` · **out** `SequencedBatch`, one for one, synchronously; at most one update a user, users in order of
 *   first appearance; every action is in `processed` or in `deadLetters`, but for those that an erasure took away
 * - **exact** sequences, dispositions and every rank's context are the same however the events are cut into batches
 * - **requests** of a batch of requests come out with their users' state, which they do not change
 * - **erasure** a user's history ends at an erasure, in this batch and in the store; `erased` tells those after
 * - **side features** a value that was in force is a duplicate; of those made of an action's context (`sideFeatures`) only the new
 *   are in `processed`, and values that the model does not have are passed over, and counted in `unknownFeatures`
 * - **data faults** an action that the tokenizer refuses, or without a finite event time, is a dead letter
 * - **state** of a store that gives its changes away, the batch carries those it made
 * - **memory** one bounded `UserSequence` a user
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a window or `seenLimit` out of range.
 * @example decoded$.pipe(sequence({ tokenizer, window: { maxLength: 200, blockLength: 50 } }))
 */
export function sequence(options: SequenceOptions): OperatorFunction<DecodedBatch, SequencedBatch> {
  const { publish = 'every-batch', ranks = true } = options;
  const window = requireWindow(options.window);
  const seenLimit = requireInteger('seenLimit', options.seenLimit ?? 4096, 1);
  const create = () => new UserSequence({ window, seenLimit });

  return (decoded$) =>
    defer(() => {
      const store = options.store ?? new InMemorySequenceStore();
      const features = options.featureRuns && new FeatureRuns(options.featureRuns);
      const storeOf = typeof store === 'function' ? store : () => store;
      return decoded$.pipe(
        map((batch) =>
          batch.requests === undefined
            ? sequenceBatch(batch, { ...options, publish, ranks, features }, storeOf(batch.source), create)
            : sequenceAsked(batch, batch.requests, storeOf(batch.source), options.requests),
        ),
      );
    });
}

interface BatchOptions extends Pick<SequenceOptions, 'tokenizer' | 'erasureAction'> {
  readonly publish: PublishMode;
  readonly ranks: boolean;
  readonly features: FeatureRuns | undefined;
}

function sequenceAsked(
  { source, deadLetters }: DecodedBatch,
  requests: NonNullable<DecodedBatch['requests']>,
  store: SequenceStore,
  options: SequenceRequestsOptions | undefined,
): SequencedBatch {
  if (options === undefined)
    throw new PipelineError(
      'CONFIG_INVALID',
      `sequence: topic ${source.topic} holds requests, and the option 'requests' is missing`,
    );
  const sequenced = sequenceRequests(requests, store, source.readAtMs, options);
  return { source, processed: [], deadLetters, updates: [], requests: sequenced };
}

function sequenceBatch(
  batch: DecodedBatch,
  { tokenizer, publish, ranks, erasureAction, features }: BatchOptions,
  store: SequenceStore,
  create: () => UserSequence,
): SequencedBatch {
  const sequenceOf = (userId: string) => store.getOrCreate(userId, create);
  let processed: ProcessedAction[] = [];
  let refused: { readonly userId: string; readonly letter: DeadLetter }[] = [];
  const erased = new Set<string>();
  const builders = new Map<string, UpdateBuilder>();
  const recordOf = recordFinder(batch.source.records);
  const unknownFeatures = new Map<string, number>();
  const passOver = ({ entity }: PositionedAction) => {
    const feature = namespaceOf(entity);
    unknownFeatures.set(feature, (unknownFeatures.get(feature) ?? 0) + 1);
  };

  for (const action of batch.actions) {
    const { eventId, userId, eventTimeMs } = action;
    if (action.action === erasureAction) {
      // What this batch already took in of the user goes as well; later actions of the batch begin a new history.
      processed = processed.filter((entry) => entry.action.userId !== userId);
      refused = refused.filter((entry) => entry.userId !== userId);
      builders.delete(userId);
      eraseUser(store, userId);
      erased.add(userId);
      continue;
    }
    const token = Number.isFinite(eventTimeMs) ? tokenizer.token(action) : notATime(eventTimeMs);
    // The record itself is not at fault for a value that the model does not have.
    if (action.derived && token.kind !== 'token') {
      passOver(action);
      continue;
    }
    if (token.kind === 'refuse') {
      const letter = deadLetter(recordOf(action), 'sequence', token.code, token.message);
      refused.push({ userId, letter: { ...letter, action: action.action, userId } });
      continue;
    }
    if (token.kind === 'keep') {
      const disposition = sequenceOf(userId).keep(eventId, eventTimeMs);
      processed.push({ action, disposition, ...(token.unknownEntity && { unknownEntity: true }) });
      continue;
    }
    const isFeature = features?.isFeature(action.entity) === true;
    if (isFeature || action.derived) {
      const sequence = store.get(userId);
      const inForce = sequence !== undefined && features?.isInForce(action.entity, eventTimeMs, sequence) === true;
      if (inForce && !action.derived) processed.push({ action, disposition: 'duplicate' });
      const isUnknown = action.derived === true && features?.knows(action.entity, token.entity) !== true;
      if (isUnknown) passOver(action);
      if (inForce || isUnknown) continue;
    }
    let builder = builders.get(userId);
    if (builder === undefined) {
      builder = new UpdateBuilder(userId, sequenceOf(userId), publish);
      builders.set(userId, builder);
    }
    const second = 'tokens' in token ? token.tokens[1] : undefined;
    const disposition = builder.add(action, { entity: token.entity, second, ranked: ranks && !isFeature });
    if (!action.derived || disposition === 'appended' || disposition === 'inserted') processed.push({ action, disposition });
  }

  const updates: UserUpdate[] = [];
  for (const builder of builders.values()) {
    const update = builder.finish();
    if (update !== null) updates.push(update);
  }
  const deadLetters = [...batch.deadLetters, ...refused.map(({ letter }) => letter)];
  const state = store.takeChanges?.();
  return {
    source: batch.source,
    processed,
    deadLetters,
    updates,
    ...(unknownFeatures.size > 0 && { unknownFeatures }),
    ...(erased.size > 0 && { erased: [...erased] }),
    ...(state !== undefined && { state }),
  };
}

const notATime = (found: number): TokenResult => ({
  kind: 'refuse',
  code: 'TIME_INVALID',
  message: `eventTimeMs must be a finite number of milliseconds (found: ${found})`,
});

/** The record that an action was decoded from; the index is made when the first is asked for, which is seldom. */
function recordFinder(records: readonly SourceRecord[]): (action: PositionedAction) => SourceRecord {
  const key = ({ topic, partition, offset }: SourcePosition) => `${offset}/${partition}/${topic}`;
  let index: Map<string, SourceRecord> | null = null;
  return (action) => {
    index ??= new Map(records.map((record) => [key(record.position), record]));
    return index.get(key(action.position)) ?? { position: action.position, value: { ...action } };
  };
}
