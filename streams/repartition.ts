/** Records keyed by anything → the same by user: wires the repartitioning of an instance, everything it needs opened, and closed again. */
import { type KafkaClient, type KafkaLogCreator, kafkaClient } from '../infra/kafka/kafka-client.ts';
import { LogEnds } from '../infra/kafka/log-ends.ts';
import { PartitionFetcher } from '../infra/kafka/partition-fetcher.ts';
import type { TopicGuard } from '../infra/kafka/topic-guard.ts';
import type { SourceRecord } from '../schemas/action.ts';
import type { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../schemas/avro/record-decoder.ts';
import type { SchemaDirectory } from '../schemas/avro/schemas.ts';
import { repartitionGroup } from '../schemas/config.ts';
import { messageOf, PipelineError } from '../schemas/errors.ts';
import { RepartitionStream } from './repartition/repartition-stream.ts';
import type { LiveConfig } from './require-kafka.ts';
import { Watch } from './watch.ts';

export interface RepartitionObserver {
  readonly onFact?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
  readonly onNotice?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
  /** Records `from` to `to` were deleted by retention before they were read. */
  readonly onLost?: (at: { readonly topic: string; readonly partition: number }, from: number, to: number) => void;
}

export interface RepartitionParts {
  readonly config: LiveConfig;
  /** Of the topic by user. */
  readonly partitions: number;
  readonly schemas: SchemaDirectory;
  readonly codec: AvroCodec;
  readonly prepare: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  readonly guard: Pick<TopicGuard, 'maxBytes' | 'check' | 'confirm'>;
  /** What ends the deployment. */
  readonly onFailed: (error: PipelineError) => void;
  readonly observer: RepartitionObserver;
  readonly logCreator?: KafkaLogCreator | undefined;
}

export interface Repartition {
  readonly watch: Watch;
  connect(): Promise<void>;
  /** Runs for as long as `work` does; what ends it before that is told as `onFailed`. @throws what `work` throws */
  alongside(work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/**
 * A consumer group of its own (`<applicationId>-repartition`) reads `topics.source` and writes what it reads to `topics.userActions`,
 * records and offsets in one transaction, so that the topic by user holds each record of the source once, as Kafka Streams' repartition
 * topics do. Records are written as they are, with the user's id as their key: mapping, dead letters and all the rest are the stream's.
 *
 * Memory: `kafka.maxBufferedBytes` fetched and waiting, a partition of the source.
 */
export function createRepartition(parts: RepartitionParts): Repartition {
  const { config, observer, onFailed } = parts;
  const { topics } = config.kafka;
  const source = topics.source!;
  const group = { ...config.kafka, applicationId: repartitionGroup(config.kafka.applicationId) };
  const kafka: KafkaClient = kafkaClient(group, { ...(parts.logCreator !== undefined && { logCreator: parts.logCreator }) });
  const fetcher = new PartitionFetcher(kafka, {
    maxBufferedBytes: group.maxBufferedBytes,
    maxBatchBytes: group.maxBatchBytes,
    confirm: (topic) => parts.guard.confirm(topic),
    onData: () => stream.notify(),
    onError: (error) => stream.fail(error),
    onTrouble: (error) =>
      observer.onNotice?.('fetching fails; it is tried again', { topic: source, code: error.code, reason: error.message }),
    onStanding: (standing) => observer.onNotice?.('a partition stands: it cannot be read on', { ...standing }),
    onMoving: ({ topic, partition }) => observer.onFact?.('a partition that stood goes on', { topic, partition }),
    onSkipped: (at, from, to) => observer.onLost?.(at, from, to),
  });
  const positions = new Map<number, number>();
  const stream: RepartitionStream = new RepartitionStream({
    kafka,
    config: group,
    source,
    partitions: parts.partitions,
    fetcher,
    decoder: createRecordDecoder({
      ...config.kafka,
      ...config.time,
      topics: { ...topics, userActions: source },
      schemas: parts.schemas,
      mapping: config.kafka.mapping,
      erasureAction: config.sequence.erasureAction,
    }),
    codec: parts.codec,
    prepare: parts.prepare,
    maxBytes: parts.guard.maxBytes,
    beforeTakeOver: () => parts.guard.check(),
    observer: {
      onAssigned: (own) => observer.onFact?.('repartitions', { topic: source, partitions: own }),
      onRecovering: (error, delayMs) =>
        observer.onNotice?.('the repartitioning goes on from its last commit', {
          code: error.code,
          reason: error.message,
          delayMs,
        }),
    },
    onCommitted: ({ partition, nextOffset }) => positions.set(partition, nextOffset),
  });
  const ends = new LogEnds(kafkaClient(group, { retries: 0 }), { topics: [source], onRound: () => watch.look() });
  const watch: Watch = new Watch({
    ends,
    topics: [source],
    // It may grow: partitions that were added are somebody's.
    partitions: Number.POSITIVE_INFINITY,
    positions: () =>
      (stream.assignment ?? []).flatMap((partition) => {
        const at = { topic: source, partition };
        const held = fetcher.progress(at);
        const nextOffset = positions.get(partition) ?? (held && held.position - held.buffered);
        return nextOffset === undefined ? [] : [{ ...at, nextOffset, waitingMs: fetcher.waiting(at)?.records[0]?.timestampMs }];
      }),
    owned: () => stream.assignment,
    standing: () => fetcher.standing(),
  });
  return {
    watch,
    connect: async () => {
      await fetcher.connect([source, topics.userActions]);
      ends.start();
    },
    alongside: async (work, signal) => {
      const over = new AbortController();
      const ended = stream.run(AbortSignal.any([signal, over.signal])).catch((thrown: unknown) => {
        const error =
          thrown instanceof PipelineError ? thrown : new PipelineError('KAFKA_REFUSED', messageOf(thrown), { cause: thrown });
        onFailed(error);
      });
      try {
        await work(signal);
      } finally {
        over.abort();
        await ended;
      }
    },
    close: async () => {
      await Promise.all([ends.close(), fetcher.close()]);
    },
  };
}
