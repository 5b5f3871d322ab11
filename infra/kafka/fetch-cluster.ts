/** The brokers as a reader of partitions sees them: who leads what, where logs begin and end; found again after what broke. */
import type { Kafka } from 'kafkajs';
import { PipelineError } from '../../schemas/errors.ts';
import { kafkaError } from './kafka-errors.ts';
import { type Broker, type Cluster, openCluster } from './kafkajs-internals.ts';

interface At {
  readonly topic: string;
  readonly partition: number;
}

const ATTEMPTS = 20;
const FIRST_AGAIN_MS = 20;
const LAST_AGAIN_MS = 250;

export class FetchCluster {
  readonly #kafka: Kafka;
  /** That are asked about. */
  readonly #topics = new Set<string>();
  #cluster: Cluster;
  #renewing: Promise<void> | undefined;

  constructor(kafka: Kafka) {
    this.#kafka = kafka;
    this.#cluster = openCluster(kafka);
  }

  /** @throws PipelineError when no broker answers or lets us in */
  async connect(topics: readonly string[]): Promise<void> {
    for (const topic of topics) this.#topics.add(topic);
    try {
      await this.#cluster.connect();
      await this.#cluster.addMultipleTargetTopics([...topics]);
    } catch (thrown) {
      throw kafkaError(thrown, `connecting to read ${topics.join(', ')}`);
    }
  }

  /** Node id; undefined for a partition that none leads, or that is not known. */
  leaderOf({ topic, partition }: At): string | undefined {
    try {
      return Object.keys(this.#cluster.findLeaderForPartitions(topic, [partition]))[0];
    } catch {
      // kafkajs throws for a topic that it does not know.
      return undefined;
    }
  }

  /** @throws kafkajs' errors */
  async broker(nodeId: string): Promise<Broker> {
    await this.#cluster.refreshMetadataIfNecessary();
    return this.#cluster.findBroker({ nodeId });
  }

  /** First and next offset of a partition, of what is committed. @throws PipelineError after some attempts */
  async offsets({ topic, partition }: At): Promise<{ readonly first: number; readonly end: number }> {
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
        if (!error.retriable || attempt === ATTEMPTS) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.min(LAST_AGAIN_MS, FIRST_AGAIN_MS * 2 ** attempt)));
        await this.renew();
      }
    }
  }

  /** Learns anew who leads what; one call at a time. Never throws: who is not found is asked for again. */
  renew(): Promise<void> {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  /** Resolves when no renewal is under way. */
  async renewed(): Promise<void> {
    await this.#renewing;
  }

  async disconnect(): Promise<void> {
    await this.#cluster.disconnect().catch(() => undefined);
  }

  async #renew(): Promise<void> {
    try {
      await this.#cluster.refreshMetadata();
    } catch {
      // A connection that broke is not mended by kafkajs in every case: a new cluster is.
      const broken = this.#cluster;
      this.#cluster = openCluster(this.#kafka);
      void broken.disconnect().catch(() => undefined);
      try {
        await this.#cluster.connect();
        await this.#cluster.addMultipleTargetTopics([...this.#topics]);
      } catch {
        // Tried again with the next failure of whoever reads.
      }
    }
  }
}
