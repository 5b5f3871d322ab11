/** Reads partitions from stated offsets, committed records only, each into a bounded buffer of its own. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { committedRecords } from './committed-records.ts';
import { kafkaError } from './kafka-errors.ts';
import { type Cluster, type FetchedPartition, openCluster, READ_COMMITTED } from './kafkajs-internals.ts';
import { keyOf, Standing, type StandingObserver, type StandingPartition, type TopicPartition } from './standing.ts';

export type { StandingPartition, TopicPartition } from './standing.ts';

export interface PartitionFetcherOptions extends StandingObserver {
  /** Buffered above this, a partition is not fetched, bytes. */
  readonly maxBufferedBytes: number;
  /** Of one partition in one answer, bytes: what is decoded at once, and how long the event loop is held. @default 256 KiB */
  readonly maxBytesPerFetch?: number;
  /** How long the broker waits for a first byte, ms. @default 250 */
  readonly maxWaitMs?: number;
  /** Called when records have come, or a partition has been read up to the end of what is committed. */
  readonly onData: (at: TopicPartition) => void;
  /** A fault that waiting does not mend, or has not mended for a minute. All is unassigned; `assign` begins anew. */
  readonly onError: (error: PipelineError) => void;
  /** Records were deleted by retention before they were read: the fetcher goes on at `to`. */
  /** A fault that is tried again: told once, until a fetch has succeeded. */
  readonly onTrouble?: (error: PipelineError) => void;
  readonly onSkipped?: (at: TopicPartition, from: number, to: number) => void;
}

/** What has been read of a partition and not been taken. */
interface Buffered extends TopicPartition {
  records: SourceRecord[];
  bytes: number;
  /** Where the next fetch begins. */
  position: number;
  /** End of the log as last told: offset of the next record to come. */
  endOffset: number;
  /** Whether everything committed at the last answer has been read. */
  caughtUp: boolean;
  /** The last answer held nothing although there is something: crowded out by others, or batches emptied by compaction. */
  emptyHanded: boolean;
}

/** Errors that a new look at the metadata mends: leaders move, connections close. */
const GIVE_UP_AFTER_MS = 60_000;
const RETRY_DELAY_MS = 200;

