/** Turns records of any shape into actions, as the configuration's `mapping` says: compiled once, then run per record. */
import type { PositionedAction, SourcePosition, SourceRecord } from './action.ts';
import type { RecordMapping } from './config.ts';
import { type ErrorCode, PipelineError } from './errors.ts';

export interface RecordMappingOptions {
  /** Largest record given as text or bytes, bytes. @default 1 MiB */
  readonly maxRecordBytes?: number;
  /** Earliest credible event time, ms since the epoch. @default 0 */
  readonly minMs?: number;
  /** How far ahead of `now` an event may lie, ms. @default one day */
  readonly maxFutureMs?: number;
  /** The clock, ms since the epoch. @default Date.now */
  readonly now?: () => number;
}

/** An action, or why there is none: a dead letter that does not yet know its step. */
export type DecodeResult =
  | { readonly ok: true; readonly action: PositionedAction }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface CompiledMapping {
  /** Never throws, whatever the record holds. */
  readonly decode: (record: SourceRecord) => DecodeResult;
  /** Paths that every record must have, distinct. */
  readonly requiredFields: readonly string[];
}

/** Longest id, characters. */
export const MAX_ID_LENGTH = 1_024;

/** The last millisecond that the stores can hold (2286-11-20). */
const MAX_TIME_MS = 9_999_999_999_999;

type Row = Readonly<Record<string, unknown>>;
type Reader = (row: Row) => unknown;
/** Either the text, or a fault; a fault is told apart by its class, so that the good path allocates nothing. */
type TextReader = (row: Row) => string | Fault;

/** Why a field cannot be used. */
class Fault {
  readonly code: ErrorCode;
  readonly message: string;

  constructor(code: ErrorCode, message: string) {
    this.code = code;
    this.message = message;
  }
}

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
  const { maxRecordBytes = 1_048_576, minMs = 0, maxFutureMs = 86_400_000, now = Date.now } = options;
  const required = new Set<string>([mapping.eventTime.field]);
  const text = (key: string, source: string) => compileTemplate(key, source, required);
  const readEventId = mapping.eventId === undefined ? undefined : text('eventId', mapping.eventId);
  const readUser = text('userId', mapping.userId);
  const readKind = text('action', mapping.action);
  const readEntity = text('entity', mapping.entity);
  const readTime = compileTime(mapping.eventTime, minMs, maxFutureMs, now);
  const readValue = mapping.value === undefined ? undefined : compileNumber(mapping.value);
  const readContext = mapping.context === undefined ? undefined : compileContext(mapping.context);

  const decode = (record: SourceRecord): DecodeResult => {
    const row = rowOf(record.value, maxRecordBytes);
    if (row instanceof Fault) return refuse(row);
    const eventId = readEventId === undefined ? positionId(record.position) : readEventId(row);
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
    const position = record.position;
    if (context !== undefined)
      return {
        ok: true,
        action: { eventId, userId, action, entity, eventTimeMs, position, context, ...(value === undefined ? {} : { value }) },
      };
    if (value !== undefined) return { ok: true, action: { eventId, userId, action, entity, eventTimeMs, position, value } };
    return { ok: true, action: { eventId, userId, action, entity, eventTimeMs, position } };
  };
  return { decode, requiredFields: [...required] };
}

/** The event id of a record that brings none. */
export const positionId = ({ topic, partition, offset }: SourcePosition): string => `${topic}/${partition}/${offset}`;

const refuse = ({ code, message }: Fault): DecodeResult => ({ ok: false, code, message });

// ---------------------------------------------------------------- the record as a row

const utf8 = new TextDecoder('utf-8', { fatal: true });

function rowOf(value: SourceRecord['value'], maxBytes: number): Row | Fault {
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

const tooLarge = (bytes: number, maxBytes: number) =>
  new Fault('RECORD_TOO_LARGE', `at least ${bytes} bytes; source.maxRecordBytes allows ${maxBytes}`);

/** Enough of a text to recognise it. */
const quote = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);

// ---------------------------------------------------------------- fields

/** Reads `a.b.c`: a field of that very name if there is one (flat rows), else step by step. Own fields only. */
function compilePath(path: string): Reader {
  if (!path.includes('.')) return (row) => (Object.hasOwn(row, path) ? row[path] : undefined);
  const steps = path.split('.');
  return (row) => {
    if (Object.hasOwn(row, path)) return row[path];
    let value: unknown = row;
    for (const step of steps) {
      if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
      value = (value as Row)[step];
    }
    return value;
  };
}

const missing = (path: string) => new Fault('FIELD_MISSING', `field '${path}' is missing`);

/** A field that becomes text inside an id: never empty. */
function compileText(path: string): TextReader {
  const read = compilePath(path);
  return (row) => {
    const value = read(row);
    if (typeof value === 'string') return value === '' ? new Fault('FIELD_INVALID', `field '${path}' is empty`) : value;
    if (typeof value === 'number') {
      if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))
        return new Fault(
          'FIELD_INVALID',
          `field '${path}' is ${value}, which a number cannot hold exactly: write it as a string`,
        );
      return String(value);
    }
    if (value === undefined || value === null) return missing(path);
    if (typeof value === 'boolean') return String(value);
    return new Fault(
      'FIELD_INVALID',
      `field '${path}' must be a string or a number, found ${Array.isArray(value) ? 'an array' : `a ${typeof value}`}`,
    );
  };
}

const LONE_SURROGATE = /\p{Surrogate}/u;

