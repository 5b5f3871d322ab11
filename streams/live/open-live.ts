/** Wires an instance of the consumer deployment: configuration in, everything it needs opened, checked and closed again. */
import { ChangelogReader } from '../../infra/kafka/changelog-reader.ts';
import { type KafkaClient, type KafkaLogCreator, kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { outputRecords } from '../../infra/kafka/output-records.ts';
import { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { changelogOf, checkTopics, inputTopics, readTopics, withAdmin } from '../../infra/kafka/topics.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { PipelineObserver } from '../instrument.ts';
import { pipelineModel } from '../pipeline-model.ts';
import { encoderOptions } from '../replay.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { requireCompatible, signatureOf } from '../state-signature.ts';
import { type LiveObserver, LiveStream } from './live-stream.ts';
import type { TaskParts } from './partition-task.ts';
import { Standby } from './standby.ts';

export interface OpenLiveOptions {
  readonly config: LiveConfig;
  readonly bundle: Bundle;
  /** @default none */
  readonly observer?: LiveObserver;
  /** Is told how long each step takes. @default none */
  readonly pipelineObserver?: PipelineObserver;
  /** kafkajs' own messages. @default none */
  readonly logCreator?: KafkaLogCreator;
}

export interface OpenLive {
  readonly encoder: HstuEncoder;
  readonly fetcher: PartitionFetcher;
  readonly stream: LiveStream;
  /** Input topics. */
  readonly topics: readonly string[];
  readonly partitions: number;
  /** Runs until aborted. @throws PipelineError that trying again does not mend */
  run(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens what an instance needs; the caller runs and closes it.
 *
 * @throws PipelineError for every fault of configuration, topics, rights and reachability, before anything is read
 */
export async function openLive({
  config,
  bundle,
  observer = {},
  pipelineObserver,
  logCreator,
}: OpenLiveOptions): Promise<OpenLive> {
  const kafka = kafkaClient(config.kafka, { ...(logCreator !== undefined && { logCreator }) });
  const topics = inputTopics(config.kafka);
  await requireLogin(config.kafka);
  const partitions = checkTopics(await readTopics(kafka, config.kafka), config.kafka);
  const registry = config.kafka.schemaRegistry && new SchemaRegistry(config.kafka.schemaRegistry);
  const { userEmbeddings, candidateScores, deadLetters, actionOutcomes } = config.kafka.topics;
  await registry?.register({
    UserEmbedding: userEmbeddings,
    CandidateScores: candidateScores,
    DeadLetter: deadLetters,
    ...(actionOutcomes !== undefined && { ActionOutcome: actionOutcomes }),
  });
  const schemas = registry ?? fixedSchemas;
  const codec = new AvroCodec({ schemas, maxRecordBytes: config.kafka.maxRecordBytes });
  const encoder = new HstuEncoder(bundle, {
    ...encoderOptions(config),
    onProvider: ({ provider, reason }) => observer.onNotice?.('what the encoder runs on', { provider, reason }),
  });
  const outputs = new OutputProducer(kafka, config.kafka);
  const changelog = new ChangelogReader(kafka, changelogOf(config.kafka));
  const fetcher = new PartitionFetcher(kafka, {
    maxBufferedBytes: config.kafka.maxBufferedBytes,
    onData: ({ partition }) => stream.tasks.get(partition)?.source.notify(),
    onError: (error) => stream.fail(error),
    onTrouble: (error) => observer.onNotice?.('fetching fails; it is tried again', { code: error.code, reason: error.message }),
    onSkipped: ({ topic, partition }, from, to) => observer.onLost?.({ topic, partition }, from, to),
  });
  const signature = signatureOf(bundle, config.sequence.seenLimit);
  const publishedAt = new Map<number, number>();
  const toRecords = (batch: OutputBatch) => {
    const { partition } = batch.source;
    const publishedAtMs = Math.max(Date.now(), (publishedAt.get(partition) ?? 0) + 1);
    publishedAt.set(partition, publishedAtMs);
    return outputRecords(codec, config.kafka.topics, batch, publishedAtMs);
  };
  const atLeastOnce = config.kafka.delivery === 'at-least-once';
  // A tombstone, and what follows it, is written by the partition's owner alone: a zombie must not bring an erased user back.
  const inTransaction = (batch: OutputBatch) => !atLeastOnce || (batch.erased?.length ?? 0) > 0;
  const task: TaskParts = {
    kafka,
    config,
    fetcher,
    changelog,
    signature,
    requireCompatible: (found, where) => requireCompatible(found, bundle, signature, where),
    window: bundle.config.window,
    hotUsersPerPartition: Math.max(1, Math.ceil(config.state.hotUsers / partitions)),
    topics,
    // Decoding is synchronous: the schemas of a batch are fetched before it is let on.
    prepare: registry && ((records) => registry.ensure(schemaIdsOf(records))),
    outputs: (batch) => (inTransaction(batch) ? toRecords(batch) : new Map()),
    committedOffsets: (partition) => committedOffsets(kafka, config.kafka.applicationId, topics, partition),
    now: Date.now,
    observer,
  };
  const decoder = createRecordDecoder({
    ...config.kafka,
    ...config.time,
    schemas,
    mapping: config.kafka.mapping,
    erasureAction: config.sequence.erasureAction,
  });
  const stream: LiveStream = new LiveStream({
    task,
    standby: config.state.standby ? new Standby(task, { partitions }) : undefined,
    pipeline: {
      settings: config,
      model: pipelineModel(bundle),
      decoder,
      requests: { topic: config.kafka.topics.candidateRequests, decoder },
      encoder,
      // Exactly once, outputs are part of the commit's transaction.
      publisher: {
        publish: (batch) => (inTransaction(batch) ? Promise.resolve() : outputs.send(batch.source.partition, toRecords(batch))),
      },
      now: Date.now,
      ...(pipelineObserver !== undefined && { observer: pipelineObserver }),
    },
    observer: {
      ...observer,
      onCommitted: (batch) => {
        for (const userId of batch.erased ?? []) void encoder.forget(userId);
        observer.onCommitted?.(batch);
      },
    },
  });
  const close = async () => {
    await Promise.all([fetcher.close(), changelog.close(), outputs.close()]);
    await encoder.close();
  };
  try {
    await Promise.all([fetcher.connect(topics), changelog.connect(), atLeastOnce ? outputs.open() : Promise.resolve()]);
  } catch (error) {
    await close();
    throw error;
  }
  return { encoder, fetcher, stream, topics, partitions, run: (signal) => stream.run(signal), close };
}

async function committedOffsets(kafka: KafkaClient, groupId: string, topics: readonly string[], partition: number) {
  return withAdmin(kafka, 'reading the committed offsets', async (admin) => {
    const answers = await admin.fetchOffsets({ groupId, topics: [...topics] });
    const known = answers.flatMap(({ topic, partitions }) => {
      const offset = Number(partitions.find((entry) => entry.partition === partition)?.offset ?? -1);
      return offset >= 0 ? [[topic, offset] as const] : [];
    });
    return Object.fromEntries(known);
  });
}
