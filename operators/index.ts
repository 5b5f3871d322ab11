/**
 * The operators as a library, `hstu-streams/operators`:
 * source → decode → sequence → spread → microBatch → encode → score → rank → answer → gather → assemble → publish → orderedCommit.
 */
export { type AnswerOptions, answer } from './answer.ts';
export { type AnswerRequestsOptions, answerRequests, type ModelHeads, type PopularityOrder } from './answer-requests.ts';
export { type AssembleOptions, assemble } from './assemble.ts';
export { type WindowOptions, windowStartOf } from './block-window.ts';
export { type Caps, scaledCaps } from './caps.ts';
export {
  type DecodeOptions,
  type DecodeRequestResult,
  type DecodeResult,
  type Decoder,
  decode,
  type RequestDecoder,
} from './decode.ts';
export { type EncodeOptions, type Encoder, encode } from './encode.ts';
export { eraseUser } from './erase-user.ts';
export type { FeatureRunsOptions } from './feature-runs.ts';
export { gather } from './gather.ts';
export { daysToSeconds, type HiddenEventsOptions, type HiddenOf, hiddenEvents, type KindTokenizer } from './hidden-events.ts';
export { InMemorySequenceStore } from './in-memory-sequence-store.ts';
export type { CandidateScorer } from './judge-lists.ts';
export { mapInOrder } from './map-in-order.ts';
export { type MicroBatchOptions, microBatch } from './micro-batch.ts';
export { type Committer, type OrderedCommitOptions, orderedCommit } from './ordered-commit.ts';
export { type OwnHistory, ownRows } from './own-history.ts';
export { PersistentSequenceStore, type PersistentSequenceStoreOptions } from './persistent-sequence-store.ts';
export { type Publisher, type PublishOptions, publish } from './publish.ts';
export { type RankOptions, rank } from './rank.ts';
export { type RetryOptions, retryRetriable } from './retry-retriable.ts';
export { type ScoreOptions, type Scorer, score } from './score.ts';
export { type SequenceOptions, sequence, type Tokenizer, type TokenResult } from './sequence.ts';
export { type CandidateVocabulary, type SequenceRequestsOptions, sequenceRequests } from './sequence-requests.ts';
export type { SequenceStore } from './sequence-store.ts';
export { type SideFeaturesOptions, sideFeatures } from './side-features.ts';
export { spread } from './spread.ts';
export { isHeadKey } from './state-keys.ts';
export type { PublishMode } from './update-builder.ts';
export { toSeconds, UserSequence, type UserSequenceOptions, type WindowSnapshot } from './user-sequence.ts';
