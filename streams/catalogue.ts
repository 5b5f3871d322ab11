/** A model with what its catalogue has become since: how `run`, `replay` and `score` load what they serve. */
import { Catalogue, type UpdateOutcome } from '../models/catalogue/overlay.ts';
import { type Bundle, loadBundle } from '../models/hstu/bundle.ts';
import type { EntityReject, EntityUpdate } from '../schemas/catalogue.ts';
import type { Config } from '../schemas/config.ts';
import { readEntityUpdates } from './entity-updates.ts';

/** What became of a catalogue's updates. */
export interface CatalogueReport {
  /** Entities by the newest update that was taken: `removed` counts updates. */
  readonly outcomes: Readonly<Record<UpdateOutcome, number>>;
  /** Updates that were not taken, by reason. */
  readonly rejected: Readonly<Partial<Record<EntityReject, number>>>;
  /** The first of them, with the lines they are in. */
  readonly examples: readonly string[];
  /** New entities, and those of the vocabulary that are no longer offered. */
  readonly added: number;
  readonly retired: number;
}

const MAX_EXAMPLES = 5;

/**
 * Reads updates from a file of JSON lines or CSV and puts the catalogue beside the bundle. A faulty line is counted and passed over.
 *
 * @throws PipelineError `SOURCE_UNREADABLE`
 */
export async function withCatalogue(
  bundle: Bundle,
  file: string,
): Promise<{ readonly bundle: Bundle; readonly report: CatalogueReport }> {
  const catalogue = new Catalogue(bundle);
  const outcomes = new Map<string, UpdateOutcome>();
  let removed = 0;
  const rejected: Partial<Record<EntityReject, number>> = {};
  const examples: string[] = [];
  const reject = (number: number, reason: EntityReject, message: string) => {
    rejected[reason] = (rejected[reason] ?? 0) + 1;
    if (examples.length < MAX_EXAMPLES) examples.push(`${file}, line ${number}: ${message}`);
  };
  for await (const { parsed, number } of readEntityUpdates(file)) {
    if (!parsed.ok) {
      reject(number, parsed.reason, parsed.message);
      continue;
    }
    const judged = catalogue.take(parsed.update);
    if (!judged.ok) reject(number, judged.reason, judged.message);
    else if (judged.outcome === 'removed') {
      removed += 1;
      outcomes.delete(parsed.update.entity);
    } else outcomes.set(parsed.update.entity, judged.outcome);
  }
  const count = (wanted: UpdateOutcome) => [...outcomes.values()].filter((outcome) => outcome === wanted).length;
  const applied = catalogue.apply();
  return {
    bundle: applied,
    report: {
      outcomes: { known: count('known'), added: count('added'), retired: count('retired'), removed },
      rejected,
      examples,
      added: applied.catalogue!.entities.length,
      retired: applied.catalogue!.retired.length,
    },
  };
}

/**
 * The bundle of a configuration, with its catalogue.
 *
 * @throws PipelineError `BUNDLE_INVALID`, `SOURCE_UNREADABLE`
 */
export async function loadModel(
  { bundle: folder, catalogue }: Pick<Config, 'bundle' | 'catalogue'>,
  onCatalogue: (report: CatalogueReport) => void = () => undefined,
): Promise<Bundle> {
  const bundle = await loadBundle(folder);
  if (catalogue === undefined) return bundle;
  const loaded = await withCatalogue(bundle, catalogue.file);
  onCatalogue(loaded.report);
  return loaded.bundle;
}

/** What a catalogue's file says, faulty lines left out. @throws PipelineError `SOURCE_UNREADABLE` */
export async function readUpdates({ catalogue }: Pick<Config, 'catalogue'>): Promise<readonly EntityUpdate[]> {
  const updates: EntityUpdate[] = [];
  if (catalogue === undefined) return updates;
  for await (const { parsed } of readEntityUpdates(catalogue.file)) if (parsed.ok) updates.push(parsed.update);
  return updates;
}

/** In one line. */
export function describeCatalogue({ outcomes, rejected, examples, added, retired }: CatalogueReport): string {
  const faults = Object.entries(rejected).map(([reason, n]) => `${n} ${reason}`);
  const refused = faults.length === 0 ? '' : `; rejected: ${faults.join(', ')} (${examples[0]})`;
  return `catalogue: ${added} entities added, ${retired} retired, ${outcomes.known} of the vocabulary updated${refused}`;
}
