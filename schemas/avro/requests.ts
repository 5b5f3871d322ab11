/** What is asked of the stream besides actions: scores for candidates, and that a user be forgotten. */

/** Asks for the scores of some entities for a user. */
export interface CandidateRequest {
  /** Comes back with the answer. */
  readonly requestId: string;
  readonly userId: string;
  /** The candidates, with their namespaces: `movie:1`. */
  readonly entities: readonly string[];
  /** The moment that the scores are for, ms since the epoch. */
  readonly queryTimeMs: number;
  /** An answer later than this is of no use, ms since the epoch. */
  readonly deadlineMs?: number;
}

/** Asks that a user be erased: sequence, cache, and all that was stored. */
export interface Erasure {
  readonly userId: string;
  /** When the user asked for it, ms since the epoch. */
  readonly requestedAtMs?: number;
  /** For the audit. */
  readonly reason?: string;
}
