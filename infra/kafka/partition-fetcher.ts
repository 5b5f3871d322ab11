/** Reads partitions from stated offsets, committed records only, each into a bounded buffer of its own. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { keepCommitted, unreadable } from './committed-records.ts';
import { kafkaError } from './kafka-errors.ts';
import { type Cluster, openCluster, READ_COMMITTED } from './kafkajs-internals.ts';
import { PartitionBuffer, type Standing } from './partition-buffer.ts';
import { type FetchedPartition, fetchRaw, protocolError } from './wire/fetch.ts';

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export interface PartitionFetcherOptions {
  /** Buffered above this, a partition is not fetched, bytes. One batch may go beyond it, by `maxBatchBytes`. */
  readonly maxBufferedBytes: number;
  /** Largest batch, unpacked, bytes. In the place of a larger one a record is given that says so (`fault`). @default 64 MiB */
  readonly maxBatchBytes?: number | undefined;
  /** Of one partition in one answer, bytes: what is decoded at once, and how long the event loop is held. @default 256 KiB */
  readonly maxBytesPerFetch?: number;
  /** How long the broker waits for a first byte, ms. @default 250 */
  readonly maxWaitMs?: number;
  /** Called when records have come, or a partition has been read up to the end of what is committed. */
  readonly onData: (at: TopicPartition) => void;
  /** A fault that waiting does not mend, or with no answer from any broker for a minute. All is unassigned; `assign` begins anew. */
  readonly onError: (error: PipelineError) => void;
  /** A fault that is tried again: told once, until the partition goes on. */
  readonly onTrouble?: (error: PipelineError) => void;
  /** Records were deleted by retention before they were read: the fetcher goes on at `to`. */
  readonly onSkipped?: (at: TopicPartition, from: number, to: number) => void;
  /** A partition cannot be read on, some times in a row: told once, until it goes on. It is tried again for as long as it is assigned. */
  readonly onStanding?: (standing: Standing) => void;
  /** A partition that was told of as standing goes on. */
  readonly onMoving?: (at: TopicPartition) => void;
}

const MAX_BATCH_BYTES = 64 * 2 ** 20;
const GIVE_UP_AFTER_MS = 60_000;
/** After the first fault of a partition; doubled up to the last, ms. */
const FIRST_DELAY_MS = 200;
const LAST_DELAY_MS = 5_000;
/** A partition stands when it failed so often in a row: a leader that moves, a bit that flips on the way, mend by themselves. */
const STANDS_AFTER = 3;

type Optional = 'onSkipped' | 'onTrouble' | 'onStanding' | 'onMoving' | 'maxBatchBytes';

