/** What the catalogue's file and the entities topic say together, and a model's bundle with that beside it. */
import { Catalogue } from '../../models/catalogue/overlay.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { namespaceOf } from '../../operators/feature-runs.ts';
import type { SourcePosition, SourceRecord } from '../../schemas/action.ts';
import type { EntityRecord, EntityRecordReject } from '../../schemas/avro/entity-decoder.ts';
import type { EntityUpdate } from '../../schemas/catalogue.ts';

export interface EntityCatalogueOptions {
  readonly decode: (record: SourceRecord) => EntityRecord;
  /** Told of every record of the topic that says nothing, and of those that the served model cannot take. */
  readonly onRejected: (at: SourcePosition, reason: EntityRecordReject, message: string) => void;
}

/** What of a bundle updates are judged by. */
interface Judge {
  readonly tensors: Bundle['tensors'];
  readonly catalogue: Catalogue;
  readonly namespaces: ReadonlySet<string>;
}

/**
 * Of the topic counts, of each key in each partition, the newest record, as after a compaction: an instance that begins now and
 * one that has read all along have the same catalogue, row by row. So a faulty record takes back what its key said before.
 *
 * - **memory** the newest update of every entity, its content (4 bytes a number) included, for the next model may take what this
 *   one cannot
 */
export class EntityCatalogue {
  readonly #options: EntityCatalogueOptions;
  /** By partition and key, the newest record last. */
  readonly #partitions = new Map<number, Map<string, EntityUpdate>>();
  #file: readonly EntityUpdate[] = [];
  #judge: Judge | undefined;

  constructor(options: EntityCatalogueOptions) {
    this.#options = options;
  }

  /** What a catalogue's file says, in order: the topic's come over it. */
  useFile(updates: readonly EntityUpdate[]): void {
    this.#file = updates;
  }

  /** @param served the model that they are judged for now */
  take(records: readonly SourceRecord[], served: Bundle): void {
    for (const record of records) {
      const { partition } = record.position;
      const entries = this.#partitions.get(partition) ?? new Map<string, EntityUpdate>();
      this.#partitions.set(partition, entries);
      const said = this.#options.decode(record);
      if (said.entity !== undefined) entries.delete(said.entity);
      if (!said.ok) this.#options.onRejected(record.position, said.reason, said.message);
      else if (said.update !== undefined) {
        entries.set(said.entity, said.update);
        const judge = this.#judgeOf(served);
        const refused = refusalOf(said.update, judge);
        if (refused === undefined) judge.catalogue.prepare(said.update);
        else this.#options.onRejected(record.position, refused.reason, refused.message);
      }
    }
  }

  /** The bundle with this catalogue; where nothing was ever said, as it is. What it cannot take is left out. */
  over(bundle: Bundle): Bundle {
    const said = [...this.#partitions.keys()].sort((a, b) => a - b).flatMap((p) => [...this.#partitions.get(p)!.values()]);
    if (said.length === 0 && this.#file.length === 0 && bundle.catalogue === undefined) return bundle;
    const judge = this.#judgeOf(bundle);
    judge.catalogue.clear();
    for (const update of this.#file) judge.catalogue.take(update);
    for (const update of said) if (refusalOf(update, judge) === undefined) judge.catalogue.take(update);
    return judge.catalogue.apply();
  }

  #judgeOf(bundle: Bundle): Judge {
    if (this.#judge?.tensors !== bundle.tensors)
      this.#judge = {
        tensors: bundle.tensors,
        catalogue: new Catalogue(bundle),
        namespaces: new Set(bundle.entities.map(namespaceOf)),
      };
    return this.#judge;
  }
}

function refusalOf(update: EntityUpdate, { catalogue, namespaces }: Judge) {
  const namespace = namespaceOf(update.entity);
  if (!namespaces.has(namespace)) {
    const message = `'${update.entity}': the model has no entities of the namespace '${namespace}'`;
    return { reason: 'unknown-namespace' as const, message };
  }
  const judged = catalogue.judge(update);
  return judged.ok ? undefined : judged;
}
