/** The places of erasures that a deployment has carried out, by its changelog: they outlive the state itself. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Kafka } from 'kafkajs';
import type { Config, KafkaConfig } from '../../schemas/config.ts';
import { decodePlace, type ErasurePlace, placedOffset, placeRecord } from '../../schemas/erasure-place.ts';
import { epochIn } from '../../schemas/position-record.ts';
import { PartitionProducer } from './partition-producer.ts';
import { readRanges, resolveRanges } from './range-reader.ts';
import { changelogOf, withAdmin } from './topics.ts';

/** By partition, in the order of the erasures. */
export type ErasurePlaces = ReadonlyMap<number, readonly ErasurePlace[]>;

/** What of a deployment's changelog outlives its state. */
export interface Kept {
  readonly places: ErasurePlaces;
  /** Of what was published, by partition. */
  readonly epochs: ReadonlyMap<number, number>;
}

/**
 * Reads the changelog from end to end; nothing where there is none.
 *
 * @throws PipelineError Kafka's; `DOMException` `AbortError` when aborted
 */
export async function readKept(kafka: Kafka, config: KafkaConfig, signal?: AbortSignal): Promise<Kept> {
  const changelog = changelogOf(config);
  const names = await withAdmin(kafka, 'looking for the changelog', (admin) => admin.listTopics());
  if (!names.includes(changelog)) return { places: new Map(), epochs: new Map() };
  const found = new Map<number, Map<number, ErasurePlace>>();
  const epochs = new Map<number, number>();
  const ranges = await resolveRanges(kafka, changelog, () => ({}));
  for await (const records of readRanges(kafka, ranges, config, signal))
    for (const { key, value, position } of records) {
      const epoch = key == null ? undefined : epochIn(key, value as Uint8Array | null);
      if (epoch !== undefined) epochs.set(position.partition, epoch);
      const offset = placedOffset(key);
      if (offset === undefined) continue;
      const ofPartition = found.get(position.partition) ?? new Map<number, ErasurePlace>();
      found.set(position.partition, ofPartition);
      const place = decodePlace(key, value as Uint8Array | null);
      if (place === undefined) ofPartition.delete(offset);
      else ofPartition.set(offset, place);
    }
  return { places: inOrder(found), epochs };
}

/** @throws as `readKept` */
export const readErasurePlaces = async (kafka: Kafka, config: KafkaConfig, signal?: AbortSignal): Promise<ErasurePlaces> =>
  (await readKept(kafka, config, signal)).places;

/** Writes them into a changelog that was made anew. */
export async function writeErasurePlaces(kafka: Kafka, config: KafkaConfig, places: ErasurePlaces): Promise<void> {
  for (const [partition, ofPartition] of places) {
    if (ofPartition.length === 0) continue;
    const producer = new PartitionProducer(kafka, config, partition);
    try {
      await producer.open();
      await producer.commitParts((send) => send(changelogOf(config), ofPartition.map(placeRecord)), {});
    } finally {
      await producer.close();
    }
  }
}

interface KeptFile {
  readonly places?: readonly (readonly [number, readonly ErasurePlace[]])[];
  readonly epochs?: readonly (readonly [number, number])[];
}

/** What a reset keeps while there is no changelog: cut short, it is done again by doing it again. */
export class KeptPlaces {
  readonly #path: string;

  constructor({ state, kafka }: Config & { readonly kafka: KafkaConfig }) {
    this.#path = join(state.path, `${kafka.applicationId}.erasure-places.json`);
  }

  /** `given`, with what a reset that was cut short had kept. */
  async keep({ places, epochs }: Kept): Promise<Kept> {
    const text = await readFile(this.#path, 'utf8').catch(() => '{}');
    const read = JSON.parse(text) as KeptFile | NonNullable<KeptFile['places']>;
    // Before there were epochs, a list of the places.
    const before: KeptFile = Array.isArray(read) ? { places: read as NonNullable<KeptFile['places']> } : (read as KeptFile);
    const { places: keptPlaces = [], epochs: keptEpochs = [] } = before;
    const merged = new Map<number, Map<number, ErasurePlace>>();
    for (const [partition, list] of [...keptPlaces, ...places]) {
      const ofPartition = merged.get(partition) ?? new Map<number, ErasurePlace>();
      merged.set(partition, ofPartition);
      for (const place of list) ofPartition.set(place.offset, place);
    }
    const kept = inOrder(merged);
    const highest = new Map(keptEpochs);
    for (const [partition, epoch] of epochs) highest.set(partition, Math.max(epoch, highest.get(partition) ?? 0));
    const file: KeptFile = { places: [...kept].map(([partition, list]) => [partition, [...list]]), epochs: [...highest] };
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    await writeFile(this.#path, JSON.stringify(file), { mode: 0o600 });
    return { places: kept, epochs: highest };
  }

  async drop(): Promise<void> {
    await rm(this.#path, { force: true });
  }
}

const inOrder = (found: ReadonlyMap<number, ReadonlyMap<number, ErasurePlace>>): ErasurePlaces =>
  new Map([...found].map(([partition, places]) => [partition, [...places.values()].sort((a, b) => a.offset - b.offset)]));
