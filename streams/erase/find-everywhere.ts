/** Everything that is left of a user, wherever a deployment keeps something. */
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { findInClickHouse, findInStores } from './find-in-stores.ts';
import { findInTopics, type TopicSearch } from './find-in-topics.ts';
import type { Finding } from './finding.ts';

export interface ErasurePlace {
  readonly userId: string;
  /** Undefined: there is no deployment, only what replays stored. */
  readonly live: LiveConfig | undefined;
  /** Undefined: there is none. */
  readonly clickhouse: ClickHouse | undefined;
  readonly signal: AbortSignal;
}

/** @throws as `findInTopics`; what ClickHouse throws */
export async function findEverywhere(
  { userId, live, clickhouse, signal }: ErasurePlace,
  onProgress?: TopicSearch['onProgress'],
): Promise<Finding[]> {
  const findings: Finding[] = [];
  let erasedAtMs: number | undefined;
  if (live !== undefined) {
    const topics = await findInTopics({
      ...(await readingOf(live)),
      kafka: kafkaClient(live.kafka),
      config: live,
      userId,
      ...(onProgress !== undefined && { onProgress }),
      signal,
    });
    erasedAtMs = topics.erasedAtMs;
    findings.push(...topics.findings, await findInStores(live, userId, topics.returned));
  }
  if (clickhouse !== undefined)
    findings.push(...(await findInClickHouse(clickhouse, { userId, liveRunId: live?.kafka.applicationId, erasedAtMs })));
  return findings;
}

/** How the deployment's records are read. */
export async function readingOf({
  kafka,
  time,
  sequence,
}: LiveConfig): Promise<Pick<TopicSearch, 'codec' | 'decoder' | 'prepare'>> {
  await requireLogin(kafka);
  const registry = kafka.schemaRegistry && new SchemaRegistry(kafka.schemaRegistry);
  const schemas = registry ?? fixedSchemas;
  const { erasureAction } = sequence;
  return {
    codec: new AvroCodec({ schemas, maxRecordBytes: 4 * kafka.maxRecordBytes }),
    decoder: createRecordDecoder({ ...kafka, ...time, schemas, mapping: kafka.mapping, erasureAction }),
    prepare: registry && ((records) => registry.ensure(schemaIdsOf(records))),
  };
}
