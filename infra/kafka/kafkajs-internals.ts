/**
 * The parts of kafkajs 2.2.4 that it does not export: fetching without a consumer group, and a word before a rejoin.
 *
 * Why, and why it is safe: docs/decisions/002-fetching-is-ours.md. The version is pinned; a test runs every call here.
 */
import { createRequire } from 'node:module';
import type { Kafka } from 'kafkajs';

export interface Broker {
  /** @throws for the whole answer where one topic, or one of their partitions, has an error: ask for one at a time */
  metadata(topics: readonly string[]): Promise<{
    readonly brokers: readonly { readonly nodeId: number }[];
    readonly topicMetadata: readonly {
      readonly topic: string;
      readonly partitionMetadata: readonly {
        readonly partitionId: number;
        readonly leader: number;
        readonly replicas: readonly number[];
      }[];
    }[];
  }>;
  listOffsets(request: {
    readonly isolationLevel: number;
    readonly topics: readonly {
      readonly topic: string;
      readonly partitions: readonly { readonly partition: number; readonly timestamp: string }[];
    }[];
  }): Promise<{
    readonly responses: readonly {
      readonly topic: string;
      readonly partitions: readonly { readonly partition: number; readonly offset: string }[];
    }[];
  }>;
}

export interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  readonly brokerPool: { findConnectedBroker(): Promise<Broker> };
  addMultipleTargetTopics(topics: readonly string[]): Promise<void>;
  refreshMetadata(): Promise<void>;
  refreshMetadataIfNecessary(): Promise<void>;
  findLeaderForPartitions(topic: string, partitions: readonly number[]): Readonly<Record<string, readonly number[]>>;
  findTopicPartitionMetadata(topic: string): readonly { readonly partitionId: number; readonly leader: number }[];
  findBroker(query: { readonly nodeId: string }): Promise<Broker>;
  removeBroker(broker: { readonly host: string; readonly port: number }): void;
  fetchTopicsOffset(
    topics: readonly {
      readonly topic: string;
      readonly partitions: readonly { readonly partition: number }[];
      readonly fromBeginning?: boolean;
      readonly fromTimestamp?: number;
    }[],
  ): Promise<
    readonly {
      readonly topic: string;
      readonly partitions: readonly { readonly partition: number; readonly offset: string }[];
    }[]
  >;
}

export const READ_UNCOMMITTED = 0;
export const READ_COMMITTED = 1;

/** A connection of its own to the cluster of `kafka`, which reads what is committed. */
export function openCluster(kafka: Kafka): Cluster {
  const symbol = Object.getOwnPropertySymbols(kafka).find(({ description }) => description === 'private:Kafka:createCluster');
  if (symbol === undefined) throw new Error('this is not kafkajs 2.2.4: it has no private:Kafka:createCluster');
  const create = (kafka as unknown as Record<symbol, (options: object) => Cluster>)[symbol]!;
  return create({ metadataMaxAge: 60_000, allowAutoTopicCreation: false, isolationLevel: READ_COMMITTED });
}

/** An assigner that is asked before its member joins the group, for the first time or again. */
export interface JoinAware {
  beforeJoin?(): Promise<void>;
}

interface ConsumerGroup {
  readonly assigners: readonly JoinAware[];
  readonly groupId: string;
  readonly memberId: string | null;
  readonly generationId: number | null;
  readonly sessionTimeout: number;
  readonly coordinator: {
    heartbeat(member: {
      readonly groupId: string;
      readonly groupGenerationId: number | null;
      readonly memberId: string;
    }): Promise<void>;
  } | null;
}

let patched = false;

/** Lets `JoinAware` assigners finish their work before kafkajs gives their partitions up. Once a process. */
export function patchJoin(): void {
  if (patched) return;
  patched = true;
  const prototype = (createRequire(import.meta.url)('kafkajs/src/consumer/consumerGroup.js') as { prototype: object })
    .prototype as { joinAndSync: (this: ConsumerGroup) => Promise<void> };
  const { joinAndSync } = prototype;
  prototype.joinAndSync = async function () {
    // A member that finishes its work is a member still: silent for longer than its session, it would be put out.
    const beating = setInterval(() => void beat(this), this.sessionTimeout / 4);
    try {
      for (const assigner of this.assigners) await assigner.beforeJoin?.();
    } finally {
      clearInterval(beating);
    }
    return joinAndSync.call(this);
  };
}

/** The answer says that the group rebalances, or that we are out of it: both are met by the join that follows. */
async function beat({ coordinator, groupId, generationId, memberId }: ConsumerGroup): Promise<void> {
  if (memberId === null) return;
  await coordinator?.heartbeat({ groupId, groupGenerationId: generationId, memberId }).catch(() => undefined);
}