export class PartitionFetcher {
  readonly #options: PartitionFetcherOptions & { readonly maxBytesPerFetch: number; readonly maxWaitMs: number };
  readonly #standing: Standing;
  readonly #kafka: Kafka;
  readonly #partitions = new Map<string, Buffered>();
  #cluster: Cluster;
  /** Leaders with a fetch under way. */
  readonly #busy = new Map<string, Promise<void>>();
  #stopped = false;
  #failingSinceMs: number | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(kafka: Kafka, options: PartitionFetcherOptions) {
    this.#kafka = kafka;
    this.#options = { maxBytesPerFetch: 2 ** 18, maxWaitMs: 250, ...options };
    this.#standing = new Standing(options);
    this.#cluster = openCluster(kafka);
  }

  /** Partitions that cannot be read on now. */
  standing(): readonly StandingPartition[] {
    return this.#standing.list();
  }

  /** @throws PipelineError when no broker answers or lets us in */
  async connect(topics: readonly string[]): Promise<void> {
    try {
      await this.#cluster.connect();
      await this.#cluster.addMultipleTargetTopics([...topics]);
    } catch (thrown) {
      throw kafkaError(thrown, `connecting to read ${topics.join(', ')}`);
    }
  }

  /** Begins to read `at` from `offset`; reading it already, it begins anew there. */
  assign(at: TopicPartition, offset: number): void {
    const { topic, partition } = at;
    this.#partitions.set(keyOf(at), {
      topic,
      partition,
      records: [],
      bytes: 0,
      position: offset,
      endOffset: offset,
      caughtUp: false,
      emptyHanded: false,
    });
    this.#pump();
  }

  unassign(at: TopicPartition): void {
    this.#partitions.delete(keyOf(at));
    this.#standing.forget(at);
  }

  /**
   * Takes up to `max` records, oldest first, those before `beforeOffset`; `nextOffset` is where the record after them is to be found; NaN
   * where `at` is not read.
   */
  take(
    at: TopicPartition,
    max: number,
    beforeOffset = Number.POSITIVE_INFINITY,
  ): { readonly records: readonly SourceRecord[]; readonly nextOffset: number } {
    const held = this.#partitions.get(keyOf(at));
    if (held === undefined) return { records: [], nextOffset: Number.NaN };
    let count = 0;
    while (count < Math.min(max, held.records.length) && held.records[count]!.position.offset < beforeOffset) count++;
    const records = held.records.length === count ? held.records : held.records.slice(0, count);
    held.records = held.records.length === count ? [] : held.records.slice(count);
    for (const record of records) held.bytes -= sizeOf(record);
    this.#pump();
    return { records, nextOffset: held.records[0]?.position.offset ?? held.position };
  }

  /**
   * What was fetched and not taken, to look at: whether the log has more (`atEnd`, as of the last answer), and whether more is fetched
   * before some of it is taken (`full`). Undefined for a partition that is not read.
   */
  waiting(at: TopicPartition) {
    const held = this.#partitions.get(keyOf(at));
    if (held === undefined) return undefined;
    const { records, bytes, position, caughtUp } = held;
    return {
      records: records as readonly SourceRecord[],
      nextOffset: records[0]?.position.offset ?? position,
      atEnd: caughtUp,
      full: bytes >= this.#options.maxBufferedBytes,
    };
  }

  /** Where a partition stands: records waiting, bytes of them, and how many of the log are not yet fetched. */
  progress(at: TopicPartition) {
    const held = this.#partitions.get(keyOf(at));
    if (held === undefined) return undefined;
    const { records, bytes, position, endOffset, caughtUp } = held;
    return {
      buffered: records.length,
      bytes,
      position,
      endOffset,
      caughtUp,
      lag: Math.max(0, endOffset - position) + records.length,
    };
  }

  /** First and next offset of a partition, of what is committed. */
  async offsets({ topic, partition }: TopicPartition): Promise<{ readonly first: number; readonly end: number }> {
    const ask = async (fromBeginning: boolean) => {
      const [answer] = await this.#cluster.fetchTopicsOffset([{ topic, partitions: [{ partition }], fromBeginning }]);
      return Number(answer!.partitions[0]!.offset);
    };
    for (let attempt = 0; ; attempt++) {
      try {
        return { first: await ask(true), end: await ask(false) };
      } catch (thrown) {
        const error = kafkaError(thrown, `asking for the offsets of ${topic}/${partition}`);
        if (!error.retriable || attempt === 20) throw error;
        await this.#renewMetadata();
      }
    }
  }

  async close(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#partitions.clear();
    this.#standing.clear();
    await this.#cluster.disconnect().catch(() => undefined);
    // A fetch that was about to begin has connected anew, and would keep the process alive.
    await Promise.all(this.#busy.values());
    await this.#cluster.disconnect().catch(() => undefined);
  }

  /** Starts a fetch from every leader that has none under way and something to be asked for. */
  #pump(): void {
    if (this.#stopped || this.#retry !== undefined) return;
    try {
      for (const [leader, wanted] of this.#wantedByLeader()) {
        if (this.#busy.has(leader)) continue;
        const fetching = this.#fetch(leader, wanted).finally(() => {
          this.#busy.delete(leader);
          this.#pump();
        });
        this.#busy.set(leader, fetching);
      }
    } catch (thrown) {
      this.#failed(thrown);
    }
  }

  #wantedByLeader(): Map<string, Buffered[]> {
    const byLeader = new Map<string, Buffered[]>();
    for (const held of this.#partitions.values()) {
      if (held.bytes >= this.#options.maxBufferedBytes) continue;
      const leader = Object.keys(this.#cluster.findLeaderForPartitions(held.topic, [held.partition]))[0];
      if (leader === undefined)
        throw new PipelineError('KAFKA_FAILED', `${held.topic} has no partition ${held.partition}, or none with a leader`);
      const list = byLeader.get(leader) ?? [];
      list.push(held);
      byLeader.set(leader, list);
    }
    // Alone, a partition is answered with at least one batch that holds records, if there is any.
    for (const [leader, list] of byLeader) {
      const alone = list.find(({ emptyHanded }) => emptyHanded);
      if (alone !== undefined) byLeader.set(leader, [alone]);
    }
    return byLeader;
  }

  async #fetch(leader: string, wanted: readonly Buffered[]): Promise<void> {
    const { maxBytesPerFetch, maxWaitMs } = this.#options;
    const asked = new Map(wanted.map((held) => [keyOf(held), held.position]));
    const topics = [...new Set(wanted.map(({ topic }) => topic))].map((topic) => ({
      topic,
      partitions: wanted
        .filter((held) => held.topic === topic)
        .map(({ partition, position }) => ({ partition, fetchOffset: String(position), maxBytes: maxBytesPerFetch })),
    }));
    try {
      await this.#cluster.refreshMetadataIfNecessary();
      const broker = await this.#cluster.findBroker({ nodeId: leader });
      const { responses } = await broker.fetch({
        isolationLevel: READ_COMMITTED,
        maxWaitTime: maxWaitMs,
        minBytes: 1,
        maxBytes: maxBytesPerFetch * Math.max(4, wanted.length),
        topics,
      });
      this.#failingSinceMs = undefined;
      for (const at of wanted) this.#standing.end(at);
      for (const { topicName, partitions } of responses) for (const fetched of partitions) this.#keep(topicName, fetched, asked);
    } catch (thrown) {
      if ((thrown as { name?: string }).name === 'KafkaJSOffsetOutOfRange') await this.#skip(thrown as TopicPartition);
      else this.#failed(thrown);
    }
  }

  #keep(topic: string, fetched: FetchedPartition, asked: ReadonlyMap<string, number>): void {
    const key = keyOf({ topic, partition: fetched.partition });
    const held = this.#partitions.get(key);
    // Assigned anew while the answer was under way: it is another partition's now.
    if (held === undefined || held.position !== asked.get(key)) return;
    const stableOffset = Number(fetched.lastStableOffset ?? fetched.highWatermark);
    if (fetched.messages.length === 0 && stableOffset > held.position) {
      if (asked.size > 1) {
        held.emptyHanded = true;
        return;
      }
      held.position = stableOffset;
    }
    held.emptyHanded = false;
    const { records, nextOffset } = committedRecords(topic, fetched, held.position);
    for (const record of records) {
      held.records.push(record);
      held.bytes += sizeOf(record);
    }
    held.position = nextOffset;
    held.endOffset = Number(fetched.highWatermark);
    held.caughtUp = nextOffset >= stableOffset;
    if (records.length > 0 || held.caughtUp) this.#options.onData(held);
  }

  /** The log begins after our position (retention), or ends before it (another topic of the same name). */
  async #skip({ topic, partition }: TopicPartition): Promise<void> {
    const held = this.#partitions.get(keyOf({ topic, partition }));
    if (held === undefined) return;
    try {
      const { first, end } = await this.offsets(held);
      if (held.position > end) {
        this.#stop(
          new PipelineError(
            'TOPICS_INVALID',
            `${topic}/${partition} ends at offset ${end}, and this deployment stands at ${held.position}: the topic was deleted and made again, or records were lost. To begin anew: hstu-streams reset`,
          ),
        );
        return;
      }
      if (held.position < first) {
        this.#options.onSkipped?.(held, held.position, first);
        held.position = first;
      }
    } catch (thrown) {
      this.#failed(thrown);
    }
  }

  /** Waits, looks at the metadata anew, and goes on; gives up on what waiting does not mend. */
  #failed(thrown: unknown): void {
    if (this.#stopped || this.#retry !== undefined) return;
    const error = kafkaError(thrown, 'fetching');
    const now = performance.now();
    if (this.#failingSinceMs === undefined) this.#options.onTrouble?.(error);
    this.#failingSinceMs ??= now;
    for (const held of this.#partitions.values()) this.#standing.begin(held, held.position, error);
    if (!error.retriable || now - this.#failingSinceMs > GIVE_UP_AFTER_MS) {
      this.#stop(error);
      return;
    }
    this.#retry = setTimeout(async () => {
      await this.#renewMetadata();
      this.#retry = undefined;
      this.#pump();
    }, RETRY_DELAY_MS);
  }

  async #renewMetadata(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
    try {
      await this.#cluster.refreshMetadata();
    } catch {
      // A connection that broke is not mended by kafkajs in every case: a new cluster is.
      const topics = [...new Set([...this.#partitions.values()].map(({ topic }) => topic))];
      const broken = this.#cluster;
      this.#cluster = openCluster(this.#kafka);
      void broken.disconnect().catch(() => undefined);
      try {
        await this.#cluster.connect();
        await this.#cluster.addMultipleTargetTopics(topics);
      } catch {
        // Tried again with the next failure, until GIVE_UP_AFTER_MS.
      }
    }
  }

  #stop(error: PipelineError): void {
    if (this.#stopped) return;
    this.#partitions.clear();
    this.#standing.clear();
    this.#failingSinceMs = undefined;
    this.#options.onError(error);
  }
}

/** Bytes a record holds in memory, about: the fetched bytes and the objects around them. */
const RECORD_BYTES = 200;
const sizeOf = ({ key, value }: SourceRecord): number =>
  RECORD_BYTES + ((value as Uint8Array | null)?.byteLength ?? 0) + (key?.byteLength ?? 0);
