/** An instance of the repartitioning: what it does with its partitions, from records that lie anywhere to records that lie by user. */
import { setTimeout as sleep } from 'node:timers/promises';
import { deadLetterRecord } from '../../infra/kafka/dead-letter-records.ts';
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import { partitioner } from '../../infra/kafka/keyed-producer.ts';
import type { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import {
  bytesOf,
  type OutgoingRecord,
  type OutgoingRecords,
  PartitionProducer,
  roomOf,
} from '../../infra/kafka/partition-producer.ts';
import { resolveRanges } from '../../infra/kafka/range-reader.ts';
import { committedBy } from '../../infra/kafka/request-erasure.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { RecordDecoder } from '../../schemas/avro/record-decoder.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type GroupObserver, GroupSupervisor, type Shift } from '../group-supervisor.ts';

/** Names, for people, where a record of the repartition topic came from: `topic/partition/offset`. */
const SOURCE_HEADER = 'hstu-source';

/** Between two looks whether the owner of the first partition has said where the group begins, ms. */
const BEGINNING_LOOK_MS = 100;

export interface RepartitionStreamParts {
  readonly kafka: KafkaClient;
  /** Of the repartitioning's own group. */
  readonly config: KafkaConfig;
  readonly source: string;
  /** Of the topic by user. */
  readonly partitions: number;
  readonly fetcher: PartitionFetcher;
  /** Reads the source as the stream reads the topic by user. */
  readonly decoder: RecordDecoder;
  readonly codec: AvroCodec;
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  readonly maxBytes: ReadonlyMap<string, number>;
  readonly beforeTakeOver: () => Promise<void>;
  readonly observer: GroupObserver;
  readonly onCommitted: (moved: { readonly partition: number; readonly nextOffset: number; readonly records: number }) => void;
}

export class RepartitionStream {
  readonly #parts: RepartitionStreamParts;
  readonly #supervisor: GroupSupervisor;
  readonly #partitionOf: (userId: string) => number;
  #wake: () => void = () => undefined;
  #woken: Promise<void> = Promise.resolve();

