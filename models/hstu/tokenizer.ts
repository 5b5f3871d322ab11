/** From actions to tokens, as the bundle's vocabulary and token layout say. */
import type { UserAction } from '../../schemas/action.ts';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import { type ErrorCode, PipelineError } from '../../schemas/errors.ts';
import type { Bundle } from './bundle.ts';
import { rowNumbers } from './row-numbers.ts';
import { TokenCode } from './token-code.ts';

export type Token =
  /** `entity` is the event's token: an embedding row, or what the layout makes of entity, actions and value. */
  | { readonly kind: 'token'; readonly entity: number }
  /** Layout `interleaved`: the event's tokens in order, the entity (`entity`, again) and what was done with it. */
  | { readonly kind: 'token'; readonly entity: number; readonly tokens: readonly [number, number] }
  /** Of a kind that is not encoded, or of an entity that the model does not have. */
  | { readonly kind: 'keep'; readonly unknownEntity?: true }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly message: string };

const KEEP: Token = { kind: 'keep' };
const KEEP_UNKNOWN: Token = { kind: 'keep', unknownEntity: true };
/** Joins actions of one event: `click+like`. */
const AND = '+';

export class Tokenizer {
  readonly #rows: ReadonlyMap<string, number>;
  /** Rows of entities that came after the model: candidates, never tokens. */
  readonly #added: ReadonlyMap<string, number>;
  readonly #addedEntities: readonly string[];
  readonly #entities: readonly string[];
  readonly #config: BundleConfig;
  readonly #code: TokenCode;
  /** Bit of each encoded kind. */
  readonly #bits: ReadonlyMap<string, number>;
  readonly #skipped: ReadonlySet<string>;
  /** Row of the value embedding before each kind's first, by kind with values. */
  readonly #firstBucket: ReadonlyMap<string, number>;

  constructor({ config, entities, catalogue }: Pick<Bundle, 'config' | 'entities' | 'catalogue'>) {
    this.#rows = rowNumbers(entities);
    this.#addedEntities = catalogue?.entities ?? [];
    this.#added = new Map(this.#addedEntities.map((entity, k) => [entity, -(k + 1)]));
    this.#entities = entities;
    this.#config = config;
    this.#code = new TokenCode(config);
    this.#bits = new Map(config.actions.encoded.map((kind, bit) => [kind, bit]));
    this.#skipped = new Set(config.actions.skipped);
    this.#firstBucket = firstBuckets(config);
  }

