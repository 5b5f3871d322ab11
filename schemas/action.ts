/** What users did, where the record came from, and what becomes of a record that cannot be used. */
import type { ErrorCode } from './errors.ts';
import type { UnreadableRow } from './unreadable-row.ts';

/** One thing a user did. Ids are strings, opaque to us; an entity carries its namespace (`movie:1`). */
export interface UserAction {
  /** Unique per user; a second action of the same id is a duplicate and dropped. */
  readonly eventId: string;
  readonly userId: string;
  /** Kind of action, from the vocabulary of the model bundle: `rating`, `like`, `purchase`. */
  readonly action: string;
  readonly entity: string;
  /** Rating, watch time, price: the unit is the action's. */
  readonly value?: number;
  /** When the user did it, ms since the epoch. */
  readonly eventTimeMs: number;
  readonly context?: Readonly<Record<string, string>>;
}

/** Where a record stands in its source. For a file: its name, partition 0, and the record's number from 0. */
export interface SourcePosition {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** A record as the source gave it, before decoding. */
export interface SourceRecord {
  readonly position: SourcePosition;
  /** Raw bytes or an already parsed row; kept for the dead letter. Null: a tombstone. */
  readonly value: Uint8Array | string | Readonly<Record<string, unknown>> | UnreadableRow | null;
  /** A Kafka record's key. */
  readonly key?: Uint8Array | null;
  /** A Kafka record's timestamp, ms since the epoch. */
  readonly timestampMs?: number;
  /** It stands in the place of what cannot be given, a batch that is too large: this is why. Its value is null, and no tombstone. */
  readonly fault?: { readonly code: ErrorCode; readonly message: string };
}

/** A decoded action with the place it came from. */
export interface PositionedAction extends UserAction {
  readonly position: SourcePosition;
  /** Which of its record's actions, from 0, where records hold several. */
  readonly part?: number;
  /** Made of the context of the action at this position, which follows: a side feature. */
  readonly derived?: true;
}

/** A record that could not be used: original bytes, the reason, and the step that gave up on it. */
export interface DeadLetter {
  readonly position: SourcePosition;
  readonly code: ErrorCode;
  readonly step: string;
  readonly message: string;
  readonly original: Uint8Array | string | null;
  readonly originalKey?: Uint8Array | null;
  /** Kind of the action, where the record was decoded to one. */
  readonly action?: string;
  /** Whose it is, where the record was decoded: what an erasure finds the letter by, also where its key is another. */
  readonly userId?: string;
}

/** An action that was read and understood, and is not encoded: counted, never silent. */
export type Disposition =
  /** Appended at the end of the user's sequence. */
  | 'appended'
  /** Late: inserted where its event time belongs; the cache is truncated there. */
  | 'inserted'
  /** Kept in the sequence, of a kind that this model does not encode. */
  | 'kept'
  /** An event id that this user already has, or a side feature's value that was in force. */
  | 'duplicate'
  /** Older than the user's window: counted, not inserted. */
  | 'late';
