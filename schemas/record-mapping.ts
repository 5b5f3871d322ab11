/** Turns records of any shape into actions, as the configuration's `mapping` says: compiled once, then run per record. */
import type { PositionedAction, SourcePosition, SourceRecord } from './action.ts';
import type { RecordMapping } from './config.ts';
import type { ErrorCode } from './errors.ts';
import { compileTime, type TimeBounds } from './event-time.ts';
import { compileContext, compileNumber, compileTemplate, compileWholeContext, Fault, quote, type Row } from './record-fields.ts';

export interface RecordMappingOptions extends TimeBounds {
  /** Largest record given as text or bytes, bytes. @default 1 MiB */
  readonly maxRecordBytes?: number;
}

/** An action, or why there is none: a dead letter that does not yet know its step. */
export type DecodeResult =
  | { readonly ok: true; readonly action: PositionedAction }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface CompiledMapping {
  /** Never throws, whatever the record holds. */
  readonly decode: (record: SourceRecord) => DecodeResult;
  /** The same for a record that is parsed already. */
  readonly decodeRow: (row: Row, position: SourcePosition) => DecodeResult;
  /** Paths that it names, distinct. */
  readonly fields: readonly string[];
}

/** The fields of `UserAction` as they are. */
const USER_ACTION: RecordMapping = {
  eventId: '{eventId}',
  userId: '{userId}',
  action: '{action}',
  entity: '{entity}',
  value: 'value',
  eventTime: { field: 'eventTimeMs', unit: 'ms' },
};

/**
 * Compiles a mapping.
 *
 * Templates take strings, finite numbers and booleans. An integer beyond 2^53 is refused rather than rounded to another
 * user's id; so are a lone surrogate, which no store can hold, and an empty part. Event times are whole numbers of their
 * unit (microseconds are cut to milliseconds); ISO times without a zone are UTC.
 *
 * @throws PipelineError `CONFIG_INVALID` for a template with unbalanced or empty braces, naming the key.
 */
export function compileMapping(mapping: RecordMapping, options: RecordMappingOptions = {}): CompiledMapping {
  return compile(mapping, mapping.context === undefined ? undefined : compileContext(mapping.context), options);
}

/** Reads records whose fields are those of `UserAction`, under the same checks as a mapping. */
export function compileUserAction(options: RecordMappingOptions = {}): CompiledMapping {
  return compile(USER_ACTION, compileWholeContext('context'), options);
}

/**
 * The paths that a mapping names, with the key of the mapping that does.
 *
 * @throws PipelineError `CONFIG_INVALID` as `compileMapping`
 */
export function mappedPaths(mapping: RecordMapping): readonly { readonly key: string; readonly path: string }[] {
  const { eventTime, value, context = {} } = mapping;
  const ofTemplates = (['eventId', 'userId', 'action', 'entity'] as const).flatMap((key) => {
    const paths = new Set<string>();
    if (mapping[key] !== undefined) compileTemplate(key, mapping[key], paths);
    return [...paths].map((path) => ({ key, path }));
  });
  return [
    ...ofTemplates,
    ...(value === undefined ? [] : [{ key: 'value', path: value }]),
    { key: 'eventTime.field', path: eventTime.field },
    ...Object.entries(context).map(([name, path]) => ({ key: `context.${name}`, path })),
  ];
}

function compile(
  mapping: RecordMapping,
  readContext: ((row: Row) => Record<string, string> | undefined | Fault) | undefined,
  options: RecordMappingOptions,
): CompiledMapping {
  const { maxRecordBytes = DEFAULT_MAX_RECORD_BYTES } = options;
  const text = (key: string, source: string) => compileTemplate(key, source, new Set());
  const readEventId = mapping.eventId === undefined ? undefined : text('eventId', mapping.eventId);
  const readUser = text('userId', mapping.userId);
  const readKind = text('action', mapping.action);
  const readEntity = text('entity', mapping.entity);
  const readTime = compileTime(mapping.eventTime, options);
  const readValue = mapping.value === undefined ? undefined : compileNumber(mapping.value);

  const decodeRow = (row: Row, position: SourcePosition): DecodeResult => {
    const eventId = readEventId === undefined ? positionId(position) : readEventId(row);
    if (eventId instanceof Fault) return refuse(eventId);
    const userId = readUser(row);
    if (userId instanceof Fault) return refuse(userId);
    const action = readKind(row);
    if (action instanceof Fault) return refuse(action);
    const entity = readEntity(row);
    if (entity instanceof Fault) return refuse(entity);
    const eventTimeMs = readTime(row);
    if (eventTimeMs instanceof Fault) return refuse(eventTimeMs);
    const value = readValue?.(row);
    if (value instanceof Fault) return refuse(value);
    const context = readContext?.(row);
    if (context instanceof Fault) return refuse(context);
    if (context !== undefined)
      return {
        ok: true,
        action: { eventId, userId, action, entity, eventTimeMs, position, context, ...(value === undefined ? {} : { value }) },
      };
    if (value !== undefined) return { ok: true, action: { eventId, userId, action, entity, eventTimeMs, position, value } };
    return { ok: true, action: { eventId, userId, action, entity, eventTimeMs, position } };
  };
  const decode = (record: SourceRecord): DecodeResult => {
    const row = rowOf(record.value, maxRecordBytes);
    return row instanceof Fault ? refuse(row) : decodeRow(row, record.position);
  };
  return { decode, decodeRow, fields: [...new Set(mappedPaths(mapping).map(({ path }) => path))] };
}

/** The event id of a record that brings none. */
export const positionId = ({ topic, partition, offset }: SourcePosition): string => `${topic}/${partition}/${offset}`;

/** A fault as a result. */
export const refuse = ({ code, message }: Fault) => ({ ok: false, code, message }) as const;

// ---------------------------------------------------------------- the record as a row

/** What a record may take without a word of the configuration: 1 MiB. */
export const DEFAULT_MAX_RECORD_BYTES = 1_048_576;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** A record's value as an object with fields: text and bytes are JSON. */
export function rowOf(value: SourceRecord['value'], maxBytes: number): Row | Fault {
  if (typeof value === 'string') {
    // UTF-8 takes at most three bytes a UTF-16 unit: most records need no count.
    if (value.length * 3 > maxBytes) {
      const bytes = value.length > maxBytes ? value.length : Buffer.byteLength(value);
      if (bytes > maxBytes) return tooLarge(bytes, maxBytes);
    }
    return parseObject(value);
  }
  if (value instanceof Uint8Array) {
    if (value.byteLength > maxBytes) return tooLarge(value.byteLength, maxBytes);
    try {
      return parseObject(utf8.decode(value));
    } catch {
      return new Fault('RECORD_MALFORMED', `${value.byteLength} bytes are not UTF-8 text`);
    }
  }
  return isRow(value) ? value : notAnObject(value);
}

function parseObject(text: string): Row | Fault {
  try {
    const parsed: unknown = JSON.parse(text);
    return isRow(parsed) ? parsed : notAnObject(parsed);
  } catch {
    return new Fault('RECORD_MALFORMED', `not a JSON object: ${quote(text)}`);
  }
}

const isRow = (value: unknown): value is Row => typeof value === 'object' && value !== null && !Array.isArray(value);

const notAnObject = (value: unknown) =>
  new Fault(
    'RECORD_MALFORMED',
    `expected an object with fields, found ${value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`}`,
  );

/** The fault of a record over the limit. */
export const tooLarge = (bytes: number, maxBytes: number) =>
  new Fault('RECORD_TOO_LARGE', `at least ${bytes} bytes; maxRecordBytes allows ${maxBytes}`);
