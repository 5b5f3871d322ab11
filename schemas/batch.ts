/** The unit of work as it passes from step to step: one fetched batch of one input partition. */
import type { DeadLetter, Disposition, PositionedAction, SourceRecord } from './action.ts';
import type { PositionedRequest } from './avro/requests.ts';
import type { AllowedRows, EncodedSegment, EncodeRequest, EncodeSegment, ScoreResult } from './encoding.ts';
import type { Candidate, CandidateScores, LeftOutCandidate, PrequentialRank, UserEmbedding } from './output.ts';
import type { StateChange } from './state.ts';

/** Consecutive records of one partition. The source fetches that partition's next batch only after `ack`. */
export interface SourceBatch {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly SourceRecord[];
  /** Offset of the first record that comes after this batch: what a commit stores. */
  readonly nextOffset: number;
  /** When the batch was read, ms since the epoch. */
  readonly readAtMs: number;
  /** Tells the source that all of this batch is published and its position committed. Called once. */
  readonly ack: () => void;
}

/** What of a batch is neither an action nor a dead letter. */
export interface LeftOut {
  /** Records of kinds that are ignored. */
  readonly ignored: number;
  /** Optional values that could not be used, by field: `value`, `context.city`. */
  readonly invalid: ReadonlyMap<string, { readonly count: number; readonly example: string }>;
}

export interface DecodedBatch {
  readonly source: SourceBatch;
  /** In record order. */
  readonly actions: readonly PositionedAction[];
  readonly deadLetters: readonly DeadLetter[];
  /** Absent for none. */
  readonly leftOut?: LeftOut;
  /** Of a batch of requests for candidates, in record order; it holds no actions. Absent for a batch of actions. */
  readonly requests?: readonly PositionedRequest[];
}

/** A request for candidates, with the state that it is answered from. */
export interface SequencedRequest {
  readonly request: PositionedRequest;
  /** Past its deadline when it was read: nothing else is filled in. */
  readonly expired: boolean;
  /** The user's window at the request; without tokens for a user of whom nothing is known here. */
  readonly window: Omit<EncodeSegment, 'from'>;
  readonly version: number;
  readonly sequenceDigest: string;
  /** As asked, but never before the newest event: a state cannot be asked about its own past. */
  readonly queryTimeMs: number;
  /** Of the window; absent without tokens. */
  readonly lastEventTimeMs?: number;
  /** Distinct, in the order of the request: what is scored. Empty for the whole catalogue. */
  readonly entities: readonly string[];
  /** Their embedding rows: `(entities.length,)`. */
  readonly candidates: Int32Array;
  readonly leftOut: readonly LeftOutCandidate[];
  /** Entity rows that the catalogue's best must not hold: denied, or seen. */
  readonly hidden: Int32Array;
  /** Entity rows that it may hold. @default all that are offered */
  readonly allowed?: AllowedRows;
}

/** What became of a request. */
export type RequestDisposition =
  /** Scored from the user's history. */
  | 'answered'
  /** Scored without one: this partition knows nothing of the user. */
  | 'cold-start'
  /** Past its deadline: not answered. */
  | 'expired';

export interface ProcessedRequest {
  readonly request: PositionedRequest;
  readonly disposition: RequestDisposition;
}

/** What is answered to a request; an expired one has no candidates. */
export interface RequestAnswer {
  readonly asked: SequencedRequest;
  readonly disposition: RequestDisposition;
  /** Best first. */
  readonly candidates: readonly Candidate[];
  /** Probability per task, in the order of `candidates`; absent where the model has no task heads. */
  readonly tasks?: Readonly<Record<string, Float32Array>>;
}

export interface ProcessedAction {
  readonly action: PositionedAction;
  readonly disposition: Disposition;
  /** Of an entity that the model does not have: no token for it. */
  readonly unknownEntity?: true;
}

/** An event whose item is ranked against the row before it. */
export interface RankTarget {
  /** Which segment of the request, and which of its wanted rows (from 0 at `from`). */
  readonly segment: number;
  readonly row: number;
  /** Entity row. */
  readonly entity: number;
  /** Entries of `seen` before this one were forgotten when the event came (the list is bounded). */
  readonly seenStart: number;
  /** How many of `seen` precede the event: `seen[seenStart … seenCount-1]` is what the user had seen. */
  readonly seenCount: number;
  readonly priorEvents: number;
  /** Digest over the window's tokens before the event: what the ranking embedding was made of. */
  readonly sequenceDigest: string;
  readonly action: PositionedAction;
}

