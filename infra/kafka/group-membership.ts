/** This instance as a member of the consumer group: which partitions it owns, and a word before it gives them up. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer, Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { coPartitionedAssigner } from './co-partitioned-assigner.ts';
import { kafkaError } from './kafka-errors.ts';

export interface MembershipHandlers {
  /**
   * Partition numbers that this instance owns from now on. Called at every generation of the group. Another `memberId` than
   * before: the instance had been put out of the group, and others may have owned its partitions meanwhile.
   */
  readonly onAssigned: (partitions: readonly number[], memberId: string) => void;
  /** The group rebalances, or this instance leaves: finish and commit what is under way. The join waits for it. */
  readonly onRebalance: () => Promise<void>;
  /** Membership is lost for a reason that joining again does not mend. */
  readonly onError: (error: PipelineError) => void;
}

/** How often kafkajs looks whether a heartbeat is due, ms. */
const TICK_MS = 200;
const LEAVE_ATTEMPTS = 4;
const LEAVE_AGAIN_MS = 50;
/** A coordinator that is loading, or moving, lets join within this, ms; and a rebalance that waits for a slow member its own time. */
const JOIN_WITHIN_MS = 60_000;

/**
 * Joins with kafkajs' consumer, all of whose partitions are paused for good: it sends heartbeats and joins again, and the
 * fetching is ours. So no poll waits for the processing, and a rebalance is heard of within a heartbeat.
 */
export class GroupMembership {
  readonly #consumer: Consumer;
  readonly #topics: readonly string[];
  readonly #handlers: MembershipHandlers;
  readonly #rebalanceTimeoutMs: number;
  #owned: readonly number[] = [];
  #joined = false;
  #leaving = false;
  readonly #waiting: (() => void)[] = [];

  constructor(kafka: Kafka, config: KafkaConfig, topics: readonly string[], handlers: MembershipHandlers) {
    this.#topics = topics;
    this.#handlers = handlers;
    this.#rebalanceTimeoutMs = config.rebalanceTimeoutMs;
    const { applicationId, sessionTimeoutMs, heartbeatIntervalMs, rebalanceTimeoutMs } = config;
    this.#consumer = kafka.consumer({
      groupId: applicationId,
      sessionTimeout: sessionTimeoutMs,
      heartbeatInterval: heartbeatIntervalMs,
      rebalanceTimeout: rebalanceTimeoutMs,
      maxWaitTimeInMs: TICK_MS,
      allowAutoTopicCreation: false,
      retry: {
        retries: 12,
        initialRetryTime: 200,
        maxRetryTime: 5_000,
        restartOnFailure: async (error) => kafkaError(error, '').retriable,
      },
      partitionAssigners: [
        coPartitionedAssigner({
          owned: () => this.#owned,
          beforeJoin: async () => {
            if (this.#joined) await handlers.onRebalance();
          },
        }),
      ],
    });
  }

  /** @throws PipelineError when the group cannot be joined */
  async join(): Promise<void> {
    const { GROUP_JOIN, HEARTBEAT, CRASH } = this.#consumer.events;
    this.#consumer.on(GROUP_JOIN, ({ payload }) => {
      // Heard while kafkajs joins, before it fetches for the first time.
      this.#consumer.pause(this.#topics.map((topic) => ({ topic })));
      this.#joined = true;
      this.#owned = [...new Set(Object.values(payload.memberAssignment).flat())].sort((a, b) => a - b);
      this.#confirm();
      // Not within kafkajs' join: a fault of ours must not look like one of its own.
      if (!this.#leaving) queueMicrotask(() => this.#handlers.onAssigned(this.#owned, payload.memberId));
    });
    this.#consumer.on(HEARTBEAT, () => this.#confirm());
    const joined = new Promise<void>((resolve, reject) => {
      this.#consumer.on(GROUP_JOIN, () => resolve());
      this.#consumer.on(CRASH, ({ payload }) => {
        // It starts again by itself where that may help.
        if (this.#leaving || payload.restart) return;
        const error = kafkaError(payload.error, 'as a member of the group');
        if (this.#joined) this.#handlers.onError(error);
        reject(error);
      });
    });
    try {
      await this.#consumer.connect();
      await this.#consumer.subscribe({ topics: [...this.#topics] });
      await this.#consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: () => Promise.resolve() });
      await within(joined, JOIN_WITHIN_MS + this.#rebalanceTimeoutMs);
    } catch (thrown) {
      throw kafkaError(thrown, `joining the group to read ${this.#topics.join(', ')}`);
    }
  }

  /** Resolves when the group's coordinator has said again that this instance is a member, or has given it a new assignment. */
  confirmed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /**
   * Tells the group how far this member has come, for a reader that keeps its position elsewhere: lag is watched there.
   *
   * @throws PipelineError when the coordinator does not answer, or has put this member out
   */
  async commit(
    offsets: readonly { readonly topic: string; readonly partition: number; readonly nextOffset: number }[],
  ): Promise<void> {
    try {
      await this.#consumer.commitOffsets(
        offsets.map(({ topic, partition, nextOffset }) => ({ topic, partition, offset: String(nextOffset) })),
      );
    } catch (thrown) {
      throw kafkaError(thrown, 'committing offsets');
    }
  }

  /** Leaves the group, so that others take over at once. What is owned must be committed before. */
  async leave(): Promise<void> {
    this.#leaving = true;
    this.#confirm();
    // Cut off while it leaves, kafkajs stays connected, and in the group until its session is over.
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS; attempt++)
      try {
        return await this.#consumer.disconnect();
      } catch {
        await sleep(LEAVE_AGAIN_MS);
      }
  }

  #confirm(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

async function within(promise: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new PipelineError('KAFKA_UNAVAILABLE', `the group's coordinator let nobody join for ${ms / 1000} s`);
    timer = setTimeout(() => reject(error), ms);
  });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
