/** Writes what is said of entities to their topic, each entity's to one partition and in order. */
import type { Kafka } from 'kafkajs';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { EntityUpdate } from '../../schemas/catalogue.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { KeyedProducer } from './keyed-producer.ts';

export class EntityProducer {
  readonly #producer: KeyedProducer;
  readonly #codec: AvroCodec;

  /** @throws PipelineError when no broker answers or the topic is missing */
  static async open(kafka: Kafka, config: KafkaConfig, topic: string, codec: AvroCodec): Promise<EntityProducer> {
    return new EntityProducer(await KeyedProducer.open(kafka, config, topic), codec);
  }

  private constructor(producer: KeyedProducer, codec: AvroCodec) {
    this.#producer = producer;
    this.#codec = codec;
  }

  /** Resolves when all replicas in sync have the updates; one that is `removed` is a record without a value. */
  send(updates: readonly EntityUpdate[]): Promise<void> {
    return this.#producer.send(
      updates.map((update) => ({
        key: update.entity,
        value: update.removed === true ? null : this.#codec.encode('Entity', update),
      })),
    );
  }

  close(): Promise<void> {
    return this.#producer.close();
  }
}
