/**
 * What a catalogue has become since its model was trained, beside the model: new entities, and those that are no longer offered.
 *
 * Rows of new entities are numbered -1, -2, …: candidates only, never tokens. A history keeps the row out of the vocabulary that it
 * always had, so that what is said of the catalogue later changes no window, no digest and no cached row.
 */
import { createHash } from 'node:crypto';
import { entityRows } from '../../schemas/bundle-config.ts';
import type { EntityReject, EntityUpdate } from '../../schemas/catalogue.ts';
import type { EntityFields } from '../../schemas/catalogue-filter.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { rowNumbers } from '../hstu/row-numbers.ts';
import { projectContent } from './content-projection.ts';

export interface CatalogueOverlay {
  /** New entities: entry `k` is row `-(k + 1)`. */
  readonly entities: readonly string[];
  /** Their rows of the entity table: `(entities, D)`. */
  readonly rows: Float32Array;
  /** Rows of the vocabulary that are not offered, ascending. */
  readonly retired: Int32Array;
  /** All rows that are offered, the most popular first; of equals the vocabulary's in their order, then the new ones. */
  readonly order: Int32Array;
  /** What is said of entities, by row; of those that nothing is said of there is none. Stays on the thread of the stream. */
  readonly fields?: ReadonlyMap<number, EntityFields>;
  /** 16 hexadecimal digits over all of it: with the bundle's digest, what lists are made of. */
  readonly digest: string;
  /** How popular each of `order` is: as said last, else as the bundle has it, else 0. */
  readonly popularity: Float32Array;
}

export type UpdateOutcome = 'known' | 'added' | 'retired' | 'removed';

/** What may be said of an update before it is taken. */
type Judgement =
  | { readonly ok: true; readonly outcome: UpdateOutcome }
  | { readonly ok: false; readonly reason: EntityReject; readonly message: string };

