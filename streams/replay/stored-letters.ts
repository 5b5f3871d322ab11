/** Dead letters of a run in ClickHouse as a source: of live, of a replay of files, or of another backfill. */
import { createHash } from 'node:crypto';
import { connect } from '../../infra/clickhouse/connect.ts';
import { type LetterRow, lettersOfRun } from '../../infra/clickhouse/run-letters.ts';
import { topicsOf } from '../../infra/files/topics-of.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { Config } from '../../schemas/config.ts';
import type { DecodeResult } from '../../schemas/decoded.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { compileMapping } from '../../schemas/record-mapping.ts';
import { requireKafka } from '../require-kafka.ts';
import { whyCut } from './dead-letter-source.ts';
import { rowInputs } from './row-inputs.ts';
import { type BackfillSource, byEventTime, deploymentDecoder } from './source.ts';

/** Decodes a letter's original as the configuration says now. */
type Decode = (record: SourceRecord) => DecodeResult;

/**
 * The letters of a run, decoded as the configuration says now: of the deployment's topics by its decoder, in the order of their
 * places; of files and tables by the mapping of the input with that name, by event time. Requests for candidates are left out.
 */
export function storedLettersBackfill(config: Config, runId: string): BackfillSource {
  return {
    facts: { lettersOf: runId },
    async scan(visit, signal) {
      const clickhouse = await connect(config.clickhouse);
      try {
        const inputs = await inputDecoders(config);
        const registry = config.kafka?.schemaRegistry && new SchemaRegistry(config.kafka.schemaRegistry);
        const log = logDecoders(config, registry);
        const hash = createHash('sha256').update(runId);
        for await (const rows of lettersOfRun(clickhouse, runId)) {
          signal?.throwIfAborted();
          const records = rows.filter(({ topic }) => topic !== config.kafka?.topics.candidateRequests);
          const ofLog = records.filter(({ topic }) => log.has(topic)).map(logRecord);
          await registry?.ensure(schemaIdsOf(ofLog));
          for (const { cut, ...record } of ofLog) visit(record, cut ?? log.get(record.position.topic)!(record), () => 0);
          for (const row of records) {
            hash.update(JSON.stringify(row));
            if (log.has(row.topic)) continue;
            const decode = inputs.get(row.topic);
            if (decode === undefined) throw unknownPlace(row, [...log.keys(), ...inputs.keys()]);
            const record = { position: positionOf(row), value: rowValue(row.original) };
            visit(record, decode(record), byEventTime);
          }
        }
        return hash.digest('hex');
      } finally {
        await clickhouse.close();
      }
    },
  };
}

async function inputDecoders(config: Config): Promise<ReadonlyMap<string, Decode>> {
  const { source } = config;
  if (source === undefined) return new Map();
  const inputs = await rowInputs(config);
  const options = { ...config.time, maxRecordBytes: source.maxRecordBytes };
  return new Map(topicsOf(inputs).map((topic, i) => [topic, compileMapping(inputs[i]!.mapping, options).decode]));
}

function logDecoders(config: Config, registry: SchemaRegistry | undefined): ReadonlyMap<string, Decode> {
  if (config.kafka === undefined) return new Map();
  const { topics } = config.kafka;
  const decoder = deploymentDecoder(requireKafka(config, 'dead letters of Kafka'), registry);
  return new Map([topics.userActions, topics.erasures].map((topic) => [topic, (record) => decoder.decode(record)]));
}

const positionOf = ({ topic, partition, offset }: LetterRow) => ({ topic, partition, offset });

function logRecord(row: LetterRow): SourceRecord & { readonly cut?: DecodeResult } {
  const value = Buffer.from(row.original, row.encoding === 'base64' ? 'base64' : 'utf8');
  // A tombstone is stored as no text.
  return {
    ...(row.cutFrom > 0 && { cut: whyCut(row.cutFrom) }),
    position: positionOf(row),
    value: value.length === 0 ? null : value,
    key: row.userId === '' ? null : Buffer.from(row.userId),
  };
}

/** A row as its reader gave it: fields, or a text that was none. */
function rowValue(original: string): SourceRecord['value'] {
  try {
    const value: unknown = JSON.parse(original);
    if (typeof value === 'object' && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch {
    // The text itself is what was refused.
  }
  return original;
}

const unknownPlace = ({ topic, offset }: LetterRow, known: readonly string[]): PipelineError =>
  new PipelineError(
    'CONFIG_INVALID',
    `dead letter ${topic}/${offset}: the configuration has no topic or source of this name (${known.join(', ') || 'it has none'}), which says how it is decoded`,
  );
