/** Turns records of any shape into actions, as the configuration's `mapping` says: compiled once, then run per record. */
import type { PositionedAction, SourcePosition, SourceRecord } from './action.ts';
import { type Decoded, type DecodeResult, type InvalidValue, refuse } from './decoded.ts';
import { compileTime, type TimeBounds } from './event-time.ts';
import { entriesOf, type KindMapping, type RecordMapping } from './mapping-config.ts';
import { compileElements, decodeElements } from './record-elements.ts';
import {
  compileContext,
  compileNumber,
  compileTemplate,
  compileWholeContext,
  Fault,
  type OnInvalid,
  type Row,
} from './record-fields.ts';
import { compileCondition, unmapped } from './record-kinds.ts';
import { DEFAULT_MAX_RECORD_BYTES, rowOf } from './record-row.ts';

export interface RecordMappingOptions extends TimeBounds {
  /** Largest record given as text or bytes, bytes. @default 1 MiB */
  readonly maxRecordBytes?: number;
}

export interface CompiledMapping {
  /** Never throws, whatever the record holds. */
  readonly decode: (record: SourceRecord) => DecodeResult;
  /** The same for a record that is parsed already. */
  readonly decodeRow: (row: Row, position: SourcePosition) => DecodeResult;
  /** Paths that records of every kind need, distinct: of a mapping of one kind all that it names. */
  readonly fields: readonly string[];
  /** What no entry takes is ignored: records without a value too. */
  readonly ignoresRest: boolean;
}

