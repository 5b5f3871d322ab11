/** From tokens to the rows that enter the first layer. */
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { Bundle } from './bundle.ts';
import { TokenCode } from './token-code.ts';

export class TokenEmbedding {
  readonly #dimension: number;
  readonly #scale: number;
  readonly #code: TokenCode;
  readonly #tensor: (name: string) => Float32Array | undefined;
  readonly #entities: Float32Array;
  /** Rows of entities that came after the model. */
  #newEntities: Float32Array | undefined;
  readonly #positions: Float32Array | undefined;
  readonly #additive: boolean;
  /** What actions and value add, by both: a bundle meets few combinations. */
  readonly #added = new Map<number, Float32Array>();
  /** What a candidate has in place of an action. */
  readonly #unknownAction: Float32Array | undefined;

  constructor({ config, tensors, catalogue }: Bundle) {
    this.#dimension = config.dimension;
    this.#scale = config.stu?.embeddingScale ?? Math.sqrt(config.dimension);
    this.#code = new TokenCode(config);
    this.#tensor = (name) => tensors.get(name)?.data;
    this.#entities = this.#tensor('entity_embedding')!;
    this.#newEntities = catalogue?.rows;
    this.#positions = this.#tensor('position_embedding');
    this.#additive = config.tokens?.layout === 'additive';
    if (this.#additive) this.#unknownAction = this.#tensor('action_embedding')!.subarray(0, config.dimension);
  }

  /** From now on, new entities are those of `catalogue`. */
  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#newEntities = catalogue.rows;
  }

  /**
   * Writes `(E[entity] + Σ A[action] + V[bucket]) * scale + P[position]`, `(D,)`, to `x` from `at` on, of what the token has; the
   * scale is `sqrt(D)` unless the bundle has its own.
   */
  write(x: Float32Array, at: number, token: number, position: number): void {
    const entity = this.#code.entityOf(token);
    this.#write(x, at, entity, token === entity ? undefined : this.#addedBy(token - entity), position);
  }

  /** The same of an entity that nothing has been done with yet: `additive` adds the row of the unknown action. */
  writeCandidate(x: Float32Array, at: number, entity: number, position: number): void {
    this.#write(x, at, entity, this.#unknownAction, position);
  }

  #write(x: Float32Array, at: number, entity: number, added: Float32Array | undefined, position: number): void {
    const D = this.#dimension;
    const table = entity < 0 ? this.#newEntities! : this.#entities;
    const from = (entity < 0 ? -entity - 1 : entity) * D;
    const positionFrom = position * D;
    for (let d = 0; d < D; d++) {
      const content = table[from + d]! + (added?.[d] ?? 0);
      x[at + d] = content * this.#scale + (this.#positions?.[positionFrom + d] ?? 0);
    }
  }

  /** @param token without its entity */
  #addedBy(token: number): Float32Array {
    const known = this.#added.get(token);
    if (known !== undefined) return known;
    const D = this.#dimension;
    const { actionBits, bucket } = this.#code.decode(token);
    const sum = new Float32Array(D);
    const add = (table: string, row: number) => {
      const rows = this.#tensor(table)!;
      for (let d = 0; d < D; d++) sum[d]! += rows[row * D + d]!;
    };
    for (let action = 0; actionBits >> action > 0; action++)
      if ((actionBits >> action) & 1) add('action_embedding', action + (this.#additive ? 1 : 0));
    if (bucket > 0) add('value_embedding', bucket - 1);
    this.#added.set(token, sum);
    return sum;
  }
}
