/** A call of the encoder that waits for its turn. */
import type { WorkClass } from '../../schemas/encoding.ts';
import type { PipelineError } from '../../schemas/errors.ts';

/** Calls that wait for their turn, and may be carried out together with others of their kind. */
export type ScheduledName = 'encode' | 'encodeInBulk' | 'score' | 'scoreCandidates';

export interface WaitingCall {
  readonly name: ScheduledName;
  readonly requests: readonly unknown[];
  /** Whose caches it goes through; none for `score`. */
  readonly users: readonly string[];
  /** Raised where a more urgent call of one of its users comes behind it. */
  workClass: WorkClass;
  readonly key: string | number;
  readonly deadlineMs: number | undefined;
  /** By the scheduler's clock, ms. */
  readonly sinceMs: number;
  /** Earlier calls of its users that wait too: it may not be sent before them. */
  readonly behind: Set<WaitingCall>;
  /** Later ones. */
  readonly followers: WaitingCall[];
  readonly resolve: (answers: readonly never[]) => void;
  readonly reject: (error: PipelineError) => void;
}