/** Takes updates, the newest of an entity last, and says what the catalogue is after them. */
export class Catalogue {
  readonly #bundle: Bundle;
  readonly #rows: ReadonlyMap<string, number>;
  readonly #updates = new Map<string, EntityUpdate>();
  /** Rows of the vocabulary, the most popular first as the bundle has it: nearly the order that is asked for. */
  readonly #trainedOrder: Int32Array;
  /** By content: a catalogue that is made again and again projects only what has come. */
  readonly #projected = new WeakMap<Float32Array, Float32Array>();

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#rows = rowNumbers(bundle.entities);
    const trained = bundle.tensors.get('popularity')?.data;
    this.#trainedOrder = Int32Array.from(bundle.entities, (_, i) => i + 1);
    if (trained !== undefined) this.#trainedOrder.sort((a, b) => trained[b - 1]! - trained[a - 1]! || a - b);
  }

  /** Makes the row of a new entity beforehand, so that `apply` need not make many at once. */
  prepare(update: EntityUpdate): void {
    if (update.content !== undefined && !this.#rows.has(update.entity) && this.judge(update).ok) this.#rowOf(update.content);
  }

  #rowOf(content: Float32Array): Float32Array {
    const { tensors } = this.#bundle;
    const projection = { weight: tensors.get('content.weight')!.data, bias: tensors.get('content.bias')!.data };
    const row = this.#projected.get(content) ?? projectContent(projection, content);
    this.#projected.set(content, row);
    return row;
  }

  /** Forgets all that was taken. */
  clear(): void {
    this.#updates.clear();
  }

  /** An update that is refused changes nothing: what was known of its entity stays. */
  take(update: EntityUpdate): Judgement {
    const judged = this.judge(update);
    if (!judged.ok) return judged;
    // An entity comes back in the place of its newest update.
    this.#updates.delete(update.entity);
    if (update.removed !== true) this.#updates.set(update.entity, update);
    return judged;
  }

  /** What would become of it. */
  judge({ entity, content, retired, removed }: EntityUpdate): Judgement {
    if (removed === true) return { ok: true, outcome: 'removed' };
    const { content: wanted, name } = this.#bundle.config;
    if (content !== undefined && wanted === undefined) {
      const message = `bundle ${name} has no projection of content; make one: hstu-streams model add-content`;
      return { ok: false, reason: 'content-without-projection', message };
    }
    if (content !== undefined && content.length !== wanted!.dimension) {
      const message = `content of '${entity}' has ${content.length} numbers; bundle ${name} projects ${wanted!.dimension}`;
      return { ok: false, reason: 'content-dimension', message };
    }
    if (retired === true) return { ok: true, outcome: 'retired' };
    if (this.#rows.has(entity)) return { ok: true, outcome: 'known' };
    if (content !== undefined) return { ok: true, outcome: 'added' };
    return { ok: false, reason: 'no-content', message: `'${entity}' is not in the vocabulary, and comes without content` };
  }

  /** The bundle with this catalogue beside it. Its digest stays: the catalogue changes no encoding. */
  apply(): Bundle {
    const { config } = this.#bundle;
    const updates = [...this.#updates.values()];
    const fresh = updates.filter(({ entity, retired }) => !retired && !this.#rows.has(entity));
    const rows = new Float32Array(fresh.length * config.dimension);
    for (const [k, { content }] of fresh.entries()) rows.set(this.#rowOf(content!), k * config.dimension);
    const retired = new Set(updates.flatMap(({ entity, retired }) => (retired === true ? (this.#rows.get(entity) ?? []) : [])));
    const entities = fresh.map(({ entity }) => entity);
    const catalogue = {
      entities,
      rows,
      fields: this.#fieldsOf(entities, updates),
      retired: Int32Array.from(retired).sort(),
      ...this.#order(entities, retired),
    };
    return { ...this.#bundle, catalogue: { ...catalogue, digest: digestOf(catalogue) } };
  }

  #fieldsOf(added: readonly string[], updates: readonly EntityUpdate[]): ReadonlyMap<number, EntityFields> {
    const rowOfAdded = new Map(added.map((entity, k) => [entity, -(k + 1)]));
    const fields = new Map<number, EntityFields>();
    for (const { entity, fields: said } of updates) {
      const row = this.#rows.get(entity) ?? rowOfAdded.get(entity);
      if (said !== undefined && row !== undefined) fields.set(row, said);
    }
    return fields;
  }

  #order(added: readonly string[], retired: ReadonlySet<number>): Pick<CatalogueOverlay, 'order' | 'popularity'> {
    const trained = this.#bundle.tensors.get('popularity')?.data;
    const offered: { readonly row: number; readonly popularity: number }[] = [];
    const offer = (entity: string, row: number) =>
      offered.push({ row, popularity: this.#updates.get(entity)?.popularity ?? trained?.[row - 1] ?? 0 });
    for (const row of this.#trainedOrder) if (!retired.has(row)) offer(this.#bundle.entities[row - 1]!, row);
    for (const [k, entity] of added.entries()) offer(entity, -(k + 1));
    // Of equals the vocabulary's in their order, then the new ones in theirs.
    const place = (row: number) => (row > 0 ? row : this.#bundle.entities.length - row);
    offered.sort((a, b) => b.popularity - a.popularity || place(a.row) - place(b.row));
    return {
      order: Int32Array.from(offered, ({ row }) => row),
      popularity: Float32Array.from(offered, ({ popularity }) => popularity),
    };
  }
}

function digestOf({ entities, rows, retired, order, popularity, fields }: Omit<CatalogueOverlay, 'digest'>): string {
  const hash = createHash('sha256').update(JSON.stringify(entities));
  // Without fields as it was before there were any, so that runs keep their names.
  if (fields !== undefined && fields.size > 0) hash.update(JSON.stringify([...fields].sort(([a], [b]) => a - b)));
  for (const part of [rows, retired, order, popularity])
    hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  return hash.digest('hex').slice(0, 16);
}

/** Whether `row` is one that a candidate may have: of the table, or of a new entity. */
export const isCandidateRow = (row: number, { config, catalogue }: Pick<Bundle, 'config' | 'catalogue'>): boolean =>
  row > 0 ? row < entityRows(config) : row < 0 && -row <= (catalogue?.entities.length ?? 0);

/** What a user is given of whom nothing is known, as `PopularityOrder` of the operators. */
export class CatalogueOrder {
  readonly #order: Int32Array;
  readonly #popularity: Float32Array;
  /** Made when the first user without a history comes: most catalogues are followed by another before. */
  #values: ReadonlyMap<number, number> | undefined;

  constructor({ order, popularity }: Pick<CatalogueOverlay, 'order' | 'popularity'>) {
    this.#order = order;
    this.#popularity = popularity;
  }

  /** Of a row that is offered; 0 for any other. */
  valueOf(row: number): number {
    this.#values ??= new Map(Array.from(this.#order, (each, i) => [each, this.#popularity[i]!]));
    return this.#values.get(row) ?? 0;
  }

  /** All rows that are offered, the most popular first. Not to be written to. */
  order(): Int32Array {
    return this.#order;
  }
}
