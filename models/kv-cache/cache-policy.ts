/** Who leaves the KV cache when room is wanted, and who is not let in. Decides what an encode costs, never what it answers. */
import { CostAwarePolicy } from './cost-aware-policy.ts';

/** `lru`: the least recently used goes. `cost-aware`: who is worth least a byte goes, and a newcomer worth less is not let in. */
export type CachePolicyName = 'lru' | 'cost-aware';

export interface CachePolicy {
  /** The user is asked for, held or not. */
  asked(userId: string): void;
  /** The user has room for `rows` rows from now on. */
  held(userId: string, rows: number): void;
  /** Those held, the first to go first. Nothing may be held or let go of before the iteration ends. */
  order(): Iterable<string>;
  /** Whether the user may have the room of another. */
  prefers(userId: string, rows: number, other: string): boolean;
  /** The user got no room: all others are worth more. */
  refused(userId: string, rows: number): void;
  /** The user's room was given to another. */
  evicted(userId: string): void;
  /** The user is no longer held. */
  dropped(userId: string): void;
}

/** Room that a user wants: for `rows` rows in all, `missing` pages more than are free. */
interface Wanted {
  readonly userId: string;
  readonly rows: number;
  readonly missing: number;
}

/**
 * Who goes so that a user gets room. The policy is told where it is refused.
 *
 * @param mayGo the first to go first
 * @returns undefined where nobody goes: so much is not to be had, or one of them is worth more than the user
 */
export function victimsFor<Entry extends { readonly userId: string }>(
  policy: CachePolicy,
  { userId, rows, missing }: Wanted,
  mayGo: Iterable<Entry>,
  pagesOf: (entry: Entry) => number,
): readonly Entry[] | undefined {
  const victims: Entry[] = [];
  if (missing <= 0) return victims;
  let left = missing;
  for (const entry of mayGo) {
    if (!policy.prefers(userId, rows, entry.userId)) {
      policy.refused(userId, rows);
      return undefined;
    }
    victims.push(entry);
    left -= pagesOf(entry);
    if (left <= 0) return victims;
  }
  return undefined;
}

/** @param costOf what encoding so many rows from nothing costs, in any unit */
export const cachePolicy = (name: CachePolicyName, costOf: (rows: number) => number): CachePolicy =>
  name === 'lru' ? new LruPolicy() : new CostAwarePolicy(costOf);

export class LruPolicy implements CachePolicy {
  /** Least recently used first. */
  readonly #users = new Set<string>();

  asked(userId: string): void {
    if (this.#users.delete(userId)) this.#users.add(userId);
  }

  held(userId: string): void {
    this.#users.delete(userId);
    this.#users.add(userId);
  }

  order(): Iterable<string> {
    return this.#users;
  }

  prefers(): boolean {
    return true;
  }

  refused(): void {}

  evicted(userId: string): void {
    this.#users.delete(userId);
  }

  dropped(userId: string): void {
    this.#users.delete(userId);
  }
}
