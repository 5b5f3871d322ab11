/** An instance of the sink: what it does with its partitions, the committed topics into ClickHouse. */
import type { FeedOffset } from '../../infra/clickhouse/feed/feed-offsets.ts';
import type { FeedCommit, FeedWriter, TakenRecords } from '../../infra/clickhouse/feed/feed-writer.ts';
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { PartitionFetcher, TopicPartition } from '../../infra/kafka/partition-fetcher.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type GroupObserver, GroupSupervisor, type Shift } from '../group-supervisor.ts';

export interface SinkObserver extends GroupObserver {
  readonly onCommitted?: (taken: readonly TakenRecords[], commit: FeedCommit) => void;
  /** Something that an operator should read, and that did not stop the sink. */
  readonly onNotice?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
}

export interface SinkStreamParts {
  readonly kafka: KafkaClient;
  /** Of the sink's own group. */
  readonly config: KafkaConfig;
  readonly topics: readonly string[];
  /** Of `topics`, as found when the instance was opened. @default they are not known */
  readonly topicIds?: Readonly<Record<string, string>>;
  /** Awaited before partitions are taken over. @throws PipelineError why they cannot be. @default nothing is waited for */
  readonly beforeTakeOver?: () => Promise<void>;
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

export class SinkStream {
  readonly #parts: SinkStreamParts;
  readonly #supervisor: GroupSupervisor;
  #wake: () => void = () => undefined;

