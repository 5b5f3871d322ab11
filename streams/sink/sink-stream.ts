/** An instance of the sink, from joining its group to leaving it: the committed topics into ClickHouse, through faults of either. */
import type { FeedCommit, FeedWriter, TakenRecords } from '../../infra/clickhouse/feed/feed-writer.ts';
import { GroupMembership } from '../../infra/kafka/group-membership.ts';
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { PartitionFetcher, TopicPartition } from '../../infra/kafka/partition-fetcher.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { Lifecycle, type LifecycleState } from '../lifecycle.ts';

export interface SinkObserver {
  readonly onState?: (state: LifecycleState) => void;
  readonly onAssigned?: (partitions: readonly number[]) => void;
  readonly onCommitted?: (taken: readonly TakenRecords[], commit: FeedCommit) => void;
  /** A fault of Kafka after which the sink goes on where ClickHouse says it stands. */
  readonly onRecovering?: (error: PipelineError, delayMs: number) => void;
  /** Something that an operator should read, and that did not stop the sink. */
  readonly onNotice?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
}

export interface SinkStreamParts {
  readonly kafka: KafkaClient;
  /** Of the sink's own group. */
  readonly config: KafkaConfig;
  readonly topics: readonly string[];
  readonly fetcher: PartitionFetcher;
  readonly writer: FeedWriter;
  /** Awaited with records before they are read: the schemas they need. */
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  readonly maxRecords: number;
  readonly maxDelayMs: number;
  /** Of one commit, bytes as fetched. */
  readonly maxCommitBytes: number;
  readonly observer: SinkObserver;
}

const FIRST_DELAY_MS = 200;
const LAST_DELAY_MS = 15_000;

export class SinkStream {
  readonly #parts: SinkStreamParts;
  readonly #lifecycle: Lifecycle;
  #membership: GroupMembership | undefined;
  /** What this instance owns; undefined while the group rebalances. */
  #assignment: readonly number[] | undefined;
  #lost: PipelineError | undefined;
  #work: { readonly drain: AbortController; readonly ended: Promise<void>; fail: (error: PipelineError) => void } | undefined;
  #stopping = false;
  #wake: () => void = () => undefined;

  constructor(parts: SinkStreamParts) {
    this.#parts = parts;
    this.#lifecycle = new Lifecycle((state) => parts.observer.onState?.(state));
  }

  /** Records have come. */
  notify(): void {
    this.#wake();
  }

  /** Ends what is under way with a fault of the fetcher, which all partitions share. */
  fail(error: PipelineError): void {
    this.#work?.fail(error);
  }

