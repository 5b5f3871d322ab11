/** Where the logs end, asked apart from reading them, so that a reader that stands still cannot hide how far it is behind. */
import type { Kafka } from 'kafkajs';
import { type ErrorCode, PipelineError } from '../../schemas/errors.ts';
import { kafkaError } from './kafka-errors.ts';
import { type Broker, type Cluster, openCluster, READ_UNCOMMITTED } from './kafkajs-internals.ts';

export interface LogEndsOptions {
  readonly topics: readonly string[];
  /** Between two rounds of asking, ms. @default 2000 */
  readonly everyMs?: number;
  /** After a round that failed, ms: a fault is told when it was met twice. @default 1000 */
  readonly againMs?: number;
  /** A round that takes longer has failed, ms. @default 2000 */
  readonly withinMs?: number;
  /** Called after every round. */
  readonly onRound?: () => void;
  /** Clock that never goes back, ms. @default performance.now */
  readonly nowMs?: () => number;
}

/** Why the end of a topic's logs is not known. */
export interface EndsFault {
  readonly topic: string;
  readonly code: ErrorCode;
  readonly reason: string;
  /** Since when, ms on `nowMs`. */
  readonly sinceMs: number;
}

/** Kafka's name for the end of a log in `ListOffsets`. */
const LATEST = '-1';

interface Known {
  /** By partition that exists: the high watermark. */
  readonly ends: ReadonlyMap<number, number>;
  readonly atMs: number;
}

/**
 * Asks for the high watermark of every partition of the topics, by a connection of its own, with no retries but the next round.
 *
 * The high watermark, not the last stable offset: what an open transaction holds back is written, and nobody has it. A hung one shows as lag.
 */
export class LogEnds {
  readonly #kafka: Kafka;
  readonly #options: Required<Omit<LogEndsOptions, 'onRound'>> & Pick<LogEndsOptions, 'onRound'>;
  readonly #known = new Map<string, Known>();
  readonly #faults = new Map<string, EndsFault & { readonly met: number }>();
  /** Brokers that hold the topics' partitions, by the newest answer, and those of them that the cluster does not have now. */
  #brokers: { readonly named: ReadonlySet<number>; readonly away: number } = { named: new Set(), away: 0 };
  #cluster: Cluster | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #round: Promise<void> = Promise.resolve();

  /** @param kafka a client that tries nothing again (`retries: 0`): a round is bounded */
  constructor(kafka: Kafka, options: LogEndsOptions) {
    this.#kafka = kafka;
    this.#options = { everyMs: 2_000, againMs: 1_000, withinMs: 2_000, nowMs: () => performance.now(), ...options };
    for (const topic of options.topics) this.#known.set(topic, { ends: new Map(), atMs: this.#options.nowMs() });
  }

  /** Begins to ask. Asking does not keep the process alive. */
  start(): void {
    this.#round = this.#ask();
  }

  /** High watermarks by partition that exists, as of the newest answer; empty before the first. */
  endsOf(topic: string): ReadonlyMap<number, number> {
    return this.#known.get(topic)?.ends ?? new Map();
  }

