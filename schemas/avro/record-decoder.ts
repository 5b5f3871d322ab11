/** What the Kafka topics hold becomes actions and requests, whether it was written in Avro or in JSON. */
import type { SourceRecord } from '../action.ts';
import { parseBoundedJson } from '../bounded-json.ts';
import { type CatalogueFilter, catalogueFilterSchema } from '../catalogue-filter.ts';
import type { KafkaConfig } from '../config.ts';
import { type DecodeResult, refuse } from '../decoded.ts';
import { compileTime, type TimeBounds } from '../event-time.ts';
import type { RecordMapping } from '../mapping-config.ts';
import { compileNumber, Fault, MAX_ID_LENGTH, type Row, readId } from '../record-fields.ts';
import { type CompiledMapping, compileMapping, compileUserAction, IGNORED, positionId } from '../record-mapping.ts';
import { DEFAULT_MAX_RECORD_BYTES, rowOf } from '../record-row.ts';
import { AvroCodec } from './avro-codec.ts';
import { FrameReader } from './frame-reader.ts';
import type { PositionedRequest } from './requests.ts';
import type { RecordName, SchemaDirectory } from './schemas.ts';
import { isFramed } from './wire-format.ts';

export interface RecordDecoderOptions extends TimeBounds {
  readonly topics: Pick<KafkaConfig['topics'], 'userActions' | 'erasures' | 'candidateRequests'>;
  /** How values of `userActions` are written; those of the other topics tell by themselves. @default 'avro' */
  readonly valueFormat?: KafkaConfig['valueFormat'];
  /** How a record of `userActions` becomes an action. @default the fields of `UserAction` */
  readonly mapping?: RecordMapping | undefined;
  /** Largest record, bytes. @default 1 MiB */
  readonly maxRecordBytes?: number;
  /** Kind of the action that an erasure becomes. @default 'erase' */
  readonly erasureAction?: string;
  /** Where the schemas of Avro records come from. @default the fixed ids of our own schemas */
  readonly schemas?: SchemaDirectory;
}

export type DecodeRequestResult =
  | { readonly ok: true; readonly request: PositionedRequest }
  | Exclude<DecodeResult, { ok: true }>;

export interface RecordDecoder {
  /** A record of `userActions` or `erasures`. Never throws, whatever the record holds. */
  readonly decode: (record: SourceRecord) => DecodeResult;
  /** A record of `candidateRequests`. Never throws, whatever the record holds. */
  readonly decodeRequest: (record: SourceRecord) => DecodeRequestResult;
}

/**
 * Makes the decoder of a deployment's topics.
 *
 * - **userActions** as `valueFormat` and `mapping` say; in a registry's frame as the schema's type says, Avro, JSON or Protobuf; ids and times are held to the same bounds with a mapping or without
 * - **erasures** the key is the user's id; the value nothing, an Avro `Erasure` or its JSON. An action of kind
 *   `erasureAction` at the record's timestamp
 * - **candidateRequests** an Avro `CandidateRequest` or its JSON, of at most 10,000 entities and 10,000 denied, `topK` up to 1,000
 *
 * @throws PipelineError `CONFIG_INVALID` for a bad mapping, naming the key
 */
