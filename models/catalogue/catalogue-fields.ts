/** What the catalogue says of its entities, by row: which of them a filter allows, and what caps count them by. */
import { type CatalogueFilter, type EntityFields, meets, valuesOf } from '../../schemas/catalogue-filter.ts';
import type { AllowedRows } from '../../schemas/encoding.ts';
import type { Bundle } from '../hstu/bundle.ts';

/** Filters kept ready: those of the configuration, and the last that requests came with. */
const MAX_READY = 32;

export class CatalogueFields {
  readonly #vocabularySize: number;
  readonly #added: number;
  readonly #retired: ReadonlySet<number>;
  readonly #fields: ReadonlyMap<number, EntityFields>;
  readonly #digest: string;
  /** By key, the least recently used first. */
  readonly #ready = new Map<string, AllowedRows>();

  constructor({ config, catalogue }: Pick<Bundle, 'config' | 'catalogue'>) {
    this.#vocabularySize = config.vocabularySize;
    this.#added = catalogue?.entities.length ?? 0;
    this.#retired = new Set(catalogue?.retired);
    this.#fields = catalogue?.fields ?? new Map();
    this.#digest = catalogue?.digest ?? '';
  }

  /** Rows that are offered and meet all of the filters. O(catalogue) for a filter that is new, then kept. */
  allowed(...filters: readonly CatalogueFilter[]): AllowedRows {
    const key = `${this.#digest} ${filters.map(canonical).sort().join(' ')}`;
    const ready = this.#ready.get(key) ?? this.#judge(key, filters);
    this.#ready.delete(key);
    this.#ready.set(key, ready);
    for (const oldest of this.#ready.keys()) {
      if (this.#ready.size <= MAX_READY) break;
      this.#ready.delete(oldest);
    }
    return ready;
  }

  /** Values of a field of a row, as text; none where the catalogue does not say. */
  valuesOf(row: number, field: string): readonly string[] {
    const fields = this.#fields.get(row);
    return fields !== undefined && Object.hasOwn(fields, field) ? valuesOf(fields[field]!).map(String) : [];
  }

  #judge(key: string, filters: readonly CatalogueFilter[]): AllowedRows {
    const V = this.#vocabularySize;
    const rows = new Uint8Array(new SharedArrayBuffer(V + 1 + this.#added));
    let count = 0;
    for (let at = 1; at < rows.length; at++) {
      const row = at <= V ? at : V - at;
      if (this.#retired.has(row) || !filters.every((filter) => meets(this.#fields.get(row), filter))) continue;
      rows[at] = 1;
      count += 1;
    }
    return { key, rows, vocabularySize: V, count };
  }
}

/** Equal for filters that say the same in another order. */
const canonical = (filter: CatalogueFilter): string =>
  JSON.stringify(Object.entries(filter).sort(([a], [b]) => (a < b ? -1 : 1)));
