/** Dead letters as a source: the original records, decoded as the configuration says now. */
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { type OffsetRange, type RangeBounds, readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { Config } from '../../schemas/config.ts';
import type { DecodeResult } from '../../schemas/decoded.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { requireKafka } from '../require-kafka.ts';
import { type BackfillSource, deploymentDecoder } from './source.ts';

/** A letter is its record, and as much again of reasons. */
const AROUND_BYTES = 64 * 1024;

/** A record that was given up. */
interface Original extends SourceRecord {
  /** What is said of it where the letter has only its beginning. */
  readonly cut?: DecodeResult;
}

/** Only a beginning is there: decoded, it might say something else. The record itself may still be in its topic. */
export const whyCut = (bytes: number, sha256?: string): DecodeResult => ({
  ok: false,
  code: 'RECORD_TOO_LARGE',
  message: `the dead letter holds only the beginning of ${bytes} bytes${sha256 === undefined ? '' : ` (sha256 ${sha256})`}: send the record again from where it stood`,
});

/**
 * The deployment's topic of dead letters. Each record has the position that it had when it was given up, its key and its timestamp; a
 * user's events stand in the order of their letters. What was asked for candidates is left out: it is no action.
 *
 * @param boundsOf of a partition of the topic of dead letters
 */
export function deadLetterBackfill(given: Config, boundsOf: (partition: number) => RangeBounds): BackfillSource {
  const config = requireKafka(given, 'a backfill from dead letters');
  const { topics, maxRecordBytes, schemaRegistry } = config.kafka;
  const registry = schemaRegistry && new SchemaRegistry(schemaRegistry);
  const decoder = deploymentDecoder(config, registry);
  const letters = new AvroCodec({ schemas: registry ?? fixedSchemas, maxRecordBytes: 2 * maxRecordBytes + AROUND_BYTES });
  let ranges: readonly OffsetRange[] = [];

  const originalOf = ({ position, value }: SourceRecord): Original => {
    const letter = letters.decode('DeadLetter', (value ?? new Uint8Array()) as Uint8Array);
    if (letter instanceof Fault)
      throw new PipelineError(
        'SOURCE_UNREADABLE',
        `${position.topic}/${position.partition}/${position.offset} is no dead letter: ${letter.message}`,
      );
    const { original, originalKey, timestampMs, originalCut, keyCut } = letter;
    const cut = originalCut ?? keyCut;
    return {
      ...(cut !== undefined && { cut: whyCut(cut.bytes, cut.sha256) }),
      position: letter.position,
      value: original,
      key: originalKey ?? null,
      ...(timestampMs !== undefined && { timestampMs }),
    };
  };

  return {
    get facts() {
      // Not `ranges`: those say of a run that it can take over from live.
      return { topics: [topics.deadLetters], letterRanges: ranges };
    },
    async scan(visit, signal) {
      const kafka = kafkaClient(config.kafka);
      ranges = await resolveRanges(kafka, topics.deadLetters, boundsOf);
      for await (const records of readRanges(kafka, ranges, config.kafka, signal)) {
        await registry?.ensure(schemaIdsOf(records));
        const originals = records.map(originalOf).filter(({ position }) => position.topic !== topics.candidateRequests);
        await registry?.ensure(schemaIdsOf(originals));
        // All have one place: what was given up first was added first.
        for (const { cut, ...original } of originals) visit(original, cut ?? decoder.decode(original), () => 0);
      }
      return ranges
        .map(({ topic, partition, from, to, topicId = '' }) => `${topic}/${partition} ${from}-${to} ${topicId}`.trimEnd())
        .join('\n');
    },
  };
}