export function createRecordDecoder(options: RecordDecoderOptions): RecordDecoder {
  const { topics, valueFormat = 'avro', mapping, maxRecordBytes = DEFAULT_MAX_RECORD_BYTES, erasureAction = 'erase' } = options;
  const codec = new AvroCodec({ maxRecordBytes, ...(options.schemas === undefined ? {} : { schemas: options.schemas }) });
  const compiled = mapping === undefined ? compileUserAction(options) : compileMapping(mapping, options);

  /** Of a topic whose values tell by their first byte what they are. */
  const fieldsOf = (name: RecordName, value: SourceRecord['value']): Row | Fault =>
    isFramed(value) ? codec.decodeFields(name, value) : rowOf(value, maxRecordBytes);

  const decodeAction = avroOrJson(new FrameReader(options), codec, compiled, valueFormat, mapping !== undefined);
  const decodeErasure = erasureDecoder(fieldsOf, erasureAction, options);
  const requestOf = requestDecoder(fieldsOf, options);
  const decodeRequest = (record: SourceRecord): DecodeRequestResult =>
    record.fault === undefined ? requestOf(record) : refuse(new Fault(record.fault.code, record.fault.message));
  const decode = (record: SourceRecord): DecodeResult => {
    if (record.fault !== undefined) return refuse(new Fault(record.fault.code, record.fault.message));
    const { topic } = record.position;
    if (topic === topics.userActions) return decodeAction(record);
    if (topic === topics.erasures) return decodeErasure(record);
    return refuse(new Fault('RECORD_MALFORMED', `topic '${topic}' holds no actions`));
  };
  return { decode, decodeRequest };
}

function avroOrJson(
  frames: FrameReader,
  codec: AvroCodec,
  compiled: CompiledMapping,
  valueFormat: KafkaConfig['valueFormat'],
  mapped: boolean,
): (record: SourceRecord) => DecodeResult {
  return (record) => {
    const { value, position } = record;
    if (value === null && compiled.ignoresRest) return IGNORED;
    if (value === null) return refuse(new Fault('RECORD_MALFORMED', 'no value: only erasures are records without one'));
    // No JSON begins with the byte 0.
    if (valueFormat === 'json' && !isFramed(value)) return compiled.decode(record);
    const framed = isFramed(value) ? frames.rowOf(value, valueFormat) : undefined;
    if (framed !== undefined) return framed instanceof Fault ? refuse(framed) : compiled.decodeRow(framed, position);
    if (!(value instanceof Uint8Array)) return refuse(new Fault('RECORD_MALFORMED', `Avro is bytes, found a ${typeof value}`));
    const row = mapped ? codec.decodeRow(value) : codec.decodeFields('UserAction', value);
    return row instanceof Fault ? refuse(row) : compiled.decodeRow(row, position);
  };
}

type FieldsOf = (name: RecordName, value: SourceRecord['value']) => Row | Fault;

