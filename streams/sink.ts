/** The committed topics → ClickHouse: wires an instance of the sink, everything it needs opened, checked and closed again. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { connect } from '../infra/clickhouse/connect.ts';
import { type FeedHealth, writeHealth } from '../infra/clickhouse/feed/feed-offsets.ts';
import { FeedReader } from '../infra/clickhouse/feed/feed-rows.ts';
import { FeedWriter, type FeedWriterOptions } from '../infra/clickhouse/feed/feed-writer.ts';
import { type KafkaLogCreator, kafkaClient, requireLogin } from '../infra/kafka/kafka-client.ts';
import { LogEnds } from '../infra/kafka/log-ends.ts';
import { PartitionFetcher } from '../infra/kafka/partition-fetcher.ts';
import { SchemaRegistry } from '../infra/kafka/schema-registry.ts';
import { TopicGuard } from '../infra/kafka/topic-guard.ts';
import { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../schemas/avro/wire-format.ts';
import { judgePlaces } from './misplaced.ts';
import { patiently } from './patience.ts';
import type { LiveConfig } from './require-kafka.ts';
import { type SinkObserver, SinkStream } from './sink/sink-stream.ts';
import { Watch } from './watch.ts';

export interface OpenSinkOptions {
  readonly config: LiveConfig;
  readonly observer?: SinkObserver & Pick<FeedWriterOptions, 'onAway' | 'onBack'>;
  /** kafkajs' own messages. @default none */
  readonly logCreator?: KafkaLogCreator;
  /** Ends the waiting for brokers that are away. @default none */
  readonly signal?: AbortSignal;
}

