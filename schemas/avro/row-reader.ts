/**
 * Reads a record of any schema as a plain row for the configuration's `mapping`, once the walk has accepted its bytes.
 *
 * Unlike the library's reader, a union's value is the value itself whatever the branches, and a long beyond 2^53 is decimal
 * text: a template makes an id of it without loss.
 */
import type { Type, types } from 'avsc';
import type { Cursor } from './cursor.ts';

type Reader = (cursor: Cursor) => unknown;

/**
 * Compiles the reader of a schema. Its values: objects, arrays, strings (enums too), numbers, booleans, null, and bytes as
 * `Buffer`s over the record's own memory.
 *
 * @throws Error for a field that no object can have as its own
 */
export function compileRowReader(type: Type): Reader {
  const known = new Map<Type, { read: Reader }>();
  const compile = (inner: Type): Reader => {
    const entry = known.get(inner);
    if (entry !== undefined) return (cursor) => entry.read(cursor);
    const fresh: { read: Reader } = { read: () => undefined };
    known.set(inner, fresh);
    fresh.read = readerOf(inner, compile);
    return fresh.read;
  };
  return compile(type);
}

function readerOf(type: Type, compile: (type: Type) => Reader): Reader {
  switch (type.typeName) {
    case 'null':
      return () => null;
    case 'boolean':
      return (cursor) => cursor.bytes[cursor.pos++] === 1;
    case 'int':
      return (cursor) => cursor.readLong();
    case 'long':
      return (cursor) => (cursor.wide ? readWideLong(cursor) : cursor.readLong());
    case 'float':
      return (cursor) => cursor.bytes.readFloatLE(cursor.take(4));
    case 'double':
      return (cursor) => cursor.bytes.readDoubleLE(cursor.take(8));
    case 'fixed': {
      const { size } = type as types.FixedType;
      return (cursor) => takeBytes(cursor, size);
    }
    case 'bytes':
      return (cursor) => takeBytes(cursor, cursor.readLong());
    case 'string':
      return readText;
    case 'enum': {
      const { symbols } = type as types.EnumType;
      return (cursor) => symbols[cursor.readLong()];
    }
    case 'union:wrapped':
    case 'union:unwrapped': {
      const branches = (type as types.UnwrappedUnionType).types.map(compile);
      return (cursor) => branches[cursor.readLong()]!(cursor);
    }
    case 'array': {
      const item = compile((type as types.ArrayType).itemsType);
      return (cursor) => {
        const items: unknown[] = [];
        for (let count = readCount(cursor); count > 0; count = readCount(cursor))
          for (let n = 0; n < count; n++) items.push(item(cursor));
        return items;
      };
    }
    case 'map': {
      const value = compile((type as { valuesType: Type } & Type).valuesType);
      return (cursor) => {
        const entries: Record<string, unknown> = Object.create(null);
        for (let count = readCount(cursor); count > 0; count = readCount(cursor))
          for (let n = 0; n < count; n++) entries[readText(cursor)] = value(cursor);
        return entries;
      };
    }
    case 'record':
    case 'error':
      return readFields((type as types.RecordType).fields, compile);
    default:
      throw new Error(`${type.typeName} is no type of ours`);
  }
}

function readFields(fields: readonly types.Field[], compile: (type: Type) => Reader): Reader {
  const names = fields.map(({ name }) => name);
  if (names.includes('__proto__')) throw new Error("a field named '__proto__'");
  const readers = fields.map((field) => compile(field.type));
  return (cursor) => {
    const row: Record<string, unknown> = {};
    for (let field = 0; field < names.length; field++) row[names[field]!] = readers[field]!(cursor);
    return row;
  };
}

function readText(cursor: Cursor): string {
  const length = cursor.readLong();
  const start = cursor.take(length);
  return cursor.bytes.toString('utf8', start, cursor.pos);
}

function takeBytes(cursor: Cursor, length: number): Buffer {
  const start = cursor.take(length);
  return cursor.bytes.subarray(start, cursor.pos);
}

function readCount(cursor: Cursor): number {
  const count = cursor.readLong();
  if (count >= 0) return count;
  cursor.readLong();
  return -count;
}

/** A number where it is exact, else decimal text. */
function readWideLong(cursor: Cursor): number | string {
  let zigzag = 0n;
  let byte: number;
  let shift = 0n;
  do {
    byte = cursor.bytes[cursor.pos++]!;
    zigzag |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
  } while (byte >= 0x80);
  const value = (zigzag >> 1n) ^ -(zigzag & 1n);
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value);
}