export class PartitionFetcher {
  readonly #options: Required<Omit<PartitionFetcherOptions, Optional>> & Pick<PartitionFetcherOptions, Optional>;
  readonly #kafka: Kafka;
  readonly #partitions = new Map<string, PartitionBuffer>();
  #cluster: Cluster;
  /** Leaders with a fetch under way. */
  readonly #busy = new Map<string, Promise<void>>();
  #renewing: Promise<void> | undefined;
  #stopped = false;
  /** Since when no broker has answered although it was asked, on `performance.now()`. */
  #failingSinceMs: number | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(kafka: Kafka, options: PartitionFetcherOptions) {
    this.#kafka = kafka;
    this.#options = { maxBytesPerFetch: 2 ** 18, maxWaitMs: 250, ...options };
    this.#cluster = openCluster(kafka);
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
    this.#partitions.set(keyOf(at), new PartitionBuffer(at.topic, at.partition, offset));
    this.#pump();
  }

  unassign(at: TopicPartition): void {
    this.#partitions.delete(keyOf(at));
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
    const records = held.take(max, beforeOffset);
    this.#pump();
    return { records, nextOffset: held.nextOffset };
  }

  /**
   * What was fetched and not taken, to look at: whether the log has more (`atEnd`, as of the last answer), and whether more is to be
   * seen before some of it is taken (`full`). Undefined for a partition that is not read.
   */
  waiting(at: TopicPartition) {
    const held = this.#partitions.get(keyOf(at));
    if (held === undefined) return undefined;
    const { records, nextOffset, isFetched, isMade, bytes } = held;
    return { records, nextOffset, atEnd: isFetched && isMade, full: !isMade || bytes >= this.#options.maxBufferedBytes };
  }

  /** Where a partition stands: records waiting, bytes of them, and how many of the log are not yet fetched. */
  progress(at: TopicPartition) {
    const held = this.#partitions.get(keyOf(at));
    if (held === undefined) return undefined;
    const { count, bytes, position, endOffset, isFetched } = held;
    return { buffered: count, bytes, position, endOffset, caughtUp: isFetched, lag: Math.max(0, endOffset - position) + count };
  }

  /** Partitions that cannot be read on, the first failure counted. */
  standing(): readonly Standing[] {
    return [...this.#partitions.values()].flatMap(({ standing }) => standing ?? []);
  }

  /** First and next offset of a partition, of what is committed. */
  async offsets({ topic, partition }: TopicPartition): Promise<{ readonly first: number; readonly end: number }> {
    const ask = async (fromBeginning: boolean) => {
      const [answer] = await this.#cluster.fetchTopicsOffset([{ topic, partitions: [{ partition }], fromBeginning }]);
      const found = answer?.partitions[0];
      if (found === undefined)
        throw new PipelineError('KAFKA_FAILED', `${topic} has no partition ${partition}, or none with a leader`);
      return Number(found.offset);
    };
    for (let attempt = 0; ; attempt++) {
      try {
        return { first: await ask(true), end: await ask(false) };
      } catch (thrown) {
        const error = kafkaError(thrown, `asking for the offsets of ${topic}/${partition}`);
        if (!error.retriable || attempt === 20) throw error;
        await new Promise((resolve) => setTimeout(resolve, FIRST_DELAY_MS));
        await this.#renewMetadata();
      }
    }
  }

  async close(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#partitions.clear();
    await this.#cluster.disconnect().catch(() => undefined);
    // A fetch that was about to begin has connected anew, and would keep the process alive.
    await Promise.all(this.#busy.values());
    await this.#renewing;
    await this.#cluster.disconnect().catch(() => undefined);
  }

  /** Starts a fetch from every leader that has none under way and something to be asked for. */
  #pump(): void {
    if (this.#stopped) return;
    for (const [leader, wanted] of this.#wantedByLeader()) {
      if (this.#busy.has(leader)) continue;
      const fetching = this.#fetch(leader, wanted).finally(() => {
        this.#busy.delete(leader);
        this.#pump();
      });
      this.#busy.set(leader, fetching);
    }
  }

  #wantedByLeader(): Map<string, PartitionBuffer[]> {
    const byLeader = new Map<string, PartitionBuffer[]>();
    const leaderless: PartitionBuffer[] = [];
    const now = performance.now();
    for (const held of this.#partitions.values()) {
      if (held.isUnpacking || held.bytes >= this.#options.maxBufferedBytes || held.retryAtMs > now) continue;
      const leader = this.#leaderOf(held);
      if (leader === undefined) leaderless.push(held);
      else byLeader.set(leader, [...(byLeader.get(leader) ?? []), held]);
    }
    for (const held of leaderless)
      this.#failed(
        [held],
        new PipelineError('KAFKA_FAILED', `${held.topic} has no partition ${held.partition}, or none with a leader`),
      );
    // Alone, a partition is answered with at least one batch that holds records, if there is any.
    for (const [leader, list] of byLeader) {
      const alone = list.find(({ emptyHanded }) => emptyHanded);
      if (alone !== undefined) byLeader.set(leader, [alone]);
    }
    return byLeader;
  }

  #leaderOf({ topic, partition }: TopicPartition): string | undefined {
    try {
      return Object.keys(this.#cluster.findLeaderForPartitions(topic, [partition]))[0];
    } catch {
      // kafkajs throws for a topic that it does not know.
      return undefined;
    }
  }

  async #fetch(leader: string, wanted: readonly PartitionBuffer[]): Promise<void> {
    const { maxBytesPerFetch, maxWaitMs } = this.#options;
    const topics = [...new Set(wanted.map(({ topic }) => topic))].map((topic) => ({
      topic,
      partitions: wanted
        .filter((held) => held.topic === topic)
        .map(({ partition, position }) => ({ partition, fetchOffset: String(position), maxBytes: maxBytesPerFetch })),
    }));
    const asked = new Map(wanted.map((held) => [keyOf(held), held]));
    try {
      await this.#cluster.refreshMetadataIfNecessary();
      const broker = await this.#cluster.findBroker({ nodeId: leader });
      const answer = await fetchRaw(broker, {
        isolationLevel: READ_COMMITTED,
        maxWaitTime: maxWaitMs,
        minBytes: 1,
        maxBytes: maxBytesPerFetch * Math.max(4, wanted.length),
        topics,
      });
      this.#failingSinceMs = undefined;
      for (const fetched of answer) {
        const held = asked.get(keyOf(fetched));
        if (held !== undefined) void this.#unpack(held, fetched, wanted.length === 1);
      }
    } catch (thrown) {
      this.#failed(wanted, thrown);
    }
  }

  /** Beside the others: what is long in unpacking holds nobody up, and is not asked for meanwhile. */
  async #unpack(held: PartitionBuffer, fetched: FetchedPartition, alone: boolean): Promise<void> {
    held.isUnpacking = true;
    try {
      await this.#keep(held, fetched, alone);
    } catch (thrown) {
      this.#failed([held], thrown);
    }
    held.isUnpacking = false;
    this.#pump();
  }

  async #keep(held: PartitionBuffer, fetched: FetchedPartition, alone: boolean): Promise<void> {
    // Assigned anew while the answer was under way: it is another's now.
    const isOurs = () => this.#partitions.get(keyOf(held)) === held;
    if (!isOurs()) return;
    if (fetched.errorCode !== 0) {
      const error = protocolError(fetched.errorCode);
      if ((error as { readonly type?: string }).type === 'OFFSET_OUT_OF_RANGE') await this.#skip(held);
      else this.#failed([held], error);
      return;
    }
    const { highWatermark, lastStableOffset } = fetched;
    const stableOffset = lastStableOffset >= 0 ? lastStableOffset : highWatermark;
    held.endOffset = highWatermark;
    const before = held.position;
    let fault = await keepCommitted(held, fetched, this.#options.maxBatchBytes ?? MAX_BATCH_BYTES);
    if (!isOurs()) return;
    if (fault === undefined && held.position === before && stableOffset > before) {
      // Crowded out by others, or batches emptied by compaction.
      if (!alone) {
        held.emptyHanded = true;
        return;
      }
      if (fetched.records.length === 0) held.position = stableOffset;
      else fault = unreadable(held, `of ${fetched.records.length} bytes that came, none makes a whole batch`);
    }
    held.emptyHanded = false;
    held.isFetched = fault === undefined && held.position >= stableOffset;
    if (fault !== undefined) this.#failed([held], fault);
    else this.#moves(held);
    if (held.position > before || held.isFetched) this.#options.onData(held);
  }

  /** The log begins after our position (retention), or ends before it (another topic of the same name). */
  async #skip(held: PartitionBuffer): Promise<void> {
    const { topic, partition } = held;
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
      this.#failed([held], thrown);
    }
  }

  /** They are asked for again after a while; others go on. Gives up on what waiting does not mend. */
  #failed(failed: readonly PartitionBuffer[], thrown: unknown): void {
    if (this.#stopped) return;
    const error = kafkaError(thrown, 'fetching');
    const now = performance.now();
    // A batch that cannot be read is not the brokers' silence.
    const isSilence = error.code !== 'BATCH_UNREADABLE';
    if (isSilence) this.#failingSinceMs ??= now;
    if (failed.some(({ faults }) => faults === 0)) this.#options.onTrouble?.(error);
    if (!error.retriable || (isSilence && now - this.#failingSinceMs! > GIVE_UP_AFTER_MS)) {
      this.#stop(error);
      return;
    }
    for (const held of failed) {
      const { topic, partition, position: offset } = held;
      held.retryAtMs = now + Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** held.faults++);
      const sinceMs = held.standing?.sinceMs ?? Date.now();
      held.standing = { topic, partition, offset, code: error.code, reason: error.message, sinceMs };
      if (held.faults === STANDS_AFTER) this.#options.onStanding?.(held.standing);
    }
    if (isSilence) void this.#renewMetadata();
    this.#wakeAtRetry();
  }

  #moves(held: PartitionBuffer): void {
    if (held.standing === undefined) return;
    const wasTold = held.faults >= STANDS_AFTER;
    held.standing = undefined;
    held.faults = 0;
    if (wasTold) this.#options.onMoving?.(held);
  }

  #wakeAtRetry(): void {
    const now = performance.now();
    const next = Math.min(
      ...[...this.#partitions.values()].map(({ retryAtMs }) => (retryAtMs > now ? retryAtMs : Number.POSITIVE_INFINITY)),
    );
    clearTimeout(this.#retry);
    if (!Number.isFinite(next)) return;
    this.#retry = setTimeout(
      async () => {
        await this.#renewing;
        this.#pump();
        this.#wakeAtRetry();
      },
      Math.max(1, next - now),
    );
  }

  /** One at a time. */
  #renewMetadata(): Promise<void> {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #renew(): Promise<void> {
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
    this.#failingSinceMs = undefined;
    this.#options.onError(error);
  }
}

const keyOf = ({ topic, partition }: TopicPartition): string => `${partition}/${topic}`;
