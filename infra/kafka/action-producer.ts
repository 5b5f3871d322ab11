/** Writes user actions, each user's to one partition and in order: what `produce`, tests and benchmarks feed a stream with. */
import type { Kafka } from 'kafkajs';
import type { UserAction } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { KeyedProducer } from './keyed-producer.ts';
import { actionSourceOf } from './topics.ts';

export class ActionProducer {
  readonly #producer: KeyedProducer;
  readonly #codec: AvroCodec;

  /** @throws PipelineError when no broker answers or the topic is missing */
  static async open(kafka: Kafka, config: KafkaConfig, codec: AvroCodec): Promise<ActionProducer> {
    return new ActionProducer(await KeyedProducer.open(kafka, config, actionSourceOf(config)), codec);
  }

  private constructor(producer: KeyedProducer, codec: AvroCodec) {
    this.#producer = producer;
    this.#codec = codec;
  }

  /** Resolves when all replicas in sync have the actions. Calls must not overlap, or the order of a user's actions may change. */
  send(actions: readonly UserAction[], timestampMs?: number): Promise<void> {
    const time = timestampMs === undefined ? {} : { timestampMs };
    return this.#producer.send(
      actions.map((action) => ({ key: action.userId, value: this.#codec.encode('UserAction', action), ...time })),
    );
  }

  close(): Promise<void> {
    return this.#producer.close();
  }
}
