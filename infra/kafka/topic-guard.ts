/** Watches the topics of a deployment while it runs: what a start would refuse ends it, at an assignment or within seconds. */
import type { Kafka } from 'kafkajs';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { checkTopics, judgeTopics, topicsInvalid } from './check-topics.ts';
import { TopicMetadataReader } from './topic-metadata.ts';
import { readTopics, readTopicsWith, type TopicState } from './topics.ts';

export interface TopicGuardOptions {
  /** What ends the deployment: told once, and nothing is looked at any more. */
  readonly onFailed: (error: PipelineError) => void;
  readonly onNotice?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
  /** Between two looks, ms. @default 5,000 */
  readonly intervalMs?: number;
  /** Before what was seen is believed, ms: a broker may be behind the others. @default 2,000 */
  readonly confirmAfterMs?: number;
}

type Role = TopicState['role'];

/** What stands behind these is of the topic as it was: made anew, they cannot be gone on with. */
const HELD: Partial<Record<Role, string>> = {
  source: 'it is read again from its beginning where nothing of it is kept. Start again',
  userActions: 'records of the new one would be passed over. To begin anew: hstu-streams reset',
  erasures: 'records of the new one would be passed over. To begin anew: hstu-streams reset',
  candidateRequests: 'records of the new one would be passed over. To begin anew: hstu-streams reset',
  changelog: 'the state is gone from it. To make it again: hstu-streams reset --to earliest',
  entities: 'the catalogue is still of the one before. Start again: it is read whole at a start',
};

const madeAgain = ({ role, name, id }: TopicState, idNow: string): PipelineError =>
  new PipelineError(
    'TOPICS_INVALID',
    `${name}: the topic was deleted and made again (topic id ${id} at the start, ${idNow} now): ${HELD[role] ?? 'what it held is gone, and its offsets are of another'}`,
  );

export class TopicGuard {
  readonly #kafka: Kafka;
  readonly #config: KafkaConfig;
  readonly #options: Required<Omit<TopicGuardOptions, 'onNotice'>> & Pick<TopicGuardOptions, 'onNotice'>;
  readonly #reader: TopicMetadataReader;
  #seen = new Map<Role, TopicState>();
  /** Names of topics that are gone, which was told. */
  #gone: readonly string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(kafka: Kafka, config: KafkaConfig, options: TopicGuardOptions) {
    this.#kafka = kafka;
    this.#config = config;
    this.#options = { intervalMs: 5_000, confirmAfterMs: 2_000, ...options };
    this.#reader = new TopicMetadataReader(kafka);
  }

  /**
   * The first look, which is what later ones are compared with.
   *
   * @returns the partition count
   * @throws PipelineError `TOPICS_INVALID`; Kafka's
   */
  async open(): Promise<number> {
    const states = await readTopics(this.#kafka, this.#config);
    const partitions = checkTopics(states, this.#config, (problem) =>
      this.#options.onNotice?.('a topic is not as it should be', { problem }),
    );
    this.#seen = new Map(states.map((state) => [state.role, state]));
    return partitions;
  }

  /** Looks again and again, until closed. */
  watch(): void {
    this.#timer = setTimeout(async () => {
      try {
        const error = await this.#confirmed();
        if (error !== undefined && !this.#closed) return this.#options.onFailed(error);
      } catch {
        // Brokers that do not answer are told by whoever reads and writes.
      }
      if (!this.#closed) this.watch();
    }, this.#options.intervalMs);
    this.#timer.unref();
  }

  /** Of these topics; without those of which the brokers tell no id. */
  idsOf(topics: readonly string[]): Readonly<Record<string, string>> {
    const states = [...this.#seen.values()];
    return Object.fromEntries(
      topics.flatMap((topic) => {
        const id = states.find(({ name }) => name === topic)?.id;
        return id === undefined ? [] : [[topic, id]];
      }),
    );
  }

  /** Largest batch that each topic takes, bytes; as of the start. */
  get maxBytes(): ReadonlyMap<string, number> {
    return new Map(
      [...this.#seen.values()].flatMap(({ name, maxMessageBytes: max = Number.NaN }) => (max > 0 ? [[name, max]] : [])),
    );
  }

  /**
   * A look before partitions are taken over.
   *
   * @throws PipelineError `TOPICS_INVALID`; `KAFKA_FAILED` while a topic is gone, which is waited for; Kafka's
   */
  async check(): Promise<void> {
    const error = await this.#confirmed();
    if (error !== undefined) throw error;
    if (this.#gone.length > 0)
      throw new PipelineError('KAFKA_FAILED', `${this.#gone.join(', ')}: there is no such topic any more; waiting for it`);
  }

  /**
   * Whether a topic is the one of the start.
   *
   * @throws PipelineError `TOPICS_INVALID` where it was deleted and made again, or added to; `KAFKA_FAILED` while it is gone; Kafka's
   */
  async confirm(topic: string): Promise<void> {
    const before = [...this.#seen.values()].find(({ name }) => name === topic);
    const now = (await this.#reader.topics([topic])).get(topic);
    if (now === undefined) throw new PipelineError('KAFKA_FAILED', `${topic}: there is no such topic any more; waiting for it`);
    if (before?.id !== undefined && now.id !== undefined && before.id !== now.id) throw madeAgain(before, now.id);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#reader.close();
  }

  /** What two looks have seen. */
  async #confirmed(): Promise<PipelineError | undefined> {
    const first = this.#problemOf(await readTopicsWith(this.#reader, this.#config));
    if (first === undefined) return undefined;
    await new Promise((resolve) => setTimeout(resolve, this.#options.confirmAfterMs));
    return this.#problemOf(await readTopicsWith(this.#reader, this.#config));
  }

  #problemOf(states: readonly TopicState[]): PipelineError | undefined {
    this.#tellGone(states);
    const there = states.filter(({ partitions }) => partitions !== undefined);
    const problems = judgeTopics(there, this.#config).filter(({ stops }) => stops);
    if (problems.length > 0) return topicsInvalid(problems);
    for (const state of there) {
      const error = this.#changed(state);
      if (error !== undefined) return error;
    }
    return undefined;
  }

  #changed(state: TopicState): PipelineError | undefined {
    const { role, name, id, partitions } = state;
    const before = this.#seen.get(role);
    if (before?.partitions === undefined) return undefined;
    if (id !== undefined && before.id !== undefined && id !== before.id) {
      const held = HELD[role];
      if (held !== undefined) return madeAgain(before, id);
      this.#options.onNotice?.('an output topic was deleted and made again: what it held is gone', { topic: name });
      this.#seen.set(role, state);
      return undefined;
    }
    if (partitions !== before.partitions)
      return new PipelineError(
        'TOPICS_INVALID',
        `${name} had ${before.partitions} partitions at the start and has ${partitions}: ${
          role === 'entities' || role === 'source'
            ? 'those that were added are not read. Start again'
            : 'a user cannot be moved to another partition; a new deployment (kafka.applicationId, topics) is filled by replay'
        }`,
      );
    return undefined;
  }

  #tellGone(states: readonly TopicState[]): void {
    const gone = states.filter(({ partitions }) => partitions === undefined).map(({ name }) => name);
    for (const topic of gone)
      if (!this.#gone.includes(topic)) this.#options.onNotice?.('there is no such topic any more; waiting for it', { topic });
    this.#gone = gone;
  }
}
