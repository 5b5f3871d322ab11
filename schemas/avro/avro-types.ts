/**
 * Our schemas as avsc's types, with three of its own replaced: text, arrays of float, and longs where they are wide.
 *
 * They stand on avsc's inner protocol (`_read`, `_write`, `_update`), which its version here is pinned for.
 */
import avro, { type Schema, type Type } from 'avsc';
import { parseBoundedJson } from '../bounded-json.ts';
import { RECORD_NAMES, type RecordName, SCHEMA_TEXTS, type WriterSchema } from './schemas.ts';

/** What avsc reads from and writes to. */
interface Tap {
  readonly buf: Buffer;
  pos: number;
  readLong(): number;
  skipLong(): void;
  writeLong(value: number): void;
  writeFixed(bytes: Buffer, length: number): void;
}

interface Resolver {
  _read: unknown;
  itemsType: unknown;
}

/** Text that is read from text only: avsc would take a writer's bytes as well, and what is no UTF-8 in them for U+FFFD. */
class TextType extends avro.types.StringType {
  _update(resolver: Resolver, writer: Type & { readonly _read?: unknown }): void {
    if (writer.typeName === 'string') resolver._read = writer._read;
  }
}

/** `array<float>` as a `Float32Array`: its block is copied whole, as the wire's order is that of every machine we run on. */
class FloatsType extends avro.types.ArrayType {
  _write(tap: Tap, values: unknown): void {
    // The default of a field, as its schema has it.
    const floats = Array.isArray(values) && values.length === 0 ? new Float32Array(0) : values;
    if (!(floats instanceof Float32Array)) throw new TypeError('array<float> is written from a Float32Array');
    const { buffer, byteOffset, byteLength, length } = floats;
    if (length > 0) {
      tap.writeLong(length);
      tap.writeFixed(Buffer.from(buffer, byteOffset, byteLength), byteLength);
    }
    tap.writeLong(0);
  }

  _read(tap: Tap): Float32Array {
    let values = new Float32Array(0);
    for (let count = readCount(tap); count > 0; count = readCount(tap)) {
      const joined = new Float32Array(values.length + count);
      joined.set(values);
      const target = Buffer.from(joined.buffer, values.byteLength);
      tap.buf.copy(target, 0, tap.pos, tap.pos + target.length);
      tap.pos += target.length;
      values = joined;
    }
    return values;
  }

  /** Other numbers of a writer are read one by one, as a plain array. */
  _update(resolver: Resolver, writer: Type & { readonly itemsType?: Type }, options: object): void {
    if (writer.typeName !== 'array' || writer.itemsType === undefined) return;
    resolver.itemsType = this.itemsType.createResolver(writer.itemsType, options);
    const plain = avro.types.ArrayType.prototype as unknown as { readonly _read: unknown };
    resolver._read = writer.itemsType.typeName === 'float' ? this._read : plain._read;
  }
}

function readCount(tap: Tap): number {
  const count = tap.readLong();
  if (count >= 0) return count;
  tap.skipLong();
  return -count;
}

/** A long by way of 64 bits: avsc's own loses the sign of some below -2^52. Out of a number's reach it throws. */
const wideLong = avro.types.LongType.__with({
  fromBuffer: (bytes: Buffer): number => {
    const value = Number(bytes.readBigInt64LE());
    if (!Number.isSafeInteger(value)) throw new RangeError(`a long beyond ±2^53: ${bytes.readBigInt64LE()}`);
    return value;
  },
  toBuffer: (value: number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(value));
    return bytes;
  },
  fromJSON: (value: number): number => value,
  toJSON: (value: number): number => value,
  isValid: (value: unknown): boolean => Number.isSafeInteger(value),
  compare: (a: number, b: number): number => Math.sign(a - b),
});

const text = new TextType();

function typeOf(schema: unknown, long: Type | undefined): Type {
  return avro.Type.forSchema(schema as string, {
    typeHook: (inner, options) => {
      if (inner === 'string') return text;
      if (inner === 'long') return long;
      const { type, items } = inner as { readonly type?: unknown; readonly items?: unknown };
      return type === 'array' && items === 'float' ? new FloatsType(inner, options) : undefined;
    },
  });
}

const typesOf = (long: Type | undefined) =>
  Object.fromEntries(RECORD_NAMES.map((name) => [name, typeOf(JSON.parse(SCHEMA_TEXTS[name]), long)])) as Readonly<
    Record<RecordName, Type>
  >;

/** The types that we write, and read records into. */
export const RECORD_TYPES = typesOf(undefined);
/** The same, slower, for records that hold a long beyond ±2^52. */
export const WIDE_RECORD_TYPES = typesOf(wideLong);

/** Characters of a schema and of all that it refers to: time and memory for a type grow faster than its text. */
export const MAX_SCHEMA_CHARS = 262_144;

/**
 * A writer's schema as a type: it is only ever read through.
 *
 * @throws Error for what is no Avro schema, or larger or deeper than any is that people write
 */
export function writerType({ text, references = [], schemaType = 'AVRO' }: WriterSchema): Type {
  if (schemaType !== 'AVRO') throw new Error(`a schema of type ${schemaType}, not AVRO`);
  const chars = references.reduce((sum, reference) => sum + reference.length, text.length);
  if (chars > MAX_SCHEMA_CHARS)
    throw new RangeError(`${chars} characters with what it refers to; at most ${MAX_SCHEMA_CHARS} are read`);
  const registry = {};
  for (const reference of references) avro.Type.forSchema(parseBoundedJson(reference) as Schema, { registry });
  return avro.Type.forSchema(parseBoundedJson(text) as Schema, { registry });
}
