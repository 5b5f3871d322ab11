/** Reads partitions from stated offsets, committed records only, each into a bounded buffer of its own. */
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { keepCommitted, unreadable } from './committed-records.ts';
import { FetchCluster } from './fetch-cluster.ts';
import { kafkaError } from './kafka-errors.ts';
import { READ_COMMITTED } from './kafkajs-internals.ts';
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
  /**
   * Awaited before a partition is asked for again that its leader has answered with an error: whether the topic is still the one whose
   * offsets are gone on with. A topic that was deleted and made again answers so in between. @default not asked
   * @throws PipelineError retriable: asked again; any other ends the reading
   */
  readonly confirm?: (topic: string) => Promise<void>;
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
/** After a connection that was cut, the first time, ms. */
const AT_ONCE_MS = 25;
const LAST_DELAY_MS = 5_000;
/** What takes longer to unpack is left behind: others are asked for without it, ms. */
const UNPACKED_WITHIN_MS = 10;
/** How long a leader waits for news of the others meanwhile, ms. */
const WAIT_BESIDE_MS = 20;
/** A partition stands when it failed so often in a row: a leader that moves, a bit that flips on the way, mend by themselves. */
const STANDS_AFTER = 3;

type Optional = 'confirm' | 'onSkipped' | 'onTrouble' | 'onStanding' | 'onMoving' | 'maxBatchBytes';

export class PartitionFetcher {
  readonly #options: Required<Omit<PartitionFetcherOptions, Optional>> & Pick<PartitionFetcherOptions, Optional>;
  readonly #partitions = new Map<string, PartitionBuffer>();
  readonly #cluster: FetchCluster;
  /** Leaders with a fetch under way. */
  readonly #busy = new Map<string, Promise<void>>();
  #stopped = false;
  /** Since when no broker has answered although it was asked, on `performance.now()`. */
  #failingSinceMs: number | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(kafka: Kafka, options: PartitionFetcherOptions) {
    this.#options = { maxBytesPerFetch: 2 ** 18, maxWaitMs: 250, ...options };
    this.#cluster = new FetchCluster(kafka);
  }

  /** @param topics all that is read, or asked about, later. @throws PipelineError when no broker answers or lets us in */
  connect(topics: readonly string[]): Promise<void> {
    return this.#cluster.connect(topics);
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

  /** First and next offset of a partition, of what is committed. @throws PipelineError */
  offsets(at: TopicPartition): Promise<{ readonly first: number; readonly end: number }> {
    return this.#cluster.offsets(at);
  }

  async close(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#partitions.clear();
    await this.#cluster.disconnect();
    // A fetch that was about to begin has connected anew, and would keep the process alive.
    await Promise.all(this.#busy.values());
    await this.#cluster.renewed();
    await this.#cluster.disconnect();
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
      if (held.isBusy || held.bytes >= this.#options.maxBufferedBytes || held.retryAtMs > now) continue;
      if (held.isDoubtful) {
        void this.#confirm(held);
        continue;
      }
      const leader = this.#cluster.leaderOf(held);
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
      const answer = await fetchRaw(await this.#cluster.broker(leader), {
        isolationLevel: READ_COMMITTED,
        // One that is being unpacked is to be asked for soon after.
        maxWaitTime: this.#isUnpacking() ? Math.min(maxWaitMs, WAIT_BESIDE_MS) : maxWaitMs,
        minBytes: 1,
        maxBytes: maxBytesPerFetch * Math.max(4, wanted.length),
        topics,
      });
      this.#failingSinceMs = undefined;
      const unpacked = answer.map((fetched) => {
        const held = asked.get(keyOf(fetched));
        return held && this.#unpack(held, fetched, wanted.length === 1);
      });
      // All are asked for again together: without one, the leader would wait for the others' news.
      await soon(Promise.all(unpacked), UNPACKED_WITHIN_MS);
    } catch (thrown) {
      this.#failed(wanted, thrown, true);
    }
  }

  #isUnpacking(): boolean {
    for (const { isBusy } of this.#partitions.values()) if (isBusy) return true;
    return false;
  }

  /** Beside the others: what is long in unpacking holds nobody up, and is not asked for meanwhile. */
  async #unpack(held: PartitionBuffer, fetched: FetchedPartition, alone: boolean): Promise<void> {
    held.isBusy = true;
    try {
      await this.#keep(held, fetched, alone);
    } catch (thrown) {
      this.#failed([held], thrown);
    }
    held.isBusy = false;
    this.#pump();
  }

  async #keep(held: PartitionBuffer, fetched: FetchedPartition, alone: boolean): Promise<void> {
    // Assigned anew while the answer was under way: it is another's now.
    const isOurs = () => this.#partitions.get(keyOf(held)) === held;
    if (!isOurs()) return;
    if (fetched.errorCode !== 0) {
      const error = protocolError(fetched.errorCode);
      held.isDoubtful = this.#options.confirm !== undefined;
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

  async #confirm(held: PartitionBuffer): Promise<void> {
    held.isBusy = true;
    try {
      await this.#options.confirm?.(held.topic);
      held.isDoubtful = false;
    } catch (thrown) {
      if (this.#partitions.get(keyOf(held)) === held) this.#failed([held], thrown);
    }
    held.isBusy = false;
    this.#pump();
  }

  /** The log begins after our position (retention), or ends before it (another topic of the same name). */
  async #skip(held: PartitionBuffer): Promise<void> {
    const { topic, partition } = held;
    try {
      await this.#options.confirm?.(topic);
      held.isDoubtful = false;
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
  #failed(failed: readonly PartitionBuffer[], thrown: unknown, unanswered = false): void {
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
      const isFirst = held.faults++ === 0;
      const delayMs = isFirst && unanswered ? AT_ONCE_MS : Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** (held.faults - 1));
      held.retryAtMs = now + delayMs;
      const sinceMs = held.standing?.sinceMs ?? Date.now();
      held.standing = { topic, partition, offset, code: error.code, reason: error.message, sinceMs };
      if (held.faults === STANDS_AFTER) this.#options.onStanding?.(held.standing);
    }
    if (isSilence) void this.#cluster.renew();
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
        await this.#cluster.renewed();
        this.#pump();
        this.#wakeAtRetry();
      },
      Math.max(1, next - now),
    );
  }

  #stop(error: PipelineError): void {
    if (this.#stopped) return;
    this.#partitions.clear();
    this.#failingSinceMs = undefined;
    this.#options.onError(error);
  }
}

/** Resolves with the promise, or before it, after `ms`. */
async function soon(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

const keyOf = ({ topic, partition }: TopicPartition): string => `${partition}/${topic}`;