function erasureDecoder(fieldsOf: FieldsOf, action: string, bounds: TimeBounds): (record: SourceRecord) => DecodeResult {
  const readStamp = compileTime({ field: 'timestamp', unit: 'ms' }, bounds);
  const readRequested = compileTime({ field: 'requestedAtMs', unit: 'ms' }, bounds);
  const empty = (value: SourceRecord['value']) =>
    value === null || value === '' || (value instanceof Uint8Array && value.byteLength === 0);
  return ({ position, value, key, timestampMs }) => {
    const keyed = key === undefined || key === null || key.byteLength === 0 ? undefined : keyText(key);
    if (keyed instanceof Fault) return refuse(keyed);
    const row = empty(value) ? { userId: keyed } : fieldsOf('Erasure', value);
    if (row instanceof Fault) return refuse(row);
    const userId = readId(row, 'userId');
    if (userId instanceof Fault) return refuse(userId);
    // Of two users one would be erased in error.
    if (keyed !== undefined && keyed !== userId)
      return refuse(new Fault('FIELD_INVALID', `the key names user '${keyed}', the value user '${userId}'`));
    const eventTimeMs = timestampMs === undefined ? readRequested(row) : readStamp({ timestamp: timestampMs });
    if (eventTimeMs instanceof Fault) return refuse(eventTimeMs);
    return { ok: true, actions: [{ eventId: positionId(position), userId, action, entity: '', eventTimeMs, position }] };
  };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function keyText(key: Uint8Array): string | Fault {
  // Four bytes a character at most: no longer key is an id.
  if (key.byteLength > MAX_ID_LENGTH * 4) return new Fault('FIELD_INVALID', `a key of ${key.byteLength} bytes is no user's id`);
  try {
    return utf8.decode(key);
  } catch {
    return new Fault('FIELD_INVALID', `the key's ${key.byteLength} bytes are not UTF-8 text`);
  }
}

function requestDecoder(fieldsOf: FieldsOf, bounds: TimeBounds): (record: SourceRecord) => DecodeRequestResult {
  const readQueryTime = compileTime({ field: 'queryTimeMs', unit: 'ms' }, bounds);
  const readDeadline = compileNumber('deadlineMs');
  return ({ value, position }) => {
    const row = fieldsOf('CandidateRequest', value);
    if (row instanceof Fault) return refuse(row);
    const requestId = readId(row, 'requestId');
    if (requestId instanceof Fault) return refuse(requestId);
    const userId = readId(row, 'userId');
    if (userId instanceof Fault) return refuse(userId);
    const queryTimeMs = readQueryTime(row);
    if (queryTimeMs instanceof Fault) return refuse(queryTimeMs);
    const deadlineMs = readDeadline(row);
    if (deadlineMs instanceof Fault) return refuse(deadlineMs);
    const entities = readEntities(row, 'entities');
    if (entities instanceof Fault) return refuse(entities);
    const deny = isAbsent(row, 'deny') ? [] : readEntities(row, 'deny');
    if (deny instanceof Fault) return refuse(deny);
    const topK = readTopK(row);
    if (topK instanceof Fault) return refuse(topK);
    const filter = readFilter(row);
    if (filter instanceof Fault) return refuse(filter);
    return {
      ok: true,
      request: {
        requestId,
        userId,
        entities,
        queryTimeMs,
        position,
        ...(deadlineMs !== undefined && { deadlineMs }),
        ...(topK !== undefined && { topK }),
        ...(deny.length > 0 && { deny }),
        ...(filter !== undefined && { filter }),
      },
    };
  };
}

/** Candidates of one request: more would hold up everybody else's. */
const MAX_ENTITIES = 10_000;

/** Best entities that a request may ask for. */
const MAX_TOP_K = 1_000;

const readTopKNumber = compileNumber('topK');

function readTopK(row: Row): number | undefined | Fault {
  const topK = readTopKNumber(row);
  if (topK === undefined || topK instanceof Fault) return topK;
  return Number.isInteger(topK) && topK >= 1 && topK <= MAX_TOP_K
    ? topK
    : new Fault('FIELD_INVALID', `field 'topK' is ${topK}; allowed: 1 to ${MAX_TOP_K}`);
}

/** Text that is no JSON stays text, which is no filter. */
function jsonOf(text: string): unknown {
  try {
    return parseBoundedJson(text);
  } catch {
    return text;
  }
}

/** An object, or its JSON as Avro has it. */
function readFilter(row: Row): CatalogueFilter | undefined | Fault {
  if (isAbsent(row, 'filter')) return undefined;
  const given = typeof row['filter'] === 'string' ? jsonOf(row['filter']) : row['filter'];
  const parsed = catalogueFilterSchema.safeParse(given);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  return new Fault(
    'FIELD_INVALID',
    `field '${['filter', ...path].join('.')}': ${message}; allowed: {"field": value, [values], {"min", "max"} or {"not": value}}`,
  );
}

const isAbsent = (row: Row, field: string): boolean => !Object.hasOwn(row, field) || row[field] === null;

function readEntities(row: Row, field: 'entities' | 'deny'): readonly string[] | Fault {
  const given = Object.hasOwn(row, field) ? row[field] : undefined;
  if (given === undefined || given === null) return new Fault('FIELD_MISSING', `field '${field}' is missing`);
  if (!Array.isArray(given)) return new Fault('FIELD_INVALID', `field '${field}' must be an array, found a ${typeof given}`);
  if (given.length > MAX_ENTITIES)
    return new Fault('FIELD_INVALID', `field '${field}' has ${given.length} entries; ${MAX_ENTITIES} are allowed`);
  const entities: string[] = [];
  for (const entity of given) {
    const id = readId({ [field]: entity }, field);
    if (id instanceof Fault) return id;
    entities.push(id);
  }
  return entities;
}