  /** Age of the oldest newest answer, ms: what `endsOf` says of some topic is as old as that. */
  get ageMs(): number {
    const now = this.#options.nowMs();
    return Math.max(...[...this.#known.values()].map(({ atMs }) => now - atMs));
  }

  /** Topics whose ends could not be had twice in a row. */
  get faults(): readonly EndsFault[] {
    return [...this.#faults.values()].filter(({ met }) => met > 1);
  }

  /** Brokers that hold partitions of the topics, and are not in the cluster. */
  get brokersAway(): number {
    return this.#brokers.away;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#letGo();
    await this.#round;
    await this.#letGo();
  }

  async #ask(): Promise<void> {
    const { everyMs, againMs, onRound } = this.#options;
    const failed = await this.#all();
    // What kafkajs has of a connection that broke is not mended in every case: a new one is.
    if (failed) void this.#letGo();
    if (this.#closed) return;
    onRound?.();
    this.#timer = setTimeout(() => this.start(), failed ? againMs : everyMs).unref();
  }

  /** @returns whether some topic could not be asked for */
  async #all(): Promise<boolean> {
    const named = new Set<number>();
    const there = new Set<number>();
    this.#cluster ??= openCluster(this.#kafka);
    const cluster = this.#cluster;
    const seed = this.#within(cluster.connect().then(() => cluster.brokerPool.findConnectedBroker()));
    const failed = await Promise.all(
      this.#options.topics.map(async (topic) => {
        try {
          await this.#within(this.#one(topic, { cluster, seed: await seed, named, there }));
          return false;
        } catch (error) {
          const gone = (error as { readonly type?: string }).type === 'UNKNOWN_TOPIC_OR_PARTITION';
          const problem = new PipelineError('TOPICS_INVALID', `the topic ${topic} is not there`, { cause: error });
          this.#failed(topic, gone ? problem : kafkaError(error, `asking for the end of ${topic}`));
          return true;
        }
      }),
    );
    // Nobody has answered: all are away that were there.
    const away = there.size === 0 && named.size === 0 && failed.every(Boolean) && !this.#refused();
    if (away) this.#brokers = { ...this.#brokers, away: Math.max(1, this.#brokers.named.size) };
    else if (named.size > 0) this.#brokers = { named, away: [...named].filter((broker) => !there.has(broker)).length };
    return failed.includes(true);
  }

  /** Whether the newest faults are answers, of brokers that are there. */
  #refused(): boolean {
    return [...this.#faults.values()].some(({ code }) => code !== 'KAFKA_UNAVAILABLE' && code !== 'KAFKA_FAILED');
  }

  async #one(
    topic: string,
    { cluster, seed, named, there }: { cluster: Cluster; seed: Broker; named: Set<number>; there: Set<number> },
  ): Promise<void> {
    const { brokers, topicMetadata } = await seed.metadata([topic]);
    for (const { nodeId } of brokers) there.add(nodeId);
    const partitions = topicMetadata[0]!.partitionMetadata;
    for (const { replicas } of partitions) for (const replica of replicas) named.add(replica);
    await this.#keep(cluster, topic, partitions);
  }

  async #keep(cluster: Cluster, topic: string, partitions: readonly { readonly partitionId: number; readonly leader: number }[]) {
    await cluster.addMultipleTargetTopics([topic]);
    const ends = new Map<number, number>();
    const leaders = new Map<number, number[]>();
    for (const { partitionId, leader } of partitions) leaders.set(leader, [...(leaders.get(leader) ?? []), partitionId]);
    await Promise.all(
      [...leaders].map(async ([leader, list]) => {
        const broker: Broker = await cluster.findBroker({ nodeId: String(leader) });
        const asked = list.map((partition) => ({ partition, timestamp: LATEST }));
        const { responses } = await broker.listOffsets({
          isolationLevel: READ_UNCOMMITTED,
          topics: [{ topic, partitions: asked }],
        });
        for (const { partition, offset } of responses[0]!.partitions) ends.set(partition, Number(offset));
      }),
    );
    this.#known.set(topic, { ends, atMs: this.#options.nowMs() });
    this.#faults.delete(topic);
  }

  #failed(topic: string, { code, message }: PipelineError): void {
    const before = this.#faults.get(topic);
    const sinceMs = before?.sinceMs ?? this.#options.nowMs();
    this.#faults.set(topic, { topic, code, reason: message, sinceMs, met: (before?.met ?? 0) + 1 });
  }

  async #letGo(): Promise<void> {
    const cluster = this.#cluster;
    this.#cluster = undefined;
    await cluster?.disconnect().catch(() => undefined);
  }

  async #within<T>(round: Promise<T>): Promise<T> {
    const { withinMs } = this.#options;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${withinMs} ms`)), withinMs);
    });
    round.catch(() => undefined);
    return Promise.race([round, late]).finally(() => clearTimeout(timer));
  }
}