  /** Topic partitions that this instance stores. */
  owned(): readonly TopicPartition[] {
    return (this.#assignment ?? []).flatMap((partition) => this.#parts.topics.map((topic) => ({ topic, partition })));
  }

  /** Runs until stopped. @throws PipelineError that trying again does not mend; what was stored stays, and its offsets */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => {
      this.#stopping = true;
      void this.#finishWork();
      this.#wake();
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    try {
      await this.#join();
      await this.#loop();
      this.#lifecycle.to('DRAINING');
      await this.#membership?.leave();
      this.#lifecycle.to('STOPPED');
    } catch (error) {
      this.#lifecycle.to('FAILED');
      await this.#membership?.leave();
      throw error;
    }
  }

  async #loop(): Promise<void> {
    let faults = 0;
    while (!this.#stopping) {
      if (this.#lost !== undefined) await this.#rejoin();
      if (this.#assignment === undefined) {
        await this.#woken();
        continue;
      }
      try {
        await this.#carryOut(this.#assignment, () => {
          faults = 0;
        });
      } catch (thrown) {
        if (thrown instanceof DOMException && thrown.name === 'AbortError') continue;
        // ClickHouse's faults come here when waiting does not mend them.
        if (!(thrown instanceof PipelineError) || !thrown.retriable || thrown.code === 'STORE_FAILED') throw thrown;
        const delayMs = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** faults++);
        this.#parts.observer.onRecovering?.(thrown, delayMs);
        await this.#woken(delayMs);
      }
    }
  }

  /** Stores what is assigned until the group rebalances, the sink stops, or something fails. */
  async #carryOut(partitions: readonly number[], onProgress: () => void): Promise<void> {
    const drain = new AbortController();
    let ended!: () => void;
    let fail!: (error: PipelineError) => void;
    const failure = new Promise<never>((_, reject) => {
      fail = reject;
    });
    failure.catch(() => drain.abort());
    this.#work = { drain, fail, ended: new Promise((resolve) => (ended = resolve)) };
    if (this.#stopping) drain.abort();
    const { fetcher, topics } = this.#parts;
    try {
      await Promise.race([failure, this.#store(partitions, drain.signal, onProgress)]);
    } finally {
      // What is buffered is read again: the next owner, or this one, begins where ClickHouse says it stands.
      for (const partition of partitions) for (const topic of topics) fetcher.unassign({ topic, partition });
      this.#work = undefined;
      ended();
    }
  }

  async #store(partitions: readonly number[], drain: AbortSignal, onProgress: () => void): Promise<void> {
    const { writer, prepare, observer } = this.#parts;
    await this.#begin(partitions, await writer.start(drain));
    this.#lifecycle.to('RUNNING');
    while (!drain.aborted) {
      const taken = await this.#take(partitions, drain);
      if (taken.length === 0) continue;
      await prepare?.(taken.flatMap(({ records }) => records));
      const commit = await writer.commit(taken, drain);
      onProgress();
      observer.onCommitted?.(taken, commit);
      // Not what a restart goes by: it may fail without harm.
      this.#membership?.commit(taken).catch((error: unknown) => {
        if (!drain.aborted) observer.onNotice?.('the group was not told how far the sink is', { err: error });
      });
    }
  }

  async #begin(partitions: readonly number[], stored: ReadonlyMap<string, number>): Promise<void> {
    const { fetcher, topics, observer } = this.#parts;
    for (const partition of partitions)
      for (const topic of topics) {
        const known = stored.get(`${partition}/${topic}`);
        const { first, end } = await fetcher.offsets({ topic, partition });
        if (known !== undefined && known < first)
          observer.onNotice?.('records were deleted by retention before they were stored', {
            topic,
            partition,
            from: known,
            to: first,
          });
        if (known !== undefined && known > end)
          throw new PipelineError(
            'TOPICS_INVALID',
            `${topic}/${partition} ends at offset ${end}, and ClickHouse has it up to ${known}: the topic was deleted and made again; use another kafka.applicationId or clickhouse.database, or drop the run`,
          );
        fetcher.assign({ topic, partition }, Math.max(known ?? first, first));
      }
  }

  /** Waits for records, and then for more of them, a little. */
  async #take(partitions: readonly number[], drain: AbortSignal): Promise<TakenRecords[]> {
    const { fetcher, topics, maxRecords, maxDelayMs, maxCommitBytes } = this.#parts;
    const all = partitions.flatMap((partition) => topics.map((topic) => ({ topic, partition })));
    const waiting = () =>
      all.flatMap((at) => [fetcher.progress(at)].flatMap((p) => (p !== undefined && p.buffered > 0 ? [{ at, ...p }] : [])));
    let held = waiting();
    if (held.length === 0) {
      await this.#woken();
      held = waiting();
      if (held.length === 0) return [];
    }
    const until = performance.now() + maxDelayMs;
    for (;;) {
      const records = held.reduce((sum, { buffered }) => sum + buffered, 0);
      const bytes = held.reduce((sum, entry) => sum + entry.bytes, 0);
      const leftMs = until - performance.now();
      if (leftMs <= 0 || records >= maxRecords || bytes >= maxCommitBytes || drain.aborted) break;
      await this.#woken(leftMs);
      held = waiting();
    }
    // Each its share, by records and by bytes.
    return held.map(({ at, buffered, bytes }) => {
      const byBytes = Math.floor((buffered * maxCommitBytes) / held.length / Math.max(1, bytes));
      const most = Math.max(1, Math.min(Math.ceil(maxRecords / held.length), byBytes));
      return { ...at, ...fetcher.take(at, most) };
    });
  }

  async #join(): Promise<void> {
    const { kafka, config, topics, observer } = this.#parts;
    this.#membership = new GroupMembership(kafka, config, topics, {
      onRebalance: async () => {
        this.#assignment = undefined;
        await this.#finishWork();
      },
      onAssigned: (partitions) => {
        observer.onAssigned?.(partitions);
        void (this.#work?.ended ?? Promise.resolve()).then(() => {
          this.#assignment = partitions;
          this.#wake();
        });
      },
      onError: (error) => {
        this.#lost = error;
        this.#assignment = undefined;
        void this.#finishWork();
        this.#wake();
      },
    });
    await this.#membership.join();
  }

  async #rejoin(): Promise<void> {
    const error = this.#lost!;
    if (!error.retriable) throw error;
    this.#lost = undefined;
    await this.#membership?.leave();
    this.#parts.observer.onRecovering?.(error, FIRST_DELAY_MS);
    await this.#join();
  }

  /** Lets the commit under way end; if that takes too long, leaves it: it is done again by whoever reads its records next. */
  async #finishWork(): Promise<void> {
    const work = this.#work;
    if (work === undefined) return;
    work.drain.abort();
    this.#wake();
    const late = setTimeout(
      () => work.fail(new PipelineError('KAFKA_FAILED', 'ClickHouse did not answer in time; what was not stored is read again')),
      this.#parts.config.drainTimeoutMs,
    );
    await work.ended;
    clearTimeout(late);
  }

  /** Resolves when there is news, or after `delayMs`. */
  async #woken(delayMs?: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (delayMs !== undefined) timer = setTimeout(resolve, delayMs);
      if (this.#stopping) resolve();
    });
    clearTimeout(timer);
  }
}
