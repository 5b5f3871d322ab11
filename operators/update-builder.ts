/** Turns one user's events of one batch into the segments to encode, so that no result depends on how events were batched. */
import type { PositionedAction } from '../schemas/action.ts';
import type { PublishPoint, RankTarget, UserUpdate } from '../schemas/batch.ts';
import type { EncodeSegment } from '../schemas/encoding.ts';
import { toSeconds, type UserSequence } from './user-sequence.ts';

/** How often a user's embedding is published: once for all events of a batch, or once an event. */
export type PublishMode = 'every-batch' | 'every-event';

/** An event as it enters the sequence. */
export interface AddedToken {
  readonly entity: number;
  /** What was done with the entity, where that is a token of its own. */
  readonly second: number | undefined;
  /** Ask how it ranked: not for side features, which nobody recommends. */
  readonly ranked: boolean;
}

/**
 * Collects the update of one user while a batch is read.
 *
 * Row `r` of a segment depends on tokens `0 … r` and on the time of token `r + 1` (of the query, for the last row). So
 * events appended in order share one segment, in which row `i - 1` is the embedding at the moment event `i` happened. A
 * segment must end where its tokens stop being a prefix of the sequence: when the window slides (every position moves)
 * and before a late event (the tokens after it move).
 *
 * Of an event of two tokens, the entity and what was done with it, the row before the first answers for the entity, and the
 * row of the second is the newest.
 *
 * A segment of which nobody wants a row is not sent: two late events in a row cost one encoding.
 */
export class UpdateBuilder {
  readonly #userId: string;
  readonly #sequence: UserSequence;
  readonly #mode: PublishMode;
  readonly #segments: EncodeSegment[] = [];
  readonly #targets: RankTarget[] = [];
  readonly #publish: PublishPoint[] = [];
  /** First wanted row of the segment being built, whose tokens are the sequence's own as long as it is open. */
  #openFrom: number | null = null;
  #openHasTarget = false;
  /** The seen list before the batch's first token, and what was added since. */
  #seenBefore: Int32Array | null = null;
  readonly #seenAdded: number[] = [];
  #seenBase = 0;
  #newest: PositionedAction | null = null;

  constructor(userId: string, sequence: UserSequence, mode: PublishMode) {
    this.#userId = userId;
    this.#sequence = sequence;
    this.#mode = mode;
  }

  /** Takes the event's token, or its two, into the sequence and says what became of it. */
  add(action: PositionedAction, { entity, second, ranked }: AddedToken): 'appended' | 'inserted' | 'duplicate' | 'late' {
    const sequence = this.#sequence;
    const disposition = sequence.classify(action.eventId, action.eventTimeMs);
    if (disposition === 'duplicate' || disposition === 'late') return disposition;
    if (this.#seenBefore === null) {
      this.#seenBefore = sequence.seen();
      this.#seenBase = sequence.seenStart;
    }
    const slides = sequence.slidesWith(second === undefined ? 1 : 2);
    if (disposition === 'inserted') this.#closeIfWanted(sequence.newestTimeMs);
    else if (ranked) this.#rank(action, entity);
    if (disposition === 'appended' && slides) this.#closeIfWanted(action.eventTimeMs);

    const seenEnd = sequence.seenEnd;
    sequence.add(action.eventId, action.eventTimeMs, entity, second);
    if (sequence.seenEnd > seenEnd) this.#seenAdded.push(entity);
    this.#newest = action;

    // Of new tokens whose place differs from before, only the newest row is wanted; later events extend the segment.
    this.#openFrom ??= sequence.length - 1;
    if (this.#mode === 'every-event') this.#closeAndPublish();
    return disposition;
  }

  /** The update, or null if no token was accepted. Call once, after the batch's last event. */
  finish(): UserUpdate | null {
    if (this.#seenBefore === null) return null;
    if (this.#openFrom !== null) this.#closeAndPublish();
    const seen = new Int32Array(this.#seenBefore.length + this.#seenAdded.length);
    seen.set(this.#seenBefore);
    seen.set(this.#seenAdded, this.#seenBefore.length);
    return {
      userId: this.#userId,
      request: { userId: this.#userId, segments: this.#segments },
      targets: this.#targets,
      publish: this.#publish,
      seen,
    };
  }

  /**
   * Asks how the row before an in-order event ranked it. A late event is not ranked: the row before its place answered
   * for the event that followed at the time, and no embedding was ever asked about the late one.
   */
  #rank(action: PositionedAction, entity: number): void {
    const sequence = this.#sequence;
    if (sequence.length === 0) return;
    const lastRow = sequence.length - 1;
    this.#openFrom ??= lastRow;
    this.#targets.push({
      segment: this.#segments.length,
      row: lastRow - this.#openFrom,
      entity,
      ...this.#seenRange(),
      priorEvents: sequence.version,
      sequenceDigest: sequence.digest,
      action,
    });
    this.#openHasTarget = true;
  }

  #closeIfWanted(queryTimeMs: number): void {
    if (this.#openHasTarget) this.#close(queryTimeMs);
    this.#openFrom = null;
  }

  /** Ends the open segment: its last row is asked about `queryTimeMs`. */
  #close(queryTimeMs: number): void {
    const from = this.#openFrom ?? this.#sequence.length - 1;
    this.#segments.push({ ...this.#sequence.snapshot(), from, queryTimeS: toSeconds(queryTimeMs) });
    this.#openFrom = null;
    this.#openHasTarget = false;
  }

  #closeAndPublish(): void {
    const sequence = this.#sequence;
    const newestTimeMs = sequence.newestTimeMs;
    this.#publish.push({
      segment: this.#segments.length,
      version: sequence.version,
      sequenceLength: sequence.length,
      sequenceDigest: sequence.digest,
      lastEventTimeMs: newestTimeMs,
      queryTimeMs: newestTimeMs,
      ...this.#seenRange(),
      position: this.#newest!.position,
    });
    this.#close(newestTimeMs);
  }

  /** What the user has seen by now, in entries of the update's `seen`. */
  #seenRange(): { readonly seenStart: number; readonly seenCount: number } {
    return { seenStart: this.#sequence.seenStart - this.#seenBase, seenCount: this.#sequence.seenEnd - this.#seenBase };
  }
}
