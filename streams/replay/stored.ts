/** Where embeddings are stored that a verification compares with: a run in ClickHouse, or the topic that live publishes to. */
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { embeddingsOfUsers, usersOfRun } from '../../infra/clickhouse/run-embeddings.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { Fault } from '../../schemas/record-fields.ts';
import type { StoredState } from '../../schemas/stored-state.ts';
import { ofNewestEpoch } from '../../schemas/version.ts';
import type { LiveConfig } from '../require-kafka.ts';

export interface StoredEmbeddings {
  /** All versions of these users, by user and version. */
  ofUsers(userIds: readonly string[]): Promise<ReadonlyMap<string, ReadonlyMap<number, StoredState>>>;
  /** Everyone of whom something is stored. */
  users(): Promise<Iterable<string>>;
}

export const storedInRun = (clickhouse: ClickHouse, runId: string): StoredEmbeddings => ({
  ofUsers: async (userIds) => {
    const stored = await embeddingsOfUsers(clickhouse, runId, userIds);
    return new Map([...stored].map(([userId, versions]) => [userId, ofNewestEpoch(versions)]));
  },
  users: () => usersOfRun(clickhouse, runId),
});

/**
 * What a deployment's topic of embeddings holds now; a tombstone takes away what came before it. Held in memory.
 *
 * @throws PipelineError Kafka's; `SOURCE_UNREADABLE` for a record that is no embedding
 */
export async function storedInTopic({ kafka: config }: LiveConfig, signal?: AbortSignal): Promise<StoredEmbeddings> {
  const kafka = kafkaClient(config);
  const registry = config.schemaRegistry && new SchemaRegistry(config.schemaRegistry);
  const codec = new AvroCodec({ schemas: registry ?? fixedSchemas });
  const topic = config.topics.userEmbeddings;
  const held = new Map<string, Map<number, StoredState>>();
  const ranges = await resolveRanges(kafka, topic, () => ({}));
  for await (const records of readRanges(kafka, ranges, config, signal)) {
    await registry?.ensure(schemaIdsOf(records));
    for (const { position, key, value } of records) {
      if (value === null) {
        held.delete(Buffer.from(key ?? []).toString());
        continue;
      }
      const embedding = codec.decode('UserEmbedding', value as Uint8Array);
      if (embedding instanceof Fault)
        throw new PipelineError('SOURCE_UNREADABLE', `${topic}/${position.partition}/${position.offset}: ${embedding.message}`);
      const { userId, version, queryTimeMs, lineage } = embedding;
      const versions = held.get(userId) ?? new Map<number, StoredState>();
      held.set(userId, versions);
      const { sequenceDigest, modelDigest } = lineage;
      versions.set(version, { embedding: Float32Array.from(embedding.embedding), queryTimeMs, sequenceDigest, modelDigest });
    }
  }
  return {
    ofUsers: (userIds) =>
      Promise.resolve(
        new Map(userIds.flatMap((userId) => (held.has(userId) ? [[userId, ofNewestEpoch(held.get(userId)!)] as const] : []))),
      ),
    users: () => Promise.resolve(held.keys()),
  };
}