  /** With a token layout, `action` may name several kinds of the same moment, joined by `+`. */
  token({ action, entity, value }: Pick<UserAction, 'action' | 'entity' | 'value'>): Token {
    if (this.#skipped.has(action)) return KEEP;
    const kinds = this.#kindsOf(action);
    if (kinds === undefined) {
      const allowed = [...this.#bits.keys(), ...this.#skipped].join(', ');
      return { kind: 'refuse', code: 'ACTION_UNKNOWN', message: `action '${action}' is not in the bundle; allowed: ${allowed}` };
    }
    const row = this.#tableRowOf(entity);
    if (row !== undefined) return this.#tokenOf(row, kinds, value);
    if (this.#config.unknownEntity === 'skip') return KEEP_UNKNOWN;
    return {
      kind: 'refuse',
      code: 'ENTITY_UNKNOWN',
      message: `entity '${entity}' is not in the bundle's ${this.#entities.length} entities`,
    };
  }

  /**
   * Whether the token at a place is of an entity on which one of these kinds was done; with undefined, of any.
   *
   * @throws PipelineError `CONFIG_INVALID` for kinds that are not encoded, or a bundle whose tokens do not say what was done
   */
  ofKinds(kinds: readonly string[] | undefined): (tokens: Int32Array, place: number) => boolean {
    const code = this.#code;
    const layout = this.#config.tokens?.layout;
    if (kinds === undefined) return (tokens, place) => code.entityOf(tokens[place]!) > 0;
    const allowed = [...this.#bits.keys()];
    const unknown = kinds.filter((kind) => !this.#bits.has(kind));
    if (unknown.length > 0)
      throw new PipelineError(
        'CONFIG_INVALID',
        `scores.seenFilter.actions: ${unknown.join(', ')}: the bundle encodes ${allowed.join(', ')}`,
      );
    if (layout === undefined && allowed.length > kinds.length)
      throw new PipelineError(
        'CONFIG_INVALID',
        `scores.seenFilter.actions: this bundle's tokens do not say what was done (it has no tokens.layout), so ${kinds.join(', ')} cannot be told from ${allowed.join(', ')}; forDays alone can`,
      );
    if (layout === undefined) return () => true;
    const mask = kinds.reduce((bits, kind) => bits | (1 << this.#bits.get(kind)!), 0);
    // Interleaved, what was done stands behind the entity.
    const behind = layout === 'interleaved' ? 1 : 0;
    return (tokens, place) => {
      const done = tokens[place + behind];
      return code.entityOf(tokens[place]!) > 0 && done !== undefined && (code.decode(done).actionBits & mask) !== 0;
    };
  }

  /**
   * Row of an entity as a candidate: its own, below zero where it came after the model; else one of those out of the vocabulary,
   * where the bundle has them.
   */
  rowOf(entity: string): number | undefined {
    return this.#added.get(entity) ?? this.#tableRowOf(entity);
  }

  #tableRowOf(entity: string): number | undefined {
    const { outOfVocabulary, vocabularySize } = this.#config;
    const row = this.#rows.get(entity);
    if (row !== undefined || outOfVocabulary === undefined) return row;
    return vocabularySize + 1 + (hash(entity) % outOfVocabulary);
  }

  /** External id of an embedding row, or of a token's entity. */
  entityOf(row: number): string {
    if (row < 0) return this.#addedEntities[-row - 1] ?? `row:${row}`;
    return this.#entities[this.#code.entityOf(row) - 1] ?? `row:${row}`;
  }

  /** Row of the vocabulary that a token is of; 0 for one of an action, or out of the vocabulary. */
  entityRowOf(token: number): number {
    const row = this.#code.entityOf(token);
    return row <= this.#config.vocabularySize ? row : 0;
  }

  #kindsOf(action: string): readonly string[] | undefined {
    if (this.#bits.has(action)) return [action];
    if (this.#config.tokens === undefined) return undefined;
    const kinds = action.split(AND);
    return kinds.every((kind) => this.#bits.has(kind)) ? kinds : undefined;
  }

  #tokenOf(entity: number, kinds: readonly string[], value: number | undefined): Token {
    if (this.#config.tokens === undefined) return { kind: 'token', entity };
    const actionBits = kinds.reduce((bits, kind) => bits | (1 << this.#bits.get(kind)!), 0);
    const valued = kinds.find((kind) => this.#firstBucket.has(kind));
    const bucket = valued === undefined || value === undefined || Number.isNaN(value) ? 0 : this.#bucketOf(valued, value);
    if (this.#config.tokens.layout === 'additive')
      return { kind: 'token', entity: this.#code.encode({ entity, actionBits, bucket }) };
    return { kind: 'token', entity, tokens: [entity, this.#code.encode({ entity: 0, actionBits, bucket })] };
  }

  #bucketOf(kind: string, value: number): number {
    const edges = this.#config.tokens!.values[kind]!;
    return this.#firstBucket.get(kind)! + edges.filter((edge) => edge <= value).length;
  }
}

/** Rows of the value embedding, from 1: the kinds in the bundle's order, each with one bucket more than it has edges. */
function firstBuckets({ actions, tokens }: BundleConfig): Map<string, number> {
  const first = new Map<string, number>();
  let next = 1;
  for (const kind of actions.encoded) {
    const edges = tokens?.values[kind];
    if (edges === undefined) continue;
    first.set(kind, next);
    next += edges.length + 1;
  }
  return first;
}

/** FNV-1a over the UTF-16 code units (Fowler, Noll and Vo; public domain), unsigned. */
function hash(text: string): number {
  let state = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193);
  return state >>> 0;
}
