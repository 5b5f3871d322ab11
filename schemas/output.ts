/** What the system publishes: embeddings, candidate scores, prequential ranks; each with the lineage to reproduce it. */
import type { Disposition, SourcePosition } from './action.ts';
import type { CacheOutcome } from './encoding.ts';

/** Enough to say which input and which model an output was made of. */
export interface Lineage {
  /** The newest input record that this output includes. */
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

export interface CandidateScores {
  readonly userId: string;
  readonly version: number;
  readonly requestId?: string;
  /** Best first. */
  readonly candidates: readonly Candidate[];
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
