/** What the brokers say of topics: existence, id, partitions, settings. kafkajs' own metadata requests know no topic ids. */
import { createRequire } from 'node:module';
import type { Kafka } from 'kafkajs';
import { kafkaError } from './kafka-errors.ts';
import { type Broker, type Cluster, openCluster } from './kafkajs-internals.ts';

export interface TopicMetadata {
  /** As Kafka's tools write it, base64url; absent from brokers before 2.8. Of a topic that is deleted and made again it is another. */
  readonly id?: string;
  readonly partitions: number;
  readonly replicas: number;
}

interface Encoder {
  writeUVarInt(value: number): Encoder;
  writeUVarIntString(value: string): Encoder;
  writeBoolean(value: boolean): Encoder;
  writeBuffer(value: Buffer): Encoder;
}

interface Decoder {
  offset: number;
  readInt8(): number;
  readInt16(): number;
  readInt32(): number;
  readBoolean(): boolean;
  readBytes(length: number): Buffer;
  readUVarInt(): number;
  readUVarIntString(): string | null;
}

interface AdminBroker extends Broker {
  readonly versions: Readonly<Record<number, { readonly maxVersion: number }>> | null;
  readonly connectionPool: { send<T>(protocol: object): Promise<T> };
  describeConfigs(request: {
    readonly resources: readonly { readonly type: number; readonly name: string; readonly configNames: readonly string[] }[];
    readonly includeSynonyms: boolean;
  }): Promise<{
    readonly resources: readonly {
      readonly resourceName: string;
      readonly configEntries: readonly { readonly configName: string; readonly configValue: string }[];
    }[];
  }>;
}

interface AdminCluster extends Omit<Cluster, 'brokerPool'> {
  readonly brokerPool: { findConnectedBroker(): Promise<AdminBroker> };
}

const METADATA = 3;
/** Flexible since 9; with topic ids since 10. */
const VERSIONS = { least: 9, most: 10 } as const;
const UNKNOWN_TOPIC = 3;
/** Of a topic that is being made: there, and not led yet. */
const LEADER_NOT_AVAILABLE = 5;
const TOPIC_RESOURCE = 2;

const require = createRequire(import.meta.url);
const EncoderClass = require('kafkajs/src/protocol/encoder.js') as new () => Encoder;
const DecoderClass = require('kafkajs/src/protocol/decoder.js') as new (bytes: Buffer) => Decoder;
const { createErrorFromCode } = require('kafkajs/src/protocol/error.js') as { createErrorFromCode(code: number): Error };

/** A connection of its own; asks again where the broker has closed it. */
export class TopicMetadataReader {
  readonly #kafka: Kafka;
  #cluster: AdminCluster | undefined;

  constructor(kafka: Kafka) {
    this.#kafka = kafka;
  }

  /**
   * Those of `names` that there are; none is made by asking.
   *
   * @throws PipelineError as `kafkaError` says; `KAFKA_AUTHORIZATION` for a topic that may not be seen
   */
  topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    return this.#ask('reading the topics', async (broker) => {
      const version = Math.min(VERSIONS.most, broker.versions?.[METADATA]?.maxVersion ?? 0);
      return broker.connectionPool.send(metadataRequest(names, Math.max(VERSIONS.least, version)));
    });
  }

  /** Effective settings, by topic and key: a topic's own, or what its broker has for it. @throws PipelineError as `kafkaError` says */
  settings(names: readonly string[], keys: readonly string[]): Promise<ReadonlyMap<string, ReadonlyMap<string, string>>> {
    return this.#ask('reading the settings of the topics', async (broker) => {
      const { resources } = await broker.describeConfigs({
        includeSynonyms: false,
        resources: names.map((name) => ({ type: TOPIC_RESOURCE, name, configNames: keys })),
      });
      return new Map(
        resources.map(({ resourceName, configEntries }) => [
          resourceName,
          new Map(configEntries.map(({ configName, configValue }) => [configName, configValue])),
        ]),
      );
    });
  }

  async close(): Promise<void> {
    const cluster = this.#cluster;
    this.#cluster = undefined;
    await cluster?.disconnect().catch(() => undefined);
  }

  async #ask<T>(what: string, ask: (broker: AdminBroker) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        if (this.#cluster === undefined) {
          this.#cluster = openCluster(this.#kafka) as Omit<Cluster, 'brokerPool'> as AdminCluster;
          await this.#cluster.connect();
        }
        return await ask(await this.#cluster.brokerPool.findConnectedBroker());
      } catch (thrown) {
        await this.close();
        const error = kafkaError(thrown, what);
        // A connection may have been closed since the last question, or the answer cut off.
        if (error.code !== 'KAFKA_FAILED' || attempt === 3) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100 * attempt));
      }
    }
  }
}