function compileTemplate(key: string, source: string, required: Set<string>): TextReader {
  const parts = parseTemplate(key, source);
  const readers = parts.map((part) => {
    if (part.path === undefined) return () => part.literal;
    required.add(part.path);
    return compileText(part.path);
  });
  const only = readers.length === 1 ? readers[0]! : undefined;
  const checked = (id: string): string | Fault => {
    if (id.length > MAX_ID_LENGTH)
      return new Fault('FIELD_INVALID', `${key} has ${id.length} characters; ${MAX_ID_LENGTH} are allowed`);
    if (LONE_SURROGATE.test(id))
      return new Fault('FIELD_INVALID', `${key} holds half a character (a lone surrogate): ${quote(id)}`);
    return id;
  };
  if (only !== undefined)
    return (row) => {
      const part = only(row);
      return part instanceof Fault ? part : checked(part);
    };
  return (row) => {
    let id = '';
    for (const reader of readers) {
      const part = reader(row);
      if (part instanceof Fault) return part;
      id += part;
    }
    return checked(id);
  };
}

type TemplatePart = { readonly literal: string; readonly path?: undefined } | { readonly path: string };

function parseTemplate(key: string, source: string): TemplatePart[] {
  const invalid = (problem: string) =>
    new PipelineError('CONFIG_INVALID', `mapping.${key} '${source}' ${problem}; write text with {path.to.field} parts`);
  const parts: TemplatePart[] = [];
  let at = 0;
  while (at < source.length) {
    const open = source.indexOf('{', at);
    const literal = source.slice(at, open < 0 ? source.length : open);
    if (literal.includes('}')) throw invalid("has a '}' without its '{'");
    if (literal !== '') parts.push({ literal });
    if (open < 0) break;
    const close = source.indexOf('}', open);
    if (close < 0) throw invalid("has a '{' without its '}'");
    const path = source.slice(open + 1, close);
    if (path.includes('{')) throw invalid("has a '{' inside braces");
    if (path.split('.').some((step) => step.trim() === '')) throw invalid(`has an empty path '{${path}}'`);
    parts.push({ path });
    at = close + 1;
  }
  if (parts.length === 0) throw invalid('is empty');
  return parts;
}

function compileContext(context: Readonly<Record<string, string>>): (row: Row) => Record<string, string> | Fault {
  const readers = Object.entries(context).map(([name, path]) => {
    const read = compilePath(path);
    return { name, read, text: compileTemplate(`context.${name}`, `{${path}}`, new Set()) };
  });
  return (row) => {
    const entries: Record<string, string> = {};
    for (const { name, read, text } of readers) {
      const value = read(row);
      if (value === undefined || value === null || value === '') continue;
      const entry = text(row);
      if (entry instanceof Fault) return entry;
      entries[name] = entry;
    }
    return entries;
  };
}

// ---------------------------------------------------------------- numbers and times

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** A finite number, given as one or as decimal text; else NaN. */
function numberOf(value: unknown): number {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') return Number.NaN;
  const text = value.trim();
  return NUMBER.test(text) ? Number(text) : Number.NaN;
}

function compileNumber(path: string): (row: Row) => number | undefined | Fault {
  const read = compilePath(path);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return undefined;
    const number = numberOf(value);
    return Number.isFinite(number)
      ? number
      : new Fault('FIELD_INVALID', `field '${path}' must be a number, found ${shown(value)}`);
  };
}

function compileTime(
  { field, unit }: RecordMapping['eventTime'],
  minMs: number,
  maxFutureMs: number,
  now: () => number,
): (row: Row) => number | Fault {
  const read = compilePath(field);
  const invalid = (problem: string) => new Fault('TIME_INVALID', `field '${field}' ${problem}`);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return missing(field);
    let ms: number;
    if (unit === 'iso') {
      ms = typeof value === 'string' ? isoMs(value) : Number.NaN;
      if (Number.isNaN(ms)) return invalid(`must be an ISO 8601 time, found ${shown(value)}`);
    } else {
      const number = numberOf(value);
      if (!Number.isInteger(number)) return invalid(`must be a whole number of ${unit}, found ${shown(value)}`);
      ms = unit === 'ms' ? number : unit === 's' ? number * 1_000 : Math.floor(number / 1_000);
    }
    if (ms < minMs) return invalid(`is ${shown(value)}, before time.minMs (${minMs})`);
    if (ms > MAX_TIME_MS) return invalid(`is ${shown(value)} ${unit}, later than any time we can hold: is the unit right?`);
    const clock = now();
    if (ms > clock + maxFutureMs)
      return invalid(`is ${shown(value)}, ${ms - clock} ms ahead of the clock; time.maxFutureMs allows ${maxFutureMs}`);
    return ms;
  };
}

const ISO = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?)?$/;

/** ISO 8601 to ms, without the engine's leniency (a 30th of February is no date) and without the machine's time zone. */
function isoMs(text: string): number {
  const match = ISO.exec(text.trim());
  if (match === null) return Number.NaN;
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', zone = 'Z'] = match;
  const midnight = Date.UTC(Number(year), Number(month) - 1, Number(day));
  const date = new Date(midnight);
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return Number.NaN;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return Number.NaN;
  const sinceMidnight =
    Number(hour) * 3_600_000 + Number(minute) * 60_000 + Number(second) * 1_000 + Number(fraction.slice(0, 3).padEnd(3, '0'));
  return midnight + sinceMidnight - zoneMs(zone);
}

function zoneMs(zone: string): number {
  if (zone === 'Z' || zone === 'z') return 0;
  const digits = zone.slice(1).replace(':', '').padEnd(4, '0');
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2));
  return (zone[0] === '-' ? -minutes : minutes) * 60_000;
}

function shown(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return quote(value);
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}
