/** How fast a lost local store comes back: the changelog of real sequences, read from a real broker into empty stores. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startKafka } from '../infra/kafka/broker/start-kafka.ts';
import { createTopics } from '../infra/kafka/change-topics.ts';
import { ChangelogReader } from '../infra/kafka/changelog-reader.ts';
import { kafkaClient } from '../infra/kafka/kafka-client.ts';
import { type OutgoingRecord, PartitionProducer } from '../infra/kafka/partition-producer.ts';
import { changelogOf } from '../infra/kafka/topics.ts';
import { UserSequence } from '../operators/index.ts';
import { changesOf } from '../operators/state-pages.ts';
import { parseConfig } from '../schemas/config.ts';
import { encodePosition, POSITION_KEY } from '../schemas/position-record.ts';
import type { StatePosition } from '../schemas/state.ts';
import { restoreState } from '../streams/live/restore-state.ts';
import { requireKafka } from '../streams/require-kafka.ts';
import { median } from './measure.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PARTITIONS = 4;
const USERS = 24_000;
const EVENTS = 200;
const ROUNDS = 3;
const WINDOW = { maxLength: 200, blockLength: 50 };

export interface RestoreFigures {
  readonly pages: number;
  /** Mean of a page, key and value, bytes. */
  readonly pageBytes: number;
  readonly pagesPerSecond: number;
  readonly megabytesPerSecond: number;
}

export async function benchRestore(onProgress: (done: number, label: string) => void): Promise<RestoreFigures> {
  onProgress(0, 'broker');
  const folder = join(ROOT, '.hstu', 'bench');
  const broker = await startKafka({
    folder: join(folder, 'kafka-restore'),
    jars: join(ROOT, '.hstu', 'kafka', 'libs'),
    basePort: 0,
  });
  const state = join(folder, 'state-restore');
  try {
    const kafkaConfig = { ...broker.connection(), applicationId: `restore-${Date.now()}`, partitions: PARTITIONS };
    const config = requireKafka(parseConfig({ bundle: 'none', kafka: kafkaConfig, state: { path: state } }, 'bench'), 'bench');
    const kafka = kafkaClient(config.kafka);
    await createTopics(kafka, config.kafka);
    onProgress(1, 'writing the changelog');
    let pages = 0;
    let bytes = 0;
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const producer = new PartitionProducer(kafka, config.kafka, partition);
      await producer.open();
      for (const records of changelog(partition)) {
        pages += records.length - 1;
        for (const { key, value } of records) bytes += (key?.length ?? 0) + (value?.length ?? 0);
        await producer.commit({ records: new Map([[changelogOf(config.kafka), records]]), inputs: {} });
      }
      await producer.close();
    }
    const rates: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      onProgress(2 + round, 'restoring');
      await rm(state, { recursive: true, force: true });
      const reader = new ChangelogReader(kafka, changelogOf(config.kafka));
      await reader.connect();
      const parts = { config, changelog: reader, requireCompatible: () => undefined, observer: {}, now: Date.now };
      const began = performance.now();
      const restored = await Promise.all(
        Array.from({ length: PARTITIONS }, (_, partition) =>
          restoreState(partition, parts, new AbortController().signal, { alone: true }),
        ),
      );
      rates.push((1000 * pages) / (performance.now() - began));
      const records = restored.reduce((sum, { store }) => sum + store.count, 0);
      if (records !== pages) throw new Error(`${records} of ${pages} pages were restored`);
      await Promise.all(restored.map(({ store }) => store.close()));
      await reader.close();
    }
    const pagesPerSecond = median(rates);
    return {
      pages,
      pageBytes: Math.round(bytes / pages),
      pagesPerSecond,
      megabytesPerSecond: (pagesPerSecond * bytes) / pages / 1e6,
    };
  } finally {
    await broker.destroy();
    await rm(state, { recursive: true, force: true });
  }
}

/** How often `benchRestore` reports. */
export const RESTORE_FIGURES = 2 + ROUNDS;

/** The records of a partition's users, in commits of some hundred users each. */
function* changelog(partition: number): Generator<OutgoingRecord[]> {
  const users = USERS / PARTITIONS;
  const signature = { format: 1, window: WINDOW, seenLimit: 4_096, vocabulary: { size: 1, digest: '' } };
  for (let from = 0; from < users; from += 500) {
    const records: OutgoingRecord[] = [];
    for (let user = from; user < Math.min(users, from + 500); user++) {
      const sequence = new UserSequence({ window: WINDOW, seenLimit: 4_096 });
      for (let i = 0; i < EVENTS; i++)
        sequence.add(
          `rating:${(user * 31 + i) % 9_742}:${1_600_000_000 + i}`,
          1_600_000_000_000 + 60_000 * i,
          1 + ((user * 7919 + i * 104_729) % 9_742),
        );
      records.push(...changesOf(`user-${partition}-${user}`, sequence));
    }
    const position: StatePosition = { stateId: 'bench', inputs: { 'user-actions': from }, signature };
    yield [...records, { key: POSITION_KEY, value: encodePosition(position) }];
  }
}