/** The fields of `UserAction` as they are. */
const USER_ACTION: KindMapping = {
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
 * unit (microseconds are cut to milliseconds); ISO times without a zone are UTC. A value or a context that is not what it should
 * be costs itself, not the action.
 *
 * @throws PipelineError `CONFIG_INVALID` for a template with unbalanced or empty braces, naming the key.
 */
export function compileMapping(mapping: RecordMapping, options: RecordMappingOptions = {}): CompiledMapping {
  const entries = entriesOf(mapping).map((entry) => ({
    ...entry,
    takes: entry.when === undefined ? () => true : compileCondition(entry.when),
    decode: entry.mapping && compileKind(entry.mapping, entry.mapping.context && compileContext(entry.mapping.context), options),
  }));
  const only = entries.length === 1 ? entries[0]!.decode : undefined;
  if (entries[0]!.when === undefined && only !== undefined) return whole(only, mapping, options);
  const decode: KindDecoder = (row, position) => {
    for (const entry of entries) if (entry.takes(row)) return entry.decode === undefined ? IGNORED : entry.decode(row, position);
    return refuse(new Fault('ACTION_UNKNOWN', unmapped(entries, row)));
  };
  return whole(decode, mapping, options);
}

/** Reads records whose fields are those of `UserAction`, under the same checks as a mapping. */
export const compileUserAction = (options: RecordMappingOptions = {}): CompiledMapping =>
  whole(compileKind(USER_ACTION, compileWholeContext('context'), options), USER_ACTION, options);

export const IGNORED: Decoded = { ok: true, actions: [], ignored: true };

/**
 * The paths that a mapping names, with the key of the mapping that does.
 *
 * @throws PipelineError `CONFIG_INVALID` as `compileMapping`
 */
export function mappedPaths(mapping: RecordMapping): readonly { readonly key: string; readonly path: string }[] {
  const found = entriesOf(mapping).flatMap(({ when = {}, mapping: kind, at }) => {
    const named = (key: string, path: string) => ({ key: `${at === '' ? '' : `${at.slice(1)}.`}${key}`, path });
    return [...Object.keys(when).map((path) => named('when', path)), ...(kind === undefined ? [] : pathsOf(kind, named))];
  });
  // What an entry takes from the first is told of the first alone.
  const seen = new Set<string>();
  return found.filter(({ key, path }) => {
    const name = `${key.replace(/^\d+\./, '')} ${path}`;
    if (seen.has(name)) return false;
    seen.add(name);
    return true;
  });
}

/** Of `mappedPaths` those that every kind names: a file, or a schema, may hold some kinds only. */
export function neededPaths(mapping: RecordMapping): ReturnType<typeof mappedPaths> {
  const entries = entriesOf(mapping);
  const named = (key: string, path: string) => ({ key, path });
  const kinds = entries.flatMap(({ mapping: kind }) =>
    kind === undefined ? [] : [new Set(pathsOf(kind, named).map(({ path }) => path))],
  );
  const conditions = entries.map(({ when = {} }) => new Set(Object.keys(when)));
  const inAll = (path: string) => kinds.every((paths) => paths.has(path)) || conditions.every((paths) => paths.has(path));
  return mappedPaths(mapping).filter(({ path }) => entries.length === 1 || inAll(path));
}

function pathsOf(kind: KindMapping, named: (key: string, path: string) => { key: string; path: string }) {
  const { eventTime, value, context = {}, each } = kind;
  const fieldOf = (given: string | { readonly field: string }) => (typeof given === 'string' ? given : given.field);
  const ofTemplates = (['eventId', 'userId', 'action', 'entity'] as const).flatMap((key) => {
    const paths = new Set<string>();
    if (kind[key] !== undefined) compileTemplate(key, kind[key], paths);
    return [...paths].map((path) => named(key, path));
  });
  return [
    ...ofTemplates,
    ...(value === undefined ? [] : [named('value', fieldOf(value))]),
    named('eventTime.field', eventTime.field),
    ...Object.entries(context).map(([name, given]) => named(`context.${name}`, fieldOf(given))),
    ...(each === undefined ? [] : [named('each', each)]),
  ];
}

type KindDecoder = (row: Row, position: SourcePosition) => DecodeResult;

function whole(
  decodeRow: KindDecoder,
  mapping: RecordMapping,
  { maxRecordBytes = DEFAULT_MAX_RECORD_BYTES }: RecordMappingOptions,
) {
  const decode = (record: SourceRecord): DecodeResult => {
    const row = rowOf(record.value, maxRecordBytes);
    return row instanceof Fault ? refuse(row) : decodeRow(row, record.position);
  };
  const ignoresRest = entriesOf(mapping).some(({ when, mapping: kind }) => when === undefined && kind === undefined);
  return { decode, decodeRow, fields: [...new Set(neededPaths(mapping).map(({ path }) => path))], ignoresRest };
}

function compileKind(
  mapping: KindMapping,
  readContext: ((row: Row, onInvalid: OnInvalid) => Record<string, string> | undefined) | undefined,
  options: RecordMappingOptions,
): KindDecoder {
  const text = (key: string, source: string) => compileTemplate(key, source, new Set());
  const readEventId = mapping.eventId === undefined ? undefined : text('eventId', mapping.eventId);
  const readUser = text('userId', mapping.userId);
  const readKind = text('action', mapping.action);
  const readEntity = text('entity', mapping.entity);
  const readValue = mapping.value === undefined ? undefined : numberReader(mapping.value);

  // Decoding is synchronous: one record at a time.
  let invalid: InvalidValue[] | undefined;
  const onInvalid: OnInvalid = (field, message) => {
    invalid ??= [];
    invalid.push({ field, message });
  };
  const readTime = compileTime(mapping.eventTime, options, onInvalid);
  const actionOf = (row: Row, position: SourcePosition): PositionedAction | Fault => {
    const eventId = readEventId === undefined ? positionId(position) : readEventId(row);
    if (eventId instanceof Fault) return eventId;
    const userId = readUser(row);
    if (userId instanceof Fault) return userId;
    const action = readKind(row);
    if (action instanceof Fault) return action;
    const entity = readEntity(row);
    if (entity instanceof Fault) return entity;
    const eventTimeMs = readTime(row);
    if (eventTimeMs instanceof Fault) return eventTimeMs;
    let value = readValue?.(row);
    if (value instanceof Fault) {
      onInvalid('value', value.message);
      value = undefined;
    }
    const context = readContext?.(row, onInvalid);
    if (context !== undefined)
      return { eventId, userId, action, entity, eventTimeMs, position, context, ...(value === undefined ? {} : { value }) };
    return value === undefined
      ? { eventId, userId, action, entity, eventTimeMs, position }
      : { eventId, userId, action, entity, eventTimeMs, position, value };
  };
  const { each } = mapping;
  const elements = each === undefined ? undefined : compileElements(each, mapping);
  return (row, position) => {
    invalid = undefined;
    if (elements !== undefined) return decodeElements(elements, row, position, actionOf, () => invalid);
    const action = actionOf(row, position);
    if (action instanceof Fault) return refuse(action);
    return invalid === undefined ? { ok: true, actions: [action] } : { ok: true, actions: [action], invalid };
  };
}

function numberReader(given: NonNullable<KindMapping['value']>) {
  if (typeof given === 'string') return compileNumber(given);
  return compileNumber(given.field, { fallback: given.default, decimal: given.decimal });
}

/** The event id of a record that brings none. */
export const positionId = ({ topic, partition, offset }: SourcePosition): string => `${topic}/${partition}/${offset}`;
