/** What is asked of the stream besides actions: scores for candidates, and that a user be forgotten. */

import type { SourcePosition } from '../action.ts';
import type { CatalogueFilter } from '../catalogue-filter.ts';

/** Asks for the scores of some entities for a user. */
export interface CandidateRequest {
  /** Comes back with the answer. */
  readonly requestId: string;
  readonly userId: string;
  /**
   * The candidates, with their namespaces: `movie:1`. One that is named twice is answered once; none: with `topK` the whole
   * catalogue, less what the user has seen where `scores.seenFilter` says so; without it an empty answer.
   */
  readonly entities: readonly string[];
  /** The moment that the scores are for, ms since the epoch. */
  readonly queryTimeMs: number;
  /** An answer later than this is of no use, ms since the epoch. */
  readonly deadlineMs?: number;
  /** At most so many of the best. @default all that were asked for */
  readonly topK?: number;
  /** Entities that the answer must not hold. */
  readonly deny?: readonly string[];
  /** What the catalogue must say of an entity for the answer to hold it. */
  readonly filter?: CatalogueFilter;
}

/** A request with the place it came from. */
export interface PositionedRequest extends CandidateRequest {
  readonly position: SourcePosition;
}

/** Asks that a user be erased: sequence, cache, and all that was stored. */
export interface Erasure {
  readonly userId: string;
  /** When the user asked for it, ms since the epoch. */
  readonly requestedAtMs?: number;
  /** For the audit. */
  readonly reason?: string;
}
