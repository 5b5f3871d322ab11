/** From actions to tokens, as the bundle's vocabulary says. */
import type { UserAction } from '../../schemas/action.ts';
import type { ErrorCode } from '../../schemas/errors.ts';
import type { Bundle } from './bundle.ts';

export type Token =
  | { readonly kind: 'token'; readonly entity: number }
  | { readonly kind: 'keep' }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly message: string };

const KEEP: Token = { kind: 'keep' };

export class Tokenizer {
  readonly #rows: ReadonlyMap<string, number>;
  readonly #entities: readonly string[];
  readonly #encoded: ReadonlySet<string>;
  readonly #skipped: ReadonlySet<string>;
  readonly #unknownEntity: 'dead-letter' | 'skip';

  constructor({ config, entities }: Pick<Bundle, 'config' | 'entities'>) {
    this.#rows = new Map(entities.map((entity, i) => [entity, i + 1]));
    this.#entities = entities;
    this.#encoded = new Set(config.actions.encoded);
    this.#skipped = new Set(config.actions.skipped);
    this.#unknownEntity = config.unknownEntity;
  }

  token({ action, entity }: Pick<UserAction, 'action' | 'entity'>): Token {
    if (this.#skipped.has(action)) return KEEP;
    if (!this.#encoded.has(action)) {
      const allowed = [...this.#encoded, ...this.#skipped].join(', ');
      return { kind: 'refuse', code: 'ACTION_UNKNOWN', message: `action '${action}' is not in the bundle; allowed: ${allowed}` };
    }
    const row = this.#rows.get(entity);
    if (row !== undefined) return { kind: 'token', entity: row };
    if (this.#unknownEntity === 'skip') return KEEP;
    return {
      kind: 'refuse',
      code: 'ENTITY_UNKNOWN',
      message: `entity '${entity}' is not in the bundle's ${this.#entities.length} entities`,
    };
  }

  /** Embedding row of an entity, or undefined. */
  rowOf(entity: string): number | undefined {
    return this.#rows.get(entity);
  }

  /** External id of an embedding row. */
  entityOf(row: number): string {
    return this.#entities[row - 1] ?? `row:${row}`;
  }
}
