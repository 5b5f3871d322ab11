/** Where a backfill reads from: files or topics, as one pass over records that says in which order each user's events belong. */
import { createHash } from 'node:crypto';
import { openMappedRows } from '../../infra/files/read-records.ts';
import { topicsOf } from '../../infra/files/topics-of.ts';
import { readErasurePlaces } from '../../infra/kafka/erasure-places.ts';
import { type KafkaClient, kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { type OffsetRange, type RangeBounds, readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import type { PositionedAction, SourceRecord } from '../../schemas/action.ts';
import { createRecordDecoder, type RecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { schemaIdsOf } from '../../schemas/avro/wire-format.ts';
import type { Config } from '../../schemas/config.ts';
import type { DecodeResult } from '../../schemas/decoded.ts';
import { placeRecord } from '../../schemas/erasure-place.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { compileMapping } from '../../schemas/record-mapping.ts';
import { judgePlaces } from '../misplaced.ts';
import { type LiveConfig, requireKafka } from '../require-kafka.ts';
import { requireMappedFields } from '../require-mapped-fields.ts';
import { LogOrder } from './log-order.ts';
import { rowInputs } from './row-inputs.ts';
import type { PartitionedChange } from './shape-updates.ts';

/** Takes a record, what it was decoded to, and what each of its actions is sorted by among its user's. */
export type Visit = (record: SourceRecord, result: DecodeResult, orderOf: (action: PositionedAction) => number) => void;

/** The order of rows that bring no other. */
export const byEventTime = ({ eventTimeMs }: PositionedAction): number => eventTimeMs;

export interface BackfillSource {
  /** One pass, from first to last. @returns what names the records: the same text, the same records */
  scan(visit: Visit, signal?: AbortSignal): Promise<string>;
  /** Of the run's record; of Kafka with the `ranges` that were read, once they were. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Where the erasures of a log stand, once it was read: part of the state that live goes on from. */
  readonly places?: readonly PartitionedChange[];
}

/** Files and tables, each user's events by event time, ties by input and row: as in the merged order of a replay. */
export function fileBackfill(config: Config): BackfillSource {
  return {
    facts: rowFacts(config),
    scan: (visit, signal) => scanRows(config, visit, signal),
  };
}

function rowFacts({ source }: Config): { readonly files: readonly string[] } {
  if (source === undefined)
    throw new PipelineError('CONFIG_INVALID', 'source: missing; a backfill needs source.files or source.clickhouse');
  return { files: [...source.files.map(({ path }) => path), ...source.clickhouse.map(({ name }) => name)] };
}

async function scanRows(config: Config, visit: Visit, signal: AbortSignal | undefined): Promise<string> {
  const inputs = await rowInputs(config);
  const { maxRecordBytes } = config.source!;
  const digests: string[] = [];
  for (const [i, topic] of topicsOf(inputs).entries()) {
    const input = inputs[i]!;
    const mapping = compileMapping(input.mapping, { ...config.time, maxRecordBytes });
    const hash = createHash('sha256');
    const { chunks, toValue } = await openMappedRows(input, mapping.fields, maxRecordBytes, hash);
    let offset = 0;
    for await (const rows of chunks) {
      signal?.throwIfAborted();
      for (const row of rows) {
        const record: SourceRecord = { position: { topic, partition: 0, offset: offset++ }, value: toValue(row) };
        const result = mapping.decode(record);
        visit(record, result, byEventTime);
      }
    }
    const { format, mapping: given, csv, encoding } = input;
    digests.push(
      `${hash.digest('hex')} ${format} ${JSON.stringify(given)}${csv || encoding ? JSON.stringify({ csv, encoding }) : ''}`,
    );
  }
  return digests.join('\n');
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
 * A deployment's topics, each user's events by their place in the log, as live takes them; erasures among them where live has carried
 * them out, or, where nobody has, by the records' timestamps (`LogOrder`). Reads outside the deployment's group.
 *
 * @param boundsOf of a partition of `userActions`
 */
export function kafkaBackfill(given: Config, boundsOf: (partition: number) => RangeBounds): BackfillSource {
  const log = new Log(requireKafka(given, 'a backfill from Kafka'), boundsOf);
  return {
    get facts() {
      return log.facts;
    },
    get places() {
      return log.places;
    },
    async scan(visit, signal) {
      await log.open();
      return log.scan(visit, signal);
    },
  };
}

/** More than any event time, ms: rows stand before the log, whose order begins at 0. */
const BEFORE_LOG = 2 ** 52;

/**
 * History from files and tables, by event time, then the log, as if live had been given the rows first: an event of both counts once,
 * by its id or as older than the user's window. A row has the partition that its user has in the log.
 *
 * @param boundsOf of a partition of `userActions`
 */
export function joinedBackfill(given: Config, boundsOf: (partition: number) => RangeBounds): BackfillSource {
  const config = requireKafka(given, 'a backfill from files and Kafka');
  const rows = rowFacts(config);
  const log = new Log(config, boundsOf);
  return {
    get facts() {
      return { ...rows, ...log.facts };
    },
    get places() {
      return log.places;
    },
    async scan(visit, signal) {
      // A range that the log does not have is told before months of rows are read.
      const partitions = await log.open();
      const place: Visit = (record, result, orderOf) => {
        const [first] = result.ok ? result.actions : [];
        if (!result.ok || first === undefined) return visit(record, result, orderOf);
        const position = { ...record.position, partition: partitionOf(first.userId, partitions) };
        const actions = result.actions.map((action) => ({ ...action, position }));
        visit({ ...record, position }, { ...result, actions }, (action) => orderOf(action) - BEFORE_LOG);
      };
      return [await scanRows(config, place, signal), await log.scan(visit, signal)].join('\n');
    },
  };
}

class Log {
  readonly #config: LiveConfig;
  readonly #boundsOf: (partition: number) => RangeBounds;
  readonly #kafka: KafkaClient;
  readonly #registry: SchemaRegistry | undefined;
  #actions: readonly OffsetRange[] = [];
  #erasures: readonly OffsetRange[] = [];
  #places: readonly PartitionedChange[] = [];

  constructor(config: LiveConfig, boundsOf: (partition: number) => RangeBounds) {
    const { schemaRegistry } = config.kafka;
    this.#config = config;
    this.#boundsOf = boundsOf;
    this.#kafka = kafkaClient(config.kafka);
    this.#registry = schemaRegistry && new SchemaRegistry(schemaRegistry);
  }

  get facts() {
    const { userActions, erasures } = this.#config.kafka.topics;
    return { topics: [userActions, erasures], ranges: [...this.#actions, ...this.#erasures] };
  }

  get places() {
    return this.#places;
  }

  /** Finds out what is to be read. @returns how many partitions actions have */
  async open(): Promise<number> {
    const { topics } = this.#config.kafka;
    await requireMappedFields(this.#config.kafka, this.#registry);
    this.#actions = await resolveRanges(this.#kafka, topics.userActions, this.#boundsOf);
    this.#erasures = await resolveRanges(this.#kafka, topics.erasures, () => ({}));
    return this.#actions.length;
  }

  async scan(visit: Visit, signal: AbortSignal | undefined): Promise<string> {
    const { kafka } = this.#config;
    const decoder = judgePlaces(deploymentDecoder(this.#config, this.#registry), { kafka, partitions: this.#actions.length });
    const orders = await this.#orders(signal);
    for await (const records of readRanges(this.#kafka, this.#actions, this.#limits, signal)) {
      await this.#registry?.ensure(schemaIdsOf(records));
      for (const record of records) {
        const order = orders.get(record.position.partition)!.ofAction(record);
        visit(record, decoder.decode(record), () => order);
      }
    }
    const places: PartitionedChange[] = [];
    for (const [partition, order] of orders)
      for (const { record, order: at, place } of order.erasures()) {
        await this.#registry?.ensure(schemaIdsOf([record]));
        visit(record, decoder.decode(record), () => at);
        places.push({ partition, ...placeRecord(place) });
      }
    this.#places = places;
    const text = ({ topic, partition, from, to, topicId = '' }: OffsetRange) =>
      `${topic}/${partition} ${from}-${to} ${topicId}`.trimEnd();
    // Where erasures stand decides what comes out.
    const placed = places.map(({ partition, key, value }) => `${partition} ${Buffer.from(key).toString('hex')} ${value}`);
    return [...this.#actions, ...this.#erasures].map(text).concat(placed).join('\n');
  }

  /** As live: what it cannot give is a dead letter here too. */
  get #limits() {
    return { ...this.#config.kafka, faults: 'given' } as const;
  }

  /** Of each partition, with its erasures, which are few. */
  async #orders(signal: AbortSignal | undefined): Promise<ReadonlyMap<number, LogOrder>> {
    const { kafka } = this.#config;
    const erasures = new Map<number, SourceRecord[]>(this.#actions.map(({ partition }) => [partition, []]));
    for await (const records of readRanges(this.#kafka, this.#erasures, this.#limits, signal))
      for (const record of records) erasures.get(record.position.partition)?.push(record);
    const some = [...erasures.values()].some((list) => list.length > 0);
    const places = some ? await readErasurePlaces(this.#kafka, kafka, signal) : undefined;
    return new Map([...erasures].map(([partition, list]) => [partition, new LogOrder(list, places?.get(partition) ?? [])]));
  }
}