  constructor(parts: RepartitionStreamParts) {
    this.#parts = parts;
    this.#partitionOf = partitioner(parts.partitions);
    this.#sleep();
    const { kafka, config, source, observer } = parts;
    this.#supervisor = new GroupSupervisor({
      kafka,
      config,
      topics: [source],
      observer,
      work: {
        carryOut: (partitions, shift) => this.#carryOut(partitions, shift),
        // Nothing is kept from one assignment to the next.
        letGo: async () => undefined,
        close: async () => undefined,
      },
    });
  }

  /** Records have come. */
  notify(): void {
    this.#wake();
    this.#sleep();
  }

  /** Ends what is under way: see `GroupSupervisor.fail`. */
  fail(error: PipelineError): void {
    this.#supervisor.fail(error);
  }

  /** Partitions of the source that are its own; undefined while the group rebalances. */
  get assignment(): readonly number[] | undefined {
    return this.#supervisor.assignment;
  }

  /** Runs until stopped. @throws PipelineError that trying again does not mend; what was committed stays, nothing else does */
  run(signal: AbortSignal): Promise<void> {
    return this.#supervisor.run(signal);
  }

  #sleep(): void {
    this.#woken = new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  async #carryOut(partitions: readonly number[], { drain, failure$, become, progressed }: Shift): Promise<void> {
    const { source, fetcher, beforeTakeOver } = this.#parts;
    const failed = new AbortController();
    const failure = new Promise<never>((_, reject) => {
      failure$.subscribe({ error: reject });
    });
    failure.catch(() => undefined);
    const stop = () => this.notify();
    drain.addEventListener('abort', stop, { once: true });
    const producers = new Map<number, PartitionProducer>();
    try {
      await beforeTakeOver();
      const begin = async (partition: number) => {
        const producer = new PartitionProducer(this.#parts.kafka, this.#parts.config, partition, this.#parts.maxBytes);
        producers.set(partition, producer);
        await producer.open();
        fetcher.assign({ topic: source, partition }, await this.#startOf(partition, producer, drain));
      };
      await Promise.all(partitions.map(begin));
      drain.throwIfAborted();
      become('RUNNING');
      const ends = AbortSignal.any([drain, failed.signal]);
      const move = (partition: number) => this.#move(partition, producers.get(partition)!, ends, progressed);
      // One that hangs is left: its producer is fenced by whoever takes the partition over.
      await Promise.race([failure, Promise.all(partitions.map(move))]);
    } finally {
      failed.abort();
      this.notify();
      drain.removeEventListener('abort', stop);
      for (const partition of partitions) fetcher.unassign({ topic: source, partition });
      await Promise.all([...producers.values()].map((producer) => producer.close()));
    }
  }

  /**
   * Where the group stands; for a partition that was added since, its beginning.
   *
   * @throws PipelineError `STATE_LOST` where all that the group had committed is gone, and what it wrote is not; `TOPICS_INVALID` for a
   *   position that the log does not have; `DOMException` `AbortError` when drained
   */
  async #startOf(partition: number, producer: PartitionProducer, drain: AbortSignal): Promise<number> {
    const { kafka, config, source, fetcher } = this.#parts;
    const { first, end } = await fetcher.offsets({ topic: source, partition });
    for (;;) {
      const committed = await committedBy(kafka, config.applicationId, [source]);
      const start = committed.get(`${partition}/${source}`);
      if (start !== undefined && start > end)
        throw new PipelineError(
          'TOPICS_INVALID',
          `${source}/${partition} ends at offset ${end}, and group ${config.applicationId} stands at ${start}: the topic was deleted and made again; ${mend('--to-earliest', config.applicationId, source)} reads it from its beginning`,
        );
      if (start !== undefined) return start;
      if (committed.size > 0) {
        await producer.commitStarts(source, new Map([[partition, first]]));
        return first;
      }
      if (partition === 0) await this.#begin(producer);
      else await sleep(BEGINNING_LOOK_MS, undefined, { signal: drain });
    }
  }

  /**
   * Nobody has read anything yet: whoever owns the first partition says once for all of them where the group begins. Asked by each for
   * itself, after faults and by the next owners, the latest would be later.
   */
  async #begin(producer: PartitionProducer): Promise<void> {
    const { kafka, config, source } = this.#parts;
    await this.#requireNothingWritten();
    const ranges = await resolveRanges(kafka, source, () => ({}));
    const starts = ranges.map(({ partition, from, to }) => [partition, config.startFrom === 'earliest' ? from : to] as const);
    await producer.commitStarts(source, new Map(starts));
  }

  async #requireNothingWritten(): Promise<void> {
    const { config, source, fetcher, partitions } = this.#parts;
    const { userActions } = config.topics;
    for (let partition = 0; partition < partitions; partition++) {
      const { end } = await fetcher.offsets({ topic: userActions, partition });
      if (end > 0)
        throw new PipelineError(
          'STATE_LOST',
          `group ${config.applicationId} has committed nothing of ${source}, and ${userActions} holds what it wrote: the offsets have expired, or ${source} was deleted and made again; say where to read on: ${mend('--to-datetime TIME', config.applicationId, source)}`,
        );
    }
  }

  async #move(partition: number, producer: PartitionProducer, ends: AbortSignal, progressed: () => void): Promise<void> {
    const { source, fetcher, config, prepare, onCommitted } = this.#parts;
    while (!ends.aborted) {
      const woken = this.#woken;
      const { records, nextOffset } = fetcher.take({ topic: source, partition }, config.batchEvents);
      if (records.length === 0) {
        await woken;
        continue;
      }
      await prepare?.(records);
      await producer.commit({ records: this.#route(records), inputs: { [source]: nextOffset } });
      progressed();
      onCommitted({ partition, nextOffset, records: records.length });
    }
  }

  /**
   * Every record to its user's partition, as it is; one that names nobody to the partition of its own number, where the stream says what
   * is wrong with it. What cannot be written there is a dead letter here.
   */
  #route(records: readonly SourceRecord[]): OutgoingRecords {
    const { config, partitions, maxBytes, codec, decoder } = this.#parts;
    const { userActions, deadLetters } = config.topics;
    const moved: OutgoingRecord[] = [];
    const letters: OutgoingRecord[] = [];
    for (const record of records) {
      const { position, value, key = null, timestampMs, fault } = record;
      const decoded = decoder.decode(record);
      const userId = decoded.ok ? decoded.actions[0]?.userId : undefined;
      const place =
        userId === undefined
          ? { key, partition: position.partition % partitions }
          : { key: userId, partition: this.#partitionOf(userId) };
      const outgoing: OutgoingRecord = {
        ...place,
        value: value as Uint8Array | null,
        ...(timestampMs !== undefined && { timestampMs }),
        headers: { [SOURCE_HEADER]: `${position.topic}/${position.partition}/${position.offset}` },
      };
      const bytes = bytesOf(outgoing);
      const room = roomOf(maxBytes.get(userActions));
      if (fault === undefined && bytes <= room) {
        moved.push(outgoing);
        continue;
      }
      const letter = {
        position,
        code: fault?.code ?? 'RECORD_TOO_LARGE',
        step: 'repartition',
        message: fault?.message ?? `${bytes} bytes for ${userActions}, whose max.message.bytes is ${maxBytes.get(userActions)}`,
        original: value as Uint8Array | null,
        originalKey: key,
        ...(timestampMs !== undefined && { timestampMs }),
      } as const;
      letters.push({ ...deadLetterRecord(codec, letter, roomOf(maxBytes.get(deadLetters))), partition: place.partition });
    }
    return new Map([
      ...(moved.length > 0 ? [[userActions, moved] as const] : []),
      ...(letters.length > 0 ? [[deadLetters, letters] as const] : []),
    ]);
  }
}

const mend = (to: string, group: string, topic: string): string =>
  `kafka-consumer-groups.sh --bootstrap-server … --reset-offsets ${to} --group ${group} --topic ${topic} --execute`;
