/** The topics of a backfill's runs: `<applicationId>-<runId>-…`, beside the deployment's own and never read by it. */
import type { ITopicConfig, Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { RunRecord } from '../../schemas/run-record.ts';
import { partitionsFor } from './change-topics.ts';
import { readRanges, resolveRanges } from './range-reader.ts';
import { readTopics, untilLed, withAdmin } from './topics.ts';

const KINDS = ['embeddings', 'scores', 'dead-letters', 'outcomes', 'state', 'run'] as const;
export type RunTopics = Readonly<Record<(typeof KINDS)[number], string>>;

export const runTopicsOf = ({ applicationId }: KafkaConfig, runId: string): RunTopics =>
  Object.fromEntries(KINDS.map((kind) => [kind, `${applicationId}-${runId}-${kind}`])) as RunTopics;

/**
 * Makes those that are missing; rows are kept until the run is dropped.
 *
 * @returns how many partitions they have: as many as the deployment's
 */
export async function createRunTopics(kafka: Kafka, config: KafkaConfig, runId: string): Promise<number> {
  const partitions = partitionsFor(await readTopics(kafka, config), config);
  const maxBytes = String(12 * 2 ** 20);
  const topics = Object.entries(runTopicsOf(config, runId)).map(
    ([kind, topic]): ITopicConfig => ({
      topic,
      numPartitions: kind === 'run' ? 1 : partitions,
      replicationFactor: config.replicationFactor,
      configEntries: [
        { name: 'cleanup.policy', value: 'delete' },
        { name: 'retention.ms', value: '-1' },
        { name: 'max.message.bytes', value: maxBytes },
      ],
    }),
  );
  await withAdmin(kafka, `creating the topics of run ${runId}`, async (admin) => {
    const names = new Set(await admin.listTopics());
    const missing = topics.filter(({ topic }) => !names.has(topic));
    if (missing.length === 0) return;
    await admin.createTopics({ topics: missing, waitForLeaders: false });
    await untilLed(
      admin,
      missing.map(({ topic }) => topic),
    );
  });
  return partitions;
}

/** The topic that says how far a run has come goes last: a drop that is cut short is done again by doing it again. */
export async function deleteRunTopics(kafka: Kafka, config: KafkaConfig, runId: string): Promise<void> {
  const { run, ...others } = runTopicsOf(config, runId);
  await withAdmin(kafka, `deleting the topics of run ${runId}`, async (admin) => {
    for (const wanted of [Object.values(others), [run]]) {
      const names = new Set(await admin.listTopics());
      const topics = wanted.filter((topic) => names.has(topic));
      if (topics.length === 0) continue;
      await admin.deleteTopics({ topics });
      await gone(admin, topics);
    }
  });
}

/** How far a run has come, by the last record of its own topic; undefined where nothing was committed. */
export async function readRunRecord(kafka: Kafka, config: KafkaConfig, runId: string): Promise<RunRecord | undefined> {
  const topic = runTopicsOf(config, runId).run;
  const ranges = await resolveRanges(kafka, topic, () => ({}));
  let last: RunRecord | undefined;
  for await (const records of readRanges(kafka, ranges, config)) {
    const value = records.at(-1)?.value;
    if (value !== null && value !== undefined) last = JSON.parse(Buffer.from(value as Uint8Array).toString()) as RunRecord;
  }
  return last;
}

/** Every run that has topics here; of one that has committed nothing yet only its name is known. */
export async function readRunRecords(kafka: Kafka, config: KafkaConfig): Promise<RunRecord[]> {
  const names = await withAdmin(kafka, 'listing topics', (admin) => admin.listTopics());
  const prefix = `${config.applicationId}-`;
  const runIds = names
    .filter((name) => name.startsWith(prefix) && /-(state|every-event|as-of)-[0-9a-f]{16}-run$/.test(name))
    .map((name) => name.slice(prefix.length, -'-run'.length));
  const records: RunRecord[] = [];
  for (const runId of runIds)
    records.push(
      (await readRunRecord(kafka, config, runId)) ?? {
        runId,
        position: 0,
        total: undefined,
        finished: false,
        updatedAtMs: 0,
        facts: {},
      },
    );
  return records;
}

async function gone(admin: { listTopics(): Promise<string[]> }, topics: readonly string[]): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const names = new Set(await admin.listTopics());
    if (!topics.some((topic) => names.has(topic))) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new PipelineError('KAFKA_FAILED', `${topics.join(', ')}: deleted, and still listed after 10 s`);
}
