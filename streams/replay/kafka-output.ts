/** Runs as topics: rows, the state that histories end with, and how far the run has come, in one transaction a batch. */

import { type KafkaClient, kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { outputRecords } from '../../infra/kafka/output-records.ts';
import type { OutgoingRecord, OutgoingRecords } from '../../infra/kafka/partition-producer.ts';
import { RunProducer } from '../../infra/kafka/run-producer.ts';
import { createRunTopics, deleteRunTopics, readRunRecord, readRunRecords, runTopicsOf } from '../../infra/kafka/run-topics.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { RunRecord } from '../../schemas/run-record.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { type BackfillOutput, checkpoints, lettersBatch, type RunStart, type RunWriter } from './backfill-output.ts';
import type { PartitionedChange } from './shape-updates.ts';

/** @throws PipelineError where the brokers refuse us */
export async function kafkaOutput({ kafka: config }: LiveConfig): Promise<BackfillOutput> {
  await requireLogin(config);
  const kafka = kafkaClient(config);
  const codec = async () => {
    const registry = config.schemaRegistry && new SchemaRegistry(config.schemaRegistry);
    const { userEmbeddings, candidateScores, deadLetters, actionOutcomes = 'action-outcomes' } = config.topics;
    await registry?.register({
      UserEmbedding: userEmbeddings,
      CandidateScores: candidateScores,
      DeadLetter: deadLetters,
      ActionOutcome: actionOutcomes,
    });
    return new AvroCodec({ schemas: registry ?? fixedSchemas, maxRecordBytes: config.maxRecordBytes });
  };
  return {
    place: 'kafka',
    where: config.brokers.join(', '),
    keepsState: true,
    open: async (run) => openRun(kafka, config, await codec(), run),
    runs: () => readRunRecords(kafka, config),
    drop: (runId) => deleteRunTopics(kafka, config, runId),
    count: () => Promise.resolve(undefined),
    close: () => Promise.resolve(),
  };
}

async function openRun(
  kafka: KafkaClient,
  config: LiveConfig['kafka'],
  codec: AvroCodec,
  { runId, total, facts, letters, places = [] }: RunStart,
): Promise<RunWriter> {
  const partitions = await createRunTopics(kafka, config, runId);
  const producer = new RunProducer(kafka, config, runId);
  try {
    await producer.open();
    // After the fencing: nothing is open any more that could be committed yet.
    const found = await readRunRecord(kafka, config, runId);
    const record = (checkpoint: Pick<RunRecord, 'position' | 'batchesDone'>, finished: boolean): RunRecord => ({
      runId,
      ...checkpoint,
      total,
      finished,
      updatedAtMs: Date.now(),
      facts: found?.facts ?? facts,
    });
    const split = splitter({ ...config, partitions }, codec, runId, facts['ranges'] !== undefined);
    if (found === undefined) {
      const begun = { ...lettersBatch(letters), state: { changes: places, mark: 0 } };
      await producer.commit(split(begun), record({ position: 0 }, false));
    }
    const begin = { position: found?.position ?? 0, batchesDone: found?.batchesDone ?? 0 };
    const checkpointOf = checkpoints(begin);
    return {
      ...begin,
      write: (batch) => producer.commit(split(batch), record(checkpointOf(batch), false)),
      finish: (position) => producer.commit(new Map(), record({ position }, true)),
      close: () => producer.close(),
    };
  } catch (error) {
    await producer.close();
    throw error;
  }
}

/**
 * A batch's records by partition: that of the input, where there is one, else that of the user's id.
 */
function splitter(
  config: LiveConfig['kafka'] & { readonly partitions: number },
  codec: AvroCodec,
  runId: string,
  ofKafka: boolean,
) {
  const topics = runTopicsOf(config, runId);
  const names = {
    ...config.topics,
    userEmbeddings: topics.embeddings,
    candidateScores: topics.scores,
    deadLetters: topics['dead-letters'],
    actionOutcomes: topics.outcomes,
  };
  const partitionFor = (userId: string, partition: number) => (ofKafka ? partition : partitionOf(userId, config.partitions));

  return (batch: OutputBatch): Map<number, OutgoingRecords> => {
    const parts = new Map<number, Parts>();
    const partOf = (partition: number) => {
      const part = parts.get(partition) ?? { embeddings: [], scores: [], quality: [], deadLetters: [], processed: [], state: [] };
      parts.set(partition, part);
      return part;
    };
    for (const one of batch.embeddings) partOf(partitionFor(one.userId, one.lineage.partition)).embeddings.push(one);
    for (const one of batch.scores) partOf(partitionFor(one.userId, one.lineage.partition)).scores.push(one);
    for (const one of batch.deadLetters) partOf(ofKafka ? one.position.partition : 0).deadLetters.push(one);
    // What became of actions says more than where they stand only where they were ranked.
    if (batch.quality.length > 0)
      for (const one of batch.processed)
        partOf(partitionFor(one.action.userId, one.action.position.partition)).processed.push(one);
    for (const one of batch.quality) partOf(partitionFor(one.userId, one.lineage.partition)).quality.push(one);
    for (const one of (batch.state?.changes ?? []) as readonly PartitionedChange[]) partOf(one.partition).state.push(one);
    const nowMs = Date.now();
    return new Map(
      [...parts].map(([partition, { state, ...outputs }]) => {
        const records = new Map(outputRecords(codec, names, { source: batch.source, ...outputs }, nowMs));
        if (state.length > 0) records.set(topics.state, state);
        return [partition, records];
      }),
    );
  };
}

type Mutable<T> = T extends readonly (infer E)[] ? E[] : never;
type Parts = { [K in 'embeddings' | 'scores' | 'quality' | 'deadLetters' | 'processed']: Mutable<OutputBatch[K]> } & {
  readonly state: OutgoingRecord[];
};
