/** Reads the fields that a mapping names: ids put together from templates, numbers, context. Compiled once, never throwing. */
import { type ErrorCode, PipelineError } from './errors.ts';
import type { KindMapping } from './mapping-config.ts';

/** Longest id, characters. */
export const MAX_ID_LENGTH = 1_024;

export type Row = Readonly<Record<string, unknown>>;
type Reader = (row: Row) => unknown;
/** Either the text, or a fault; a fault is told apart by its class, so that the good path allocates nothing. */
export type TextReader = (row: Row) => string | Fault;

/** Why a field cannot be used. */
export class Fault {
  readonly code: ErrorCode;
  readonly message: string;

  constructor(code: ErrorCode, message: string) {
    this.code = code;
    this.message = message;
  }
}

/** Reads `a.b.c`: a field of that very name if there is one (flat rows), else step by step. Own fields only. */
export function compilePath(path: string): Reader {
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

export const missing = (path: string) => new Fault('FIELD_MISSING', `field '${path}' is missing`);

/** A value that becomes text inside an id: never empty. */
function textOf(value: unknown, path: string): string | Fault {
  if (typeof value === 'string') return value === '' ? new Fault('FIELD_INVALID', `field '${path}' is empty`) : value;
  if (typeof value === 'number') {
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))
      return new Fault('FIELD_INVALID', `field '${path}' is ${value}, which a number cannot hold exactly: write it as a string`);
    return String(value);
  }
  if (value === undefined || value === null) return missing(path);
  if (typeof value === 'boolean') return String(value);
  return new Fault(
    'FIELD_INVALID',
    `field '${path}' must be a string or a number, found ${Array.isArray(value) ? 'an array' : `a ${typeof value}`}`,
  );
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** Text of an id as it is, unless no store can hold it. */
export function checkText(key: string, id: string): string | Fault {
  if (id.length > MAX_ID_LENGTH)
    return new Fault('FIELD_INVALID', `${key} has ${id.length} characters; ${MAX_ID_LENGTH} are allowed`);
  if (LONE_SURROGATE.test(id))
    return new Fault('FIELD_INVALID', `${key} holds half a character (a lone surrogate): ${quote(id)}`);
  return id;
}

/** A required id, of one whole field. */
export function readId(row: Row, field: string): string | Fault {
  const id = textOf(Object.hasOwn(row, field) ? row[field] : undefined, field);
  return id instanceof Fault ? id : checkText(field, id);
}

export function compileTemplate(key: string, source: string, required: Set<string>): TextReader {
  const parts = parseTemplate(key, source);
  const readers = parts.map((part) => {
    if (part.path === undefined) return () => part.literal;
    required.add(part.path);
    const { path } = part;
    const read = compilePath(path);
    return (row: Row) => textOf(read(row), path);
  });
  const only = readers.length === 1 ? readers[0]! : undefined;
  if (only !== undefined)
    return (row) => {
      const part = only(row);
      return part instanceof Fault ? part : checkText(key, part);
    };
  return (row) => {
    let id = '';
    for (const reader of readers) {
      const part = reader(row);
      if (part instanceof Fault) return part;
      id += part;
    }
    return checkText(key, id);
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

/** Told of a part of a record that cannot be used and can be done without. */
export type OnInvalid = (field: string, message: string) => void;

type ContextField = NonNullable<KindMapping['context']>[string];

export function compileContext(
  context: Readonly<Record<string, ContextField>>,
): (row: Row, onInvalid: OnInvalid) => Record<string, string> {
  const readers = Object.entries(context).map(([name, given]) => ({ name, read: compileEntry(`context.${name}`, given) }));
  return (row, onInvalid) => {
    const entries: Record<string, string> = {};
    for (const { name, read } of readers) {
      const entry = read(row);
      if (entry instanceof Fault) onInvalid(`context.${name}`, entry.message);
      else if (entry !== undefined) entries[name] = entry;
    }
    return entries;
  };
}

/** Undefined: the record has none. */
function compileEntry(key: string, given: ContextField): (row: Row) => string | undefined | Fault {
  const {
    field,
    default: fallback,
    trim = false,
    lower = false,
    number = false,
  } = typeof given === 'string' ? { field: given } : given;
  const read = compilePath(field);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return fallback;
    let text = textOf(value, field);
    if (text instanceof Fault) return text;
    if (trim) text = text.trim();
    if (lower) text = text.toLowerCase();
    if (number) {
      const found = numberOf(text);
      if (!Number.isFinite(found)) return new Fault('FIELD_INVALID', `field '${field}' must be a number, found ${shown(value)}`);
      text = String(found);
    }
    return text === '' ? fallback : checkText(key, text);
  };
}

/** All entries of a field that is an object of texts: the context of a `UserAction` as it is. */
export function compileWholeContext(field: string): (row: Row, onInvalid: OnInvalid) => Record<string, string> | undefined {
  const read = compilePath(field);
  return (row, onInvalid) => {
    const given = read(row);
    if (given === undefined || given === null) return undefined;
    if (typeof given !== 'object' || Array.isArray(given)) {
      onInvalid(field, `field '${field}' must be an object of texts, found ${shown(given)}`);
      return undefined;
    }
    const entries: Record<string, string> = {};
    for (const name of Object.keys(given)) {
      const value = (given as Row)[name];
      if (value === undefined || value === null) continue;
      const text = value === '' ? '' : textOf(value, `${field}.${name}`);
      const entry = text instanceof Fault ? text : checkText(`${field}.${name}`, text);
      if (entry instanceof Fault) onInvalid(field, entry.message);
      else entries[name] = entry;
    }
    return entries;
  };
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** A finite number, given as one or as decimal text; else NaN. */
export function numberOf(value: unknown): number {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') return Number.NaN;
  const text = value.trim();
  return NUMBER.test(text) ? Number(text) : Number.NaN;
}

/** @param fallback of a row without one @param decimal what stands before the fraction of a number given as text */
export function compileNumber(
  path: string,
  { fallback, decimal = '.' }: { readonly fallback?: number | undefined; readonly decimal?: '.' | ',' } = {},
): (row: Row) => number | undefined | Fault {
  const read = compilePath(path);
  return (row) => {
    const value = read(row);
    if (value === undefined || value === null || value === '') return fallback;
    const number = numberOf(decimal === ',' && typeof value === 'string' ? value.replace(',', '.') : value);
    return Number.isFinite(number)
      ? number
      : new Fault('FIELD_INVALID', `field '${path}' must be a number, found ${shown(value)}`);
  };
}

export function shown(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return quote(value);
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}

/** Enough of a text to recognise it. */
export const quote = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
