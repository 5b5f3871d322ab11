/** What a backfill knows of the users in hand: their sequences, and what the last accepted event was. */
import type { UserSequence } from '../../operators/index.ts';
import type { SourcePosition } from '../../schemas/action.ts';
import type { ProcessedAction } from '../../schemas/batch.ts';

interface History {
  sequence: UserSequence | undefined;
  /** Of the newest token by time, ms. */
  lastEventTimeMs: number;
  /** Of the last token accepted. */
  position: SourcePosition | undefined;
}

/** A state before an event: what the row that the event is asked of was made from. */
export interface StateBefore {
  readonly lastEventTimeMs: number;
  readonly position: SourcePosition;
}

/** A sequence store for users that come one after the other: it holds those of the batch in hand, and forgets them after it. */
export class Histories {
  readonly #users = new Map<string, History>();

  get size(): number {
    return this.#users.size;
  }

  get(userId: string): UserSequence | undefined {
    return this.#users.get(userId)?.sequence;
  }

  getOrCreate(userId: string, create: () => UserSequence): UserSequence {
    const history = this.#of(userId);
    history.sequence ??= create();
    return history.sequence;
  }

  /** An erasure: the user begins anew. */
  delete(userId: string): boolean {
    return this.#users.delete(userId);
  }

  /** The token last accepted of a user, until the next is noted; undefined for none. */
  last(userId: string): StateBefore | undefined {
    const history = this.#users.get(userId);
    return history?.position === undefined ? undefined : (history as StateBefore);
  }

  /** Notes what became of an action; in order. */
  note({ action: { userId, eventTimeMs, position }, disposition }: ProcessedAction): void {
    if (disposition !== 'appended' && disposition !== 'inserted') return;
    const history = this.#of(userId);
    history.lastEventTimeMs = Math.max(history.lastEventTimeMs, eventTimeMs);
    history.position = position;
  }

  /** Forgets all users but one, whose history goes on. */
  keepOnly(userId: string | undefined): void {
    const kept = userId === undefined ? undefined : this.#users.get(userId);
    this.#users.clear();
    if (kept !== undefined) this.#users.set(userId!, kept);
  }

  #of(userId: string): History {
    let history = this.#users.get(userId);
    if (history === undefined) {
      history = { sequence: undefined, lastEventTimeMs: Number.NEGATIVE_INFINITY, position: undefined };
      this.#users.set(userId, history);
    }
    return history;
  }
}
