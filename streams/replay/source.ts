/** Where a backfill reads from: files or topics, as one pass over records that says in which order each user's events belong. */
import { createHash } from 'node:crypto';
import { checkColumns, openRawRows } from '../../infra/files/read-records.ts';
import { topicsOf } from '../../infra/files/topics-of.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { type OffsetRange, type RangeBounds, readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { createRecordDecoder, type RecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { compileMapping, type DecodeResult } from '../../schemas/record-mapping.ts';
import { type LiveConfig, requireKafka } from '../require-kafka.ts';
import { requireMappedFields } from '../require-mapped-fields.ts';
import { rowInputs } from './row-inputs.ts';

/** Takes a record, what it was decoded to, and what its user's events are sorted by. */
export type Visit = (record: SourceRecord, result: DecodeResult, order: number) => void;

export interface BackfillSource {
  /** One pass, from first to last. @returns what names the records: the same text, the same records */
  scan(visit: Visit, signal?: AbortSignal): Promise<string>;
  /** Of the run's record; of Kafka with the `ranges` that were read, once they were. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** Files and tables, each user's events by event time, ties by input and row: as in the merged order of a replay. */
export function fileBackfill(config: Config): BackfillSource {
  const { source } = config;
  if (source === undefined)
    throw new PipelineError('CONFIG_INVALID', 'source: missing; a backfill needs source.files or source.clickhouse');
  const { maxRecordBytes } = source;
  return {
    facts: { files: [...source.files.map(({ path }) => path), ...source.clickhouse.map(({ name }) => name)] },
    async scan(visit, signal) {
      const inputs = await rowInputs(config);
      const digests: string[] = [];
      for (const [i, topic] of topicsOf(inputs).entries()) {
        const input = inputs[i]!;
        const mapping = compileMapping(input.mapping, { ...config.time, maxRecordBytes });
        const hash = createHash('sha256');
        const { header, chunks, toValue } = await openRawRows(input, maxRecordBytes, hash);
        checkColumns(input.path, header, mapping.fields);
        let offset = 0;
        for await (const rows of chunks) {
          signal?.throwIfAborted();
          for (const row of rows) {
            const record: SourceRecord = { position: { topic, partition: 0, offset: offset++ }, value: toValue(row) };
            const result = mapping.decode(record);
            visit(record, result, result.ok ? result.action.eventTimeMs : 0);
          }
        }
        digests.push(`${hash.digest('hex')} ${input.format} ${JSON.stringify(input.mapping)}`);
      }
      return digests.join('\n');
    },
  };
}

/** Decodes the records of a deployment's topics as its configuration says now. */
export const deploymentDecoder = (config: LiveConfig, registry: SchemaRegistry | undefined): RecordDecoder =>
  createRecordDecoder({
    ...config.kafka,
    ...config.time,
    schemas: registry ?? fixedSchemas,
    mapping: config.kafka.mapping,
    erasureAction: config.sequence.erasureAction,
  });

/**
 * A deployment's topics, each user's events by their place in the log, as live takes them; erasures among them by the records'
 * timestamps. Reads outside the deployment's group.
 *
 * @param boundsOf of a partition of `userActions`
 */
export function kafkaBackfill(given: Config, boundsOf: (partition: number) => RangeBounds): BackfillSource {
  const config = requireKafka(given, 'a backfill from Kafka');
  const { topics, maxBufferedBytes, schemaRegistry } = config.kafka;
  const registry = schemaRegistry && new SchemaRegistry(schemaRegistry);
  const decoder = deploymentDecoder(config, registry);
  let ranges: readonly OffsetRange[] = [];
  return {
    get facts() {
      return { topics: [topics.userActions, topics.erasures], ranges };
    },
    async scan(visit, signal) {
      await requireMappedFields(config.kafka, registry);
      const kafka = kafkaClient(config.kafka);
      const actions = await resolveRanges(kafka, topics.userActions, boundsOf);
      const erasures = await resolveRanges(kafka, topics.erasures, () => ({}));
      ranges = [...actions, ...erasures];
      const order = new Map<string, number>();
      for await (const records of readRanges(kafka, [...actions, ...erasures], maxBufferedBytes, signal)) {
        await registry?.ensure(schemaIdsOf(records));
        for (const record of records) {
          const key = `${record.position.partition}/${record.position.topic}`;
          // Never back: within a topic the place in the log decides, whatever the producers' clocks said.
          const at = Math.max(order.get(key) ?? 0, record.timestampMs ?? 0);
          order.set(key, at);
          visit(record, decoder.decode(record), at);
        }
      }
      const text = ({ topic, partition, from, to }: OffsetRange) => `${topic}/${partition} ${from}-${to}`;
      return [...actions, ...erasures].map(text).join('\n');
    },
  };
}
