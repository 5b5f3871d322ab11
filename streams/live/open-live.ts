/** Wires an instance of the consumer deployment: configuration in, everything it needs opened, checked and closed again. */
import { ChangelogReader } from '../../infra/kafka/changelog-reader.ts';
import { committedOffsets } from '../../infra/kafka/committed-offsets.ts';
import { type KafkaLogCreator, kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { LogEnds } from '../../infra/kafka/log-ends.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { outputRecords } from '../../infra/kafka/output-records.ts';
import { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { TopicGuard } from '../../infra/kafka/topic-guard.ts';
import { changelogOf, inputTopics } from '../../infra/kafka/topics.ts';
import type { HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { loadModel, readUpdates } from '../catalogue.ts';
import type { PipelineObserver } from '../instrument.ts';
import { judgePlaces } from '../misplaced.ts';
import { ModelChanges } from '../model-change/model-changes.ts';
import { ModelSlot } from '../model-change/model-slot.ts';
import type { ModelObserver } from '../model-change/model-status.ts';
import { type ServedModel, serveModel, withCatalogueOf } from '../model-change/served-model.ts';
import { patiently } from '../patience.ts';
import { createRepartition } from '../repartition.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { requireKnownActions } from '../require-known-actions.ts';
import { requireMappedFields } from '../require-mapped-fields.ts';
import { requireCompatible } from '../state-signature.ts';
import { joined, Watch, type WatchReport } from '../watch.ts';
import { type CatalogueObserver, LiveCatalogue } from './live-catalogue.ts';
import { type LiveObserver, LiveStream } from './live-stream.ts';
import type { TaskParts } from './partition-task.ts';
import { Standby } from './standby.ts';
import { positionsOf, windowOf } from './task-views.ts';

export interface OpenLiveOptions {
  readonly config: LiveConfig;
  readonly bundle: Bundle;
  /** @default none */
  readonly observer?: LiveObserver;
  /** Is told how long each step takes. @default none */
  readonly pipelineObserver?: PipelineObserver;
  /** Of the model, and its changes. @default none */
  readonly modelObserver?: ModelObserver;
  /** Of the catalogue that the entities topic makes. @default none */
  readonly catalogueObserver?: CatalogueObserver;
  /** The bundle's folder that the configuration names now, for a change of the model. @default the one that it named at the start */
  readonly configured?: () => Promise<string>;
  /** kafkajs' own messages. @default none */
  readonly logCreator?: KafkaLogCreator;
  /** Ends the waiting for brokers that are away. @default none */
  readonly signal?: AbortSignal;
}

export interface OpenLive {
  /** Of the model that is served. */
  readonly encoder: HstuEncoder;
  readonly models: ModelChanges;
  /** Of the entities topic, if there is one. */
  readonly catalogue: LiveCatalogue | undefined;
  readonly fetcher: PartitionFetcher;
  readonly stream: LiveStream;
  /** What stands in the way of its work. */
  readonly watch: { report(): WatchReport };
  readonly ends: LogEnds;
  /** Input topics. */
  readonly topics: readonly string[];
  readonly partitions: number;
  /** Runs until aborted. @throws PipelineError that trying again does not mend */
  run(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens what an instance needs; the caller runs and closes it. What may pass (brokers that are away) is waited for, and told of as
 * `observer.onWaiting`.
 *
 * @throws PipelineError for every fault of configuration, topics and rights, before anything is read; `DOMException` `AbortError` when
 *   stopped
 */
export async function openLive({
  config,
  bundle,
  observer = {},
  pipelineObserver,
  modelObserver = {},
  catalogueObserver = {},
  configured = () => Promise.resolve(config.bundle),
  logCreator,
  signal,
}: OpenLiveOptions): Promise<OpenLive> {
  requireKnownActions(config, bundle);
  const inTime = <T>(step: () => Promise<T>): Promise<T> => patiently(step, { signal, onTrouble: observer.onWaiting });
  const kafka = kafkaClient(config.kafka, { ...(logCreator !== undefined && { logCreator }) });
  // Tells soon what it waits for.
  const opener = kafkaClient(config.kafka, { retries: 1 });
  const topics = inputTopics(config.kafka);
  await requireLogin(config.kafka);
  const guard = new TopicGuard(opener, config.kafka, { ...observer, onFailed: (error) => stream.fail(error) });
  const partitions = await inTime(() => guard.open());
  const registry = config.kafka.schemaRegistry && new SchemaRegistry(config.kafka.schemaRegistry);
  await inTime(() => requireMappedFields(config.kafka, registry));
  const { userEmbeddings, candidateScores, deadLetters, actionOutcomes } = config.kafka.topics;
  const published = {
    UserEmbedding: userEmbeddings,
    CandidateScores: candidateScores,
    DeadLetter: deadLetters,
    ...(actionOutcomes !== undefined && { ActionOutcome: actionOutcomes }),
  };
  await inTime(async () => registry?.register(published));
  const schemas = registry ?? fixedSchemas;
  const codec = new AvroCodec({ schemas, maxRecordBytes: config.kafka.maxRecordBytes });
  const { maxBytes } = guard;
  const outputs = new OutputProducer(kafka, config.kafka, maxBytes);
  const changelog = new ChangelogReader(kafka, changelogOf(config.kafka));
  const fetcher = new PartitionFetcher(kafka, {
    maxBufferedBytes: config.kafka.maxBufferedBytes,
    maxBatchBytes: config.kafka.maxBatchBytes,
    confirm: (topic) => guard.confirm(topic),
    onData: ({ partition }) => stream.tasks.get(partition)?.source.notify(),
    onError: (error) => stream.fail(error),
    onTrouble: (error) => observer.onNotice?.('fetching fails; it is tried again', { code: error.code, reason: error.message }),
    onStanding: (standing) => observer.onNotice?.('a partition stands: it cannot be read on', { ...standing }),
    onMoving: ({ topic, partition }) => observer.onFact?.('a partition that stood goes on', { topic, partition }),
    onSkipped: ({ topic, partition }, from, to) => observer.onLost?.({ topic, partition }, from, to),
  });
  const publishedAt = new Map<number, number>();
  const toRecords = (batch: OutputBatch) => {
    const { partition } = batch.source;
    const publishedAtMs = Math.max(Date.now(), (publishedAt.get(partition) ?? 0) + 1);
    publishedAt.set(partition, publishedAtMs);
    return outputRecords(codec, config.kafka.topics, batch, publishedAtMs, maxBytes, stream.tasks.get(partition)?.epoch);
  };
  const atLeastOnce = config.kafka.delivery === 'at-least-once';
  // A tombstone, and what follows it, is written by the partition's owner alone: a zombie must not bring an erased user back.
  const inTransaction = (batch: OutputBatch) => !atLeastOnce || (batch.erased?.length ?? 0) > 0;
  // Decoding is synchronous: the schemas of a batch are fetched before it is let on.
  const prepare = registry && ((records: readonly SourceRecord[]) => registry.ensure(schemaIdsOf(records)));
  const task: TaskParts = {
    kafka,
    config,
    fetcher,
    changelog,
    get signature() {
      return slot.current.signature;
    },
    requireCompatible: (found, where) => models.requireCompatible(found, where),
    window: bundle.config.window,
    hotUsersPerPartition: Math.max(1, Math.ceil(config.state.hotUsers / partitions)),
    topics,
    topicIds: guard.idsOf(topics),
    partitions,
    maxBytes,
    prepare,
    outputs: (batch) => (inTransaction(batch) ? toRecords(batch) : new Map()),
    committedOffsets: (partition) =>
      patiently(() => committedOffsets(kafka, config.kafka.applicationId, topics, partition), { attempts: 5 }),
    now: Date.now,
    observer,
  };
  const decoder = judgePlaces(
    createRecordDecoder({
      ...config.kafka,
      ...config.time,
      schemas,
      mapping: config.kafka.mapping,
      erasureAction: config.sequence.erasureAction,
    }),
    { kafka: config.kafka, partitions, onMisplaced: (misplaced) => observer.onMisplaced?.(misplaced) },
  );
  const wiring = {
    decoder,
    requests: { topic: config.kafka.topics.candidateRequests, decoder },
    // Exactly once, outputs are part of the commit's transaction.
    publisher: {
      publish: async (batch: OutputBatch) => {
        if (inTransaction(batch)) return;
        await stream.tasks.get(batch.source.partition)?.requireClock(batch);
        await outputs.send(batch.source.partition, toRecords(batch));
      },
    },
    // Nothing else that an instance publishes says them.
    ranks: actionOutcomes !== undefined,
    now: Date.now,
    ...(pipelineObserver !== undefined && { observer: pipelineObserver }),
  };
  const serve = (next: Bundle, path: string) => {
    let started = false;
    return serveModel(next, path, {
      config,
      wiring,
      onProvider: (facts) => {
        // Later it is a fall back from what was asked for.
        observer[started ? 'onNotice' : 'onFact']?.('what the encoder runs on', { ...facts, bundle: path });
        started = true;
      },
      onDiskFailure: (reason) => observer.onNotice?.('cached rows are no longer kept on disk', { reason, bundle: path }),
      onIndex: (facts) =>
        observer['failed' in facts ? 'onNotice' : 'onFact']?.('how the catalogue is listed', { ...facts, bundle: path }),
    });
  };
  let told: HstuEncoder | undefined;
  const slot = new ModelSlot<ServedModel>(serve(bundle, config.bundle), (model) => {
    catalogue?.serve(model);
    // Of the same encoder it is the same model, with another catalogue.
    if (model.encoder !== told) modelObserver.onServing?.(model);
    told = model.encoder;
  });
  const { entities } = config.kafka.topics;
  const catalogue =
    entities === undefined
      ? undefined
      : new LiveCatalogue({
          kafka,
          topic: entities,
          config,
          schemas,
          prepare,
          slot,
          observer: catalogueObserver,
          onFailed: (error) => stream.fail(error),
        });
  const models = new ModelChanges({
    slot,
    config,
    load: async (path) => {
      const loaded = await loadModel({ bundle: path, catalogue: config.catalogue });
      catalogue?.useFile(await readUpdates(config));
      return catalogue?.over(loaded) ?? loaded;
    },
    serve,
    upToDate: (model) => (catalogue === undefined ? model : withCatalogueOf(model, catalogue.over(model.bundle))),
    configured,
    windowOf: (userId) => windowOf([...stream.tasks.values()], userId),
    busy: () => [...stream.tasks.values()].some(({ source }) => source.inFlight > 0),
    availableBytes: () => process.availableMemory?.(),
    observer: modelObserver,
  });
  // Whoever follows other instances from afar does not change models for what it finds there.
  const followed = { ...task, requireCompatible: withServed(slot) };
  const stream: LiveStream = new LiveStream({
    task,
    standby: config.state.standby ? new Standby(followed, { partitions }) : undefined,
    pipeline: slot,
    beforeTakeOver: () => guard.check(),
    observer: {
      ...observer,
      onCommitted: (batch) => {
        for (const userId of batch.erased ?? []) models.forget(userId);
        observer.onCommitted?.(batch);
      },
    },
  });
  const repartition =
    config.kafka.misplaced === 'repartition'
      ? createRepartition({
          config,
          partitions,
          schemas,
          codec,
          prepare,
          guard,
          onFailed: (error) => stream.fail(error),
          observer,
          logCreator,
        })
      : undefined;
  const ends = new LogEnds(kafkaClient(config.kafka, { retries: 0 }), {
    topics: entities === undefined ? topics : [...topics, entities],
    onRound: () => {
      watch.look();
      observer.onWatched?.([...watch.unready(), ...(repartition?.watch.unready() ?? [])]);
    },
  });
  const watch: Watch = new Watch({
    ends,
    topics,
    partitions,
    positions: () => positionsOf([...stream.tasks.values()], fetcher),
    owned: () => stream.assignment,
    standing: () => [...fetcher.standing(), ...(catalogue?.standing ?? [])],
  });
  const close = async () => {
    await catalogue?.close();
    await guard.close();
    await repartition?.close();
    await Promise.all([ends.close(), fetcher.close(), changelog.close(), outputs.close(), models.close()]);
    await slot.current.encoder.close();
  };
  try {
    await Promise.all([
      inTime(() => fetcher.connect(topics)),
      inTime(() => changelog.connect()),
      inTime(async () => repartition?.connect()),
      atLeastOnce ? inTime(() => outputs.open()) : undefined,
    ]);
    const updates = await readUpdates(config);
    await inTime(async () => catalogue?.open(updates));
    ends.start();
    guard.watch();
  } catch (error) {
    observer.onFailed?.(error);
    await close();
    throw error;
  }
  return {
    get encoder() {
      return slot.current.encoder;
    },
    models,
    catalogue,
    fetcher,
    stream,
    watch: { report: () => joined(watch.report(), repartition?.watch.report()) },
    ends,
    topics,
    partitions,
    run: (signal) => (repartition === undefined ? stream.run(signal) : repartition.alongside((both) => stream.run(both), signal)),
    close,
  };
}

const withServed =
  (slot: ModelSlot<ServedModel>): TaskParts['requireCompatible'] =>
  (found, where) =>
    requireCompatible(found, slot.current.bundle, slot.current.signature, where);