/** An embedding to publish: the last row of a segment. */
export interface PublishPoint {
  readonly segment: number;
  readonly version: number;
  readonly sequenceLength: number;
  readonly sequenceDigest: string;
  readonly lastEventTimeMs: number;
  readonly queryTimeMs: number;
  /** Entries of `seen` before this one were forgotten at this point. */
  readonly seenStart: number;
  /** How many of `seen` precede or are this point's newest event. */
  readonly seenCount: number;
  /** The newest input record included. */
  readonly position: PositionedAction['position'];
}

/** All that one batch changed for one user. */
export interface UserUpdate {
  readonly userId: string;
  readonly request: EncodeRequest;
  readonly targets: readonly RankTarget[];
  readonly publish: readonly PublishPoint[];
  /** Entity rows this user has acted on, in order of arrival; distinct from any `seenStart` on. */
  readonly seen: Int32Array;
}

/** What a batch changed in the state of its partition: to be written, in order, with what the batch gives to the world. */
export interface TakenChanges {
  readonly changes: readonly StateChange[];
  /** Names these changes to the store they were taken from, once they are committed. */
  readonly mark: number;
}

export interface SequencedBatch {
  readonly source: SourceBatch;
  readonly processed: readonly ProcessedAction[];
  readonly deadLetters: readonly DeadLetter[];
  readonly updates: readonly UserUpdate[];
  /** Side features of contexts whose value the model does not have, by feature: passed over, and counted. Absent for none. */
  readonly unknownFeatures?: ReadonlyMap<string, number>;
  /** Users whose history up to an erasure in this batch is gone: what was published of them must go too. Absent for none. */
  readonly erased?: readonly string[];
  /** Of a batch of requests. Absent for a batch of actions. */
  readonly requests?: readonly SequencedRequest[];
  /** Absent where the sequences are held in memory only. */
  readonly state?: TakenChanges;
}

export interface EncodedUpdate {
  readonly update: UserUpdate;
  readonly segments: readonly EncodedSegment[];
}

/** The scores of a segment; `topEntities` in the order of the task heads where the model has both stages. */
export interface SegmentScores extends ScoreResult {
  /** Probability per task, in the order of `topEntities`. Absent where they were not ranked by task heads. */
  readonly tasks?: Readonly<Record<string, Float32Array>>;
}

export interface ScoredUpdate extends EncodedUpdate {
  /** One per segment; empty where the segment was asked for no rank and no candidates. */
  readonly scores: readonly SegmentScores[];
}

/**
 * One user's share of a batch, travelling alone so that a micro-batch mixes users of many batches. A batch that changed
 * no user travels as one unit of `null`, so that its position is committed like any other's.
 */
export interface UpdateUnit {
  readonly batch: SequencedBatch;
  readonly update: UserUpdate | null;
}

export interface EncodedUnit {
  readonly batch: SequencedBatch;
  readonly update: EncodedUpdate | null;
}

export interface ScoredUnit {
  readonly batch: SequencedBatch;
  readonly update: ScoredUpdate | null;
  /** To the batch's requests, in their order. Absent for a batch of actions. */
  readonly answers?: readonly RequestAnswer[];
}

/** A batch whose units have all come back. */
export interface ScoredBatch {
  readonly batch: SequencedBatch;
  readonly updates: readonly ScoredUpdate[];
  /** To the batch's requests, in their order. Absent for a batch of actions. */
  readonly answers?: readonly RequestAnswer[];
}

/** Everything a batch gives to the world, to be published before its position is committed. */
export interface OutputBatch {
  readonly source: SourceBatch;
  readonly processed: readonly ProcessedAction[];
  readonly deadLetters: readonly DeadLetter[];
  readonly embeddings: readonly UserEmbedding[];
  readonly scores: readonly CandidateScores[];
  readonly quality: readonly PrequentialRank[];
  /** As in `SequencedBatch`. Absent for none. */
  readonly unknownFeatures?: ReadonlyMap<string, number>;
  /** Users to erase from what earlier batches published, before this batch is. Absent for none. */
  readonly erased?: readonly string[];
  /** Of a batch of requests: what became of each, in record order; answers are in `scores`. Absent for a batch of actions. */
  readonly requests?: readonly ProcessedRequest[];
  /** Absent where the sequences are held in memory only. */
  readonly state?: TakenChanges;
}
