/** What the system publishes: embeddings, candidate scores, prequential ranks; each with the lineage to reproduce it. */
import type { Disposition, SourcePosition } from './action.ts';
import type { CacheOutcome } from './encoding.ts';

/** Enough to say which input and which model an output was made of. */
export interface Lineage {
  /** The newest input record that this output includes: the newest event, or the request that is answered. */
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Rolling digest over the window's tokens, 16 hexadecimal digits. */
  readonly sequenceDigest: string;
  readonly modelDigest: string;
}

export interface UserEmbedding {
  readonly userId: string;
  /** Accepted tokens of this user so far: the version, ever growing; consumers keep the highest. */
  readonly version: number;
  readonly embedding: Float32Array;
  /** Tokens in the window that was encoded. */
  readonly sequenceLength: number;
  readonly lastEventTimeMs: number;
  readonly queryTimeMs: number;
  readonly lineage: Lineage;
  readonly computedAtMs: number;
  /** From reading the newest input record to having the embedding, ms. */
  readonly latencyMs: number;
  /** Rows the encoder computed for it. */
  readonly rowsComputed: number;
  readonly outcome: CacheOutcome;
}

export interface Candidate {
  readonly entity: string;
  readonly score: number;
}

/** Why an entity that was asked for has no score: the model does not know it, or the request denies it. */
export type LeftOutReason = 'unknown-entity' | 'denied' | 'filtered';

export interface LeftOutCandidate {
  readonly entity: string;
  readonly reason: LeftOutReason;
}

export interface CandidateScores {
  readonly userId: string;
  /** Tokens the user had accepted: the version of the state that scored; 0 for none. */
  readonly version: number;
  /** The request that this answers. Absent: the best of the catalogue, published with the embedding. */
  readonly requestId?: string;
  /** Best first. */
  readonly candidates: readonly Candidate[];
  /** Probability per task of the bundle, each in the order of `candidates`. Absent where the bundle has no task heads. */
  readonly tasks?: Readonly<Record<string, Float32Array>>;
  /** Asked for and not scored. Absent for none. */
  readonly leftOut?: readonly LeftOutCandidate[];
  /** The user had no history here: scored without one. Absent otherwise. */
  readonly coldStart?: boolean;
  /** The moment that the scores are for, ms since the epoch. Absent where it is the newest event's. */
  readonly queryTimeMs?: number;
  /** Age of the newest event in the state at that moment, ms. Absent without history. */
  readonly ageMs?: number;
  readonly lineage: Lineage;
  readonly computedAtMs: number;
}

/**
 * The rank that the user's embedding gave to what the user did next, before having seen it: online quality at no extra
 * encoding (the finalised tail row is that embedding).
 */
export interface PrequentialRank {
  readonly userId: string;
  readonly eventId: string;
  readonly action: string;
  readonly entity: string;
  readonly eventTimeMs: number;
  /** The user's accepted tokens before this event. */
  readonly priorEvents: number;
  /** 1-based, among all entities not yet seen by the user. */
  readonly rank: number;
  readonly lineage: Lineage;
}

/** What became of one action, and its prequential rank where it has one: what analytics know of it that the action's own topic does not say. */
export interface ActionOutcome {
  readonly userId: string;
  readonly eventId: string;
  readonly action: string;
  readonly entity: string;
  readonly eventTimeMs: number;
  readonly disposition: Disposition;
  readonly position: SourcePosition;
  /** Absent: no embedding was asked about it. */
  readonly ranked?: Pick<PrequentialRank, 'rank' | 'priorEvents'> & Pick<Lineage, 'sequenceDigest' | 'modelDigest'>;
}