export interface OpenSink {
  /** Of ClickHouse, for messages. */
  readonly where: string;
  /** Where every topic partition of this instance stands, and what is buffered of it, bytes. */
  progress(): readonly (FeedHealth & { readonly bytes: number })[];
  /** What stands in the way of its work. */
  readonly watch: Watch;
  /** Runs until aborted. @throws PipelineError that trying again does not mend */
  run(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** Its own group beside the deployment's: a slow or dead ClickHouse holds up nobody else. */
export const sinkGroup = (applicationId: string): string => `${applicationId}-sink`;

const HEALTH_EVERY_MS = 10_000;
const REQUEST_TIMEOUT_MS = 60_000;
/** Smallest useful buffer of a topic partition, bytes. */
const MIN_BUFFER_BYTES = 64 * 1024;

/**
 * Opens what an instance needs; the caller runs and closes it.
 *
 * Memory: `sink.maxBufferedBytes` fetched and waiting, and one commit of at most a quarter of that under way.
 *
 * Brokers that are away are waited for, and told of as `observer.onWaiting`.
 *
 * @throws PipelineError for every fault of configuration, topics and rights, and a ClickHouse that is not there, before anything is read;
 *   `DOMException` `AbortError` when stopped
 */
export async function openSink({ config, observer = {}, logCreator, signal }: OpenSinkOptions): Promise<OpenSink> {
  const inTime = <T>(step: () => Promise<T>): Promise<T> => patiently(step, { signal, onTrouble: observer.onWaiting });
  const { kafka: settings, sink } = config;
  const group = { ...settings, applicationId: sinkGroup(settings.applicationId) };
  const runId = settings.applicationId;
  const kafka = kafkaClient(group, { ...(logCreator !== undefined && { logCreator }) });
  await requireLogin(group);
  const guard = new TopicGuard(kafkaClient(group, { retries: 1 }), settings, {
    ...(observer.onNotice !== undefined && { onNotice: observer.onNotice }),
    onFailed: (error) => stream.fail(error),
  });
  const partitions = await inTime(() => guard.open());
  const registry = settings.schemaRegistry && new SchemaRegistry(settings.schemaRegistry);
  const schemas = registry ?? fixedSchemas;
  const reader = new FeedReader({
    runId,
    topics: settings.topics,
    // Outputs and dead letters are larger than the records they are of.
    codec: new AvroCodec({ schemas, maxRecordBytes: 4 * settings.maxRecordBytes }),
    decoder: judgePlaces(
      createRecordDecoder({
        ...settings,
        ...config.time,
        schemas,
        mapping: settings.mapping,
        erasureAction: config.sequence.erasureAction,
      }),
      { kafka: settings, partitions },
    ),
    erasureAction: config.sequence.erasureAction,
    embeddingHistoryDays: sink.embeddingHistoryDays,
  });
  const clickhouse = await connect(config.clickhouse, { requestTimeoutMs: REQUEST_TIMEOUT_MS });
  const { topics } = reader;
  const maxBufferedBytes = Math.max(MIN_BUFFER_BYTES, Math.floor(sink.maxBufferedBytes / (topics.length * partitions)));
  const fetcher = new PartitionFetcher(kafka, {
    maxBufferedBytes,
    maxBatchBytes: settings.maxBatchBytes,
    maxBytesPerFetch: Math.min(2 ** 18, maxBufferedBytes),
    confirm: (topic) => guard.confirm(topic),
    onData: () => stream.notify(),
    onError: (error) => stream.fail(error),
    onSkipped: (at, from, to) =>
      observer.onNotice?.('records were deleted by retention before they were stored', {
        topic: at.topic,
        partition: at.partition,
        from,
        to,
      }),
  });
  const stored = new Map<string, number>();
  const stream: SinkStream = new SinkStream({
    kafka,
    config: group,
    topics,
    topicIds: guard.idsOf(topics),
    beforeTakeOver: () => guard.check(),
    fetcher,
    writer: new FeedWriter(clickhouse, {
      runId,
      reader,
      ...(observer.onAway !== undefined && { onAway: observer.onAway }),
      ...(observer.onBack !== undefined && { onBack: observer.onBack }),
    }),
    prepare: registry && ((records) => registry.ensure(schemaIdsOf(records))),
    maxRecords: sink.maxRecords,
    maxDelayMs: sink.maxDelayMs,
    maxCommitBytes: Math.ceil(sink.maxBufferedBytes / 4),
    observer: {
      ...observer,
      onCommitted: (taken, commit) => {
        for (const { topic, partition, nextOffset } of taken) stored.set(`${partition}/${topic}`, nextOffset);
        observer.onCommitted?.(taken, commit);
      },
    },
  });
  const ends = new LogEnds(kafkaClient(group, { retries: 0 }), {
    topics,
    onRound: () => {
      watch.look();
      observer.onWatched?.(watch.unready());
    },
  });
  const progress = () =>
    stream.owned().flatMap(({ topic, partition }) => {
      const held = fetcher.progress({ topic, partition });
      if (held === undefined) return [];
      const nextOffset = stored.get(`${partition}/${topic}`) ?? held.position - held.buffered;
      const end = ends.endsOf(topic).get(partition) ?? held.endOffset;
      return [{ topic, partition, nextOffset, lag: Math.max(0, end - nextOffset), bytes: held.bytes }];
    });
  const watch: Watch = new Watch({
    ends,
    topics,
    partitions,
    positions: () => progress().map((at) => ({ ...at, waitingMs: fetcher.waiting(at)?.records[0]?.timestampMs })),
    owned: () => stream.assignment,
    standing: () => fetcher.standing(),
  });
  const instance = `${hostname()}-${process.pid}-${randomBytes(2).toString('hex')}`;
  const timer = setInterval(() => {
    // While ClickHouse is away it is not told; the metrics are.
    writeHealth(clickhouse, runId, instance, progress()).catch(() => undefined);
  }, HEALTH_EVERY_MS);
  timer.unref();
  const close = async () => {
    clearInterval(timer);
    await guard.close();
    await ends.close();
    await fetcher.close();
    await clickhouse.close();
  };
  try {
    await inTime(() => fetcher.connect(topics));
    ends.start();
    guard.watch();
  } catch (error) {
    observer.onFailed?.(error);
    await close();
    throw error;
  }
  return { where: clickhouse.where, progress, watch, run: (signal) => stream.run(signal), close };
}