  constructor(parts: SinkStreamParts) {
    this.#parts = parts;
    const { kafka, config, topics, observer } = parts;
    this.#supervisor = new GroupSupervisor({
      kafka,
      config,
      topics,
      observer,
      work: {
        carryOut: (partitions, shift) => this.#carryOut(partitions, shift),
        // Nothing is kept from one assignment to the next. ClickHouse's faults come here when waiting does not mend them.
        letGo: async (fault) => {
          if (fault?.code === 'STORE_FAILED') throw fault;
        },
        close: async () => undefined,
      },
    });
  }

  /** Records have come. */
  notify(): void {
    this.#wake();
  }

  /** Ends what is under way with a fault of the fetcher, which all partitions share: see `GroupSupervisor.fail`. */
  fail(error: PipelineError): void {
    this.#supervisor.fail(error);
  }

  /** Partitions that are its own; undefined while the group rebalances. */
  get assignment(): readonly number[] | undefined {
    return this.#supervisor.assignment;
  }

  /** Topic partitions that this instance stores. */
  owned(): readonly TopicPartition[] {
    return this.#supervisor.owned.flatMap((partition) => this.#parts.topics.map((topic) => ({ topic, partition })));
  }

  /** Runs until stopped. @throws PipelineError that trying again does not mend; what was stored stays, and its offsets */
  run(signal: AbortSignal): Promise<void> {
    return this.#supervisor.run(signal);
  }

  /** Stores what is assigned until the group rebalances, the sink stops, or something fails. */
  async #carryOut(partitions: readonly number[], shift: Shift): Promise<void> {
    const failed = new AbortController();
    const failure = new Promise<never>((_, reject) => {
      shift.failure$.subscribe({ error: reject });
    });
    failure.catch(() => failed.abort());
    const { fetcher, topics } = this.#parts;
    try {
      // A commit that hangs is left: it is done again by whoever reads its records next.
      await Promise.race([failure, this.#store(partitions, { ...shift, drain: AbortSignal.any([shift.drain, failed.signal]) })]);
    } finally {
      // What is buffered is read again: the next owner, or this one, begins where ClickHouse says it stands.
      for (const partition of partitions) for (const topic of topics) fetcher.unassign({ topic, partition });
    }
  }

  async #store(partitions: readonly number[], { drain, become, progressed }: Shift): Promise<void> {
    const { writer, prepare, observer } = this.#parts;
    drain.addEventListener('abort', () => this.#wake(), { once: true });
    await this.#parts.beforeTakeOver?.();
    await this.#begin(partitions, await writer.start(drain));
    become('RUNNING');
    while (!drain.aborted) {
      const taken = await this.#take(partitions, drain);
      if (taken.length === 0) continue;
      await prepare?.(taken.flatMap(({ records }) => records));
      const commit = await writer.commit(taken, drain);
      progressed();
      observer.onCommitted?.(taken, commit);
      // Not what a restart goes by: it may fail without harm.
      this.#supervisor.commit(taken).catch((error: unknown) => {
        if (!drain.aborted) observer.onNotice?.('the group was not told how far the sink is', { err: error });
      });
    }
  }

  async #begin(partitions: readonly number[], stored: ReadonlyMap<string, FeedOffset>): Promise<void> {
    const { fetcher, topics, topicIds = {}, observer } = this.#parts;
    for (const partition of partitions)
      for (const topic of topics) {
        const { nextOffset: known, topicId } = stored.get(`${partition}/${topic}`) ?? {};
        const { first, end } = await fetcher.offsets({ topic, partition });
        if (known !== undefined && known < first)
          observer.onNotice?.('records were deleted by retention before they were stored', {
            topic,
            partition,
            from: known,
            to: first,
          });
        const id = topicIds[topic];
        const isAnother = known !== undefined && known > 0 && topicId !== undefined && id !== undefined && topicId !== id;
        if (known !== undefined && (known > end || isAnother)) {
          const sign = isAnother ? `has topic id ${id}` : `ends at offset ${end}`;
          const was = isAnother ? ` of topic id ${topicId}` : '';
          throw new PipelineError(
            'TOPICS_INVALID',
            `${topic}/${partition} ${sign}, and ClickHouse has it up to ${known}${was}: the topic was deleted and made again; use another kafka.applicationId or clickhouse.database, or drop the run`,
          );
        }
        fetcher.assign({ topic, partition }, Math.max(known ?? first, first));
      }
  }

  /** Waits for records, and then for more of them, a little. */
  async #take(partitions: readonly number[], drain: AbortSignal): Promise<TakenRecords[]> {
    const { fetcher, topics, topicIds = {}, maxRecords, maxDelayMs, maxCommitBytes } = this.#parts;
    const all = partitions.flatMap((partition) => topics.map((topic) => ({ topic, partition })));
    const waiting = () =>
      all.flatMap((at) => [fetcher.progress(at)].flatMap((p) => (p !== undefined && p.buffered > 0 ? [{ at, ...p }] : [])));
    let held = waiting();
    if (held.length === 0) {
      await this.#woken(drain);
      held = waiting();
      if (held.length === 0) return [];
    }
    const until = performance.now() + maxDelayMs;
    for (;;) {
      const records = held.reduce((sum, { buffered }) => sum + buffered, 0);
      const bytes = held.reduce((sum, entry) => sum + entry.bytes, 0);
      const leftMs = until - performance.now();
      if (leftMs <= 0 || records >= maxRecords || bytes >= maxCommitBytes || drain.aborted) break;
      await this.#woken(drain, leftMs);
      held = waiting();
    }
    // Each its share, by records and by bytes.
    return held.map(({ at, buffered, bytes }) => {
      const byBytes = Math.floor((buffered * maxCommitBytes) / held.length / Math.max(1, bytes));
      const most = Math.max(1, Math.min(Math.ceil(maxRecords / held.length), byBytes));
      const topicId = topicIds[at.topic];
      return { ...at, ...fetcher.take(at, most), ...(topicId !== undefined && { topicId }) };
    });
  }

  /** Resolves when there is news, when drained, or after `delayMs`. */
  async #woken(drain: AbortSignal, delayMs?: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (delayMs !== undefined) timer = setTimeout(resolve, delayMs);
      if (drain.aborted) resolve();
    });
    clearTimeout(timer);
  }
}
