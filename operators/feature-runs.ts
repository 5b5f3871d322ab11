/**
 * Which side features of a user are new: of each run of equal values only the earliest event becomes a token, so that the
 * sequence stays append-only and its cache survives.
 *
 * Not a step of its own: that a value is in force follows from the tokens of the window and from nothing else, so that any
 * batching, a restart and a replay give the same sequence; and the tokens change with every event of a batch. A value whose
 * token has left the window is new again. Plain data, no RxJS.
 */
import type { UserSequence } from './user-sequence.ts';

export interface FeatureRunsOptions {
  /** Namespaces of side features: `language`, of entities `language:en`. */
  readonly namespaces: readonly string[];
  /** External id of a token's entity. */
  readonly entityOf: (token: number) => string;
}

/** `language`, of `language:en`. */
export const namespaceOf = (entity: string): string => entity.slice(0, Math.max(0, entity.indexOf(':')));

export class FeatureRuns {
  readonly #namespaces: ReadonlySet<string>;
  readonly #entityOf: (token: number) => string;
  /** Of tokens met, by their number; empty for all that are no side features. */
  readonly #known = new Map<number, string>();

  constructor({ namespaces, entityOf }: FeatureRunsOptions) {
    this.#namespaces = new Set(namespaces);
    this.#entityOf = entityOf;
  }

  isFeature(entity: string): boolean {
    return this.#namespaces.has(namespaceOf(entity));
  }

  /** Whether a token stands for this very value, and not for all that the model does not know. */
  knows(entity: string, token: number): boolean {
    return this.#entityOf(token) === entity;
  }

  /** Whether this value was in force at that time already. */
  isInForce(entity: string, timeMs: number, sequence: UserSequence): boolean {
    const namespace = namespaceOf(entity);
    const found = sequence.newestUpTo(timeMs, (token) => namespaceOf(this.#featureOf(token)) === namespace);
    return found !== undefined && this.#featureOf(found) === entity;
  }

  #featureOf(token: number): string {
    const known = this.#known.get(token);
    if (known !== undefined) return known;
    const entity = this.#entityOf(token);
    const feature = this.isFeature(entity) ? entity : '';
    this.#known.set(token, feature);
    return feature;
  }
}
