/** Records of ours to Avro bytes and back, and anybody's Avro bytes to rows: synchronous, and safe whatever the bytes. */
import type { Type } from 'avsc';
import { messageOf } from '../errors.ts';
import { Fault, type Row } from '../record-fields.ts';
import { DEFAULT_MAX_RECORD_BYTES, tooLarge } from '../record-row.ts';
import { RECORD_TYPES, WIDE_RECORD_TYPES, writerType } from './avro-types.ts';
import { Cursor } from './cursor.ts';
import { type RecordTypes, SHAPES } from './record-shapes.ts';
import { compileRowReader } from './row-reader.ts';
import { fixedSchemas, type RecordName, type SchemaDirectory } from './schemas.ts';
import { compileWalk, type Walk } from './walk.ts';
import { HEADER_BYTES, readSchemaId, writeHeader } from './wire-format.ts';

export interface AvroCodecOptions {
  /** Where ids and schemas come from. @default the fixed ids of our own schemas */
  readonly schemas?: SchemaDirectory;
  /** Largest record that is decoded, bytes with its header. @default 1 MiB */
  readonly maxRecordBytes?: number;
}

type Resolver = ReturnType<Type['createResolver']>;

/** All that is compiled for one schema id. */
interface Writer {
  readonly id: number;
  readonly type: Type;
  readonly walk: Walk;
  /** How its records are read as ours; made when first needed. */
  readonly resolvers: Map<Type, Resolver | Fault>;
  readonly readRow: ReturnType<typeof compileRowReader>;
}

export class AvroCodec {
  readonly #schemas: SchemaDirectory;
  readonly #maxRecordBytes: number;
  readonly #writers = new Map<number, Writer | Fault>();
  readonly #cursor = new Cursor();
  #scratch = Buffer.allocUnsafeSlow(1_024);

  constructor({ schemas = fixedSchemas, maxRecordBytes = DEFAULT_MAX_RECORD_BYTES }: AvroCodecOptions = {}) {
    this.#schemas = schemas;
    this.#maxRecordBytes = maxRecordBytes;
  }

  /**
   * The wire format of a record, in memory of its own.
   *
   * @throws Error for a value that is not of its type: a fault of the caller's
   */
  encode<N extends RecordName>(name: N, value: RecordTypes[N]): Buffer {
    const fields = SHAPES[name].toFields(value);
    const type = RECORD_TYPES[name];
    let end = type.encode(fields, this.#scratch, HEADER_BYTES);
    if (end < 0) {
      // What does not fit says how much it lacks.
      this.#scratch = Buffer.allocUnsafeSlow((this.#scratch.length - end) * 2);
      end = type.encode(fields, this.#scratch, HEADER_BYTES);
    }
    writeHeader(this.#scratch, this.#schemas.idOf(name));
    return Buffer.from(this.#scratch.subarray(0, end));
  }

  /**
   * A record of ours, whichever version of its schema wrote it. Never throws.
   *
   * @returns the record, or the fault: `RECORD_TOO_LARGE`, `RECORD_MALFORMED`, `SCHEMA_UNKNOWN` (no such id),
   *   `SCHEMA_INCOMPATIBLE` (an id whose records are no such records), `FIELD_INVALID` (a whole number beyond ±2^53)
   */
  decode<N extends RecordName>(name: N, bytes: Uint8Array): RecordTypes[N] | Fault {
    const fields = this.decodeFields(name, bytes);
    if (fields instanceof Fault) return fields;
    try {
      return SHAPES[name].fromFields(fields as never);
    } catch (thrown) {
      return new Fault('RECORD_MALFORMED', `not a ${name}: ${messageOf(thrown)}`);
    }
  }

  /** The fields of a record of ours as they lie in Avro: absent ones are null. Faults as with `decode`. */
  decodeFields(name: RecordName, bytes: Uint8Array): Row | Fault {
    const writer = this.#check(bytes);
    if (writer instanceof Fault) return writer;
    const { wide, bytes: buffer } = this.#cursor;
    const type = wide ? WIDE_RECORD_TYPES[name] : RECORD_TYPES[name];
    const resolver = writer.resolvers.get(type) ?? resolve(writer, type);
    if (resolver instanceof Fault) return resolver;
    try {
      const { value, offset } = type.decode(buffer, HEADER_BYTES, resolver);
      return offset === buffer.length ? value : new Fault('RECORD_MALFORMED', `read to byte ${offset} of ${buffer.length}`);
    } catch (thrown) {
      return new Fault(wide ? 'FIELD_INVALID' : 'RECORD_MALFORMED', messageOf(thrown));
    }
  }

  /**
   * A record of any schema, as a plain row. Never throws; longs beyond 2^53 are decimal text. Faults as with `decode`, and
   * `RECORD_MALFORMED` for a schema that is no record.
   */
  decodeRow(bytes: Uint8Array): Row | Fault {
    const writer = this.#check(bytes);
    if (writer instanceof Fault) return writer;
    const cursor = this.#cursor;
    cursor.pos = HEADER_BYTES;
    const row = writer.readRow(cursor);
    return typeof row === 'object' && row !== null && !Array.isArray(row) && !Buffer.isBuffer(row)
      ? (row as Row)
      : new Fault('RECORD_MALFORMED', `schema ${writer.id} is ${writer.type.typeName}, not a record with fields`);
  }

  /** Finds the writer's schema and walks over the bytes by it: what it gives back can be decoded. */
  #check(bytes: Uint8Array): Writer | Fault {
    if (bytes.byteLength > this.#maxRecordBytes) return tooLarge(bytes.byteLength, this.#maxRecordBytes);
    const id = readSchemaId(bytes);
    if (id instanceof Fault) return id;
    const writer = this.#writers.get(id) ?? this.#open(id);
    if (writer instanceof Fault) return writer;
    const cursor = this.#cursor;
    cursor.reset(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), HEADER_BYTES);
    if (!writer.walk(cursor))
      return new Fault('RECORD_MALFORMED', `not a value of schema ${id}: ${cursor.problem}; stopped at byte ${cursor.pos}`);
    if (cursor.pos !== cursor.end)
      return new Fault('RECORD_MALFORMED', `not a value of schema ${id}: ${cursor.end - cursor.pos} bytes after its end`);
    return writer;
  }

  #open(id: number): Writer | Fault {
    const schema = this.#schemas.find(id);
    // Not remembered: a registry may come to know the id.
    if (schema === undefined) return new Fault('SCHEMA_UNKNOWN', `no schema of id ${id} is known`);
    let writer: Writer | Fault;
    try {
      const type = writerType(schema);
      writer = { id, type, walk: compileWalk(type), resolvers: new Map(), readRow: compileRowReader(type) };
    } catch (thrown) {
      writer = new Fault('SCHEMA_INCOMPATIBLE', `schema ${id} cannot be read: ${messageOf(thrown)}`);
    }
    this.#writers.set(id, writer);
    return writer;
  }
}

function resolve(writer: Writer, type: Type): Resolver | Fault {
  let resolver: Resolver | Fault;
  try {
    // Names may differ in their namespace: whoever writes our records may have them in one of their own.
    resolver = type.createResolver(writer.type, { ignoreNamespaces: true });
  } catch (thrown) {
    resolver = new Fault(
      'SCHEMA_INCOMPATIBLE',
      `schema ${writer.id} (${writer.type.name ?? writer.type.typeName}) is not read as ${type.name}: ${messageOf(thrown)}`,
    );
  }
  writer.resolvers.set(type, resolver);
  return resolver;
}