/** One question on a connection for it alone. */
export async function readTopicMetadata(kafka: Kafka, names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
  const reader = new TopicMetadataReader(kafka);
  try {
    return await reader.topics(names);
  } finally {
    await reader.close();
  }
}

/** Metadata request and response of versions 9 and 10: https://kafka.apache.org/protocol#The_Messages_Metadata */
function metadataRequest(names: readonly string[], version: number): object {
  const withIds = version >= 10;
  return {
    request: {
      apiKey: METADATA,
      apiVersion: version,
      apiName: 'Metadata',
      encode: async () => {
        const encoder = new EncoderClass();
        // The header's tagged fields, which kafkajs' header of version 1 has not.
        encoder.writeUVarInt(0).writeUVarInt(names.length + 1);
        for (const name of names) {
          if (withIds) encoder.writeBuffer(Buffer.alloc(16));
          encoder.writeUVarIntString(name).writeUVarInt(0);
        }
        const [create, clusterOperations, topicOperations] = [false, false, false];
        return encoder.writeBoolean(create).writeBoolean(clusterOperations).writeBoolean(topicOperations).writeUVarInt(0);
      },
    },
    response: {
      decode: async (bytes: Buffer) => decodeMetadata(new DecoderClass(bytes), withIds),
      parse: async (answer: Answer) => parseMetadata(answer),
    },
  };
}

interface Answer {
  /** Milliseconds that kafkajs holds the next request back for. */
  readonly clientSideThrottleTime: number;
  readonly topics: readonly (TopicMetadata & { readonly name: string; readonly error: number })[];
}

function decodeMetadata(decoder: Decoder, withIds: boolean): Answer {
  skipTags(decoder);
  const clientSideThrottleTime = decoder.readInt32();
  readArray(decoder, () => {
    decoder.readInt32();
    decoder.readUVarIntString();
    decoder.readInt32();
    decoder.readUVarIntString();
    skipTags(decoder);
  });
  decoder.readUVarIntString();
  decoder.readInt32();
  const topics = readArray(decoder, () => {
    const error = decoder.readInt16();
    const name = decoder.readUVarIntString() ?? '';
    const uuid = withIds ? decoder.readBytes(16) : undefined;
    decoder.readBoolean();
    const replicas = readArray(decoder, () => readPartition(decoder));
    decoder.readInt32();
    skipTags(decoder);
    const id = uuid?.some((byte) => byte !== 0) === true ? uuid.toString('base64url') : undefined;
    return { error, name, partitions: replicas.length, replicas: replicas[0] ?? 0, ...(id !== undefined && { id }) };
  });
  return { clientSideThrottleTime, topics };
}

/** @returns how many replicas it has */
function readPartition(decoder: Decoder): number {
  decoder.readInt16();
  decoder.readInt32();
  decoder.readInt32();
  decoder.readInt32();
  const replicas = readArray(decoder, () => decoder.readInt32());
  readArray(decoder, () => decoder.readInt32());
  readArray(decoder, () => decoder.readInt32());
  skipTags(decoder);
  return replicas.length;
}

function parseMetadata({ topics }: Answer): ReadonlyMap<string, TopicMetadata> {
  const found = new Map<string, TopicMetadata>();
  for (const { name, error, ...topic } of topics) {
    if (error === UNKNOWN_TOPIC) continue;
    if (error !== 0 && error !== LEADER_NOT_AVAILABLE) throw createErrorFromCode(error);
    found.set(name, topic);
  }
  return found;
}

function readArray<T>(decoder: Decoder, read: () => T): T[] {
  const length = decoder.readUVarInt() - 1;
  const items: T[] = [];
  for (let i = 0; i < length; i++) items.push(read());
  return items;
}

function skipTags(decoder: Decoder): void {
  for (let left = decoder.readUVarInt(); left > 0; left--) {
    decoder.readUVarInt();
    decoder.offset += decoder.readUVarInt();
  }
}
