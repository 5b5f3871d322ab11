/**
 * Tokens as integers: entity, actions and value of an event in one number, so that windows, digests and the cache compare tokens
 * whole and need not know what they are made of. Without a token layout the number is the entity's embedding row.
 */
import { type BundleConfig, entityRows, tokenIds, valueRows } from '../../schemas/bundle-config.ts';

export interface TokenParts {
  /** Row of the entity embedding; 0 where the token is an action alone. */
  readonly entity: number;
  /** Bit `a` is action `a` of the bundle's encoded kinds; 0 where the token is an entity alone. */
  readonly actionBits: number;
  /** Row of the value embedding, from 1; 0: no value. */
  readonly bucket: number;
}

type Config = Pick<BundleConfig, 'vocabularySize' | 'outOfVocabulary' | 'tokens' | 'actions'>;

export class TokenCode {
  readonly #stride: number;
  readonly #buckets: number;
  readonly #ids: number;
  readonly #layout: 'entity' | 'additive' | 'interleaved';

  constructor(config: Config) {
    this.#stride = entityRows(config);
    this.#buckets = valueRows(config) + 1;
    this.#ids = tokenIds(config);
    this.#layout = config.tokens?.layout ?? 'entity';
  }

  /** `entity + entityRows * (bucket + (valueRows + 1) * actionBits)` */
  encode({ entity, actionBits, bucket }: TokenParts): number {
    return entity + this.#stride * (bucket + this.#buckets * actionBits);
  }

  decode(token: number): TokenParts {
    const code = Math.floor(token / this.#stride);
    return { entity: token % this.#stride, actionBits: Math.floor(code / this.#buckets), bucket: code % this.#buckets };
  }

  /** Row of the entity embedding; 0 for an action alone. */
  entityOf(token: number): number {
    return token % this.#stride;
  }

  /** Whether the layout has such a token: an entity, an entity and what was done with it, or either by itself. */
  isToken(token: number): boolean {
    if (!(Number.isInteger(token) && token > 0 && token < this.#ids)) return false;
    if (this.#layout === 'entity') return true;
    const { entity, actionBits, bucket } = this.decode(token);
    if (this.#layout === 'additive') return entity > 0 && actionBits > 0;
    return entity > 0 ? actionBits === 0 && bucket === 0 : actionBits > 0;
  }
}
