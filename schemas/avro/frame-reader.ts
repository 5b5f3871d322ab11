/** Values in a registry's frame that are no Avro: JSON, and Protobuf, as the type of their schema says. */
import { messageOf } from '../errors.ts';
import { compileProtobuf, type ProtobufReader } from '../protobuf-rows.ts';
import { Fault, type Row } from '../record-fields.ts';
import { DEFAULT_MAX_RECORD_BYTES, rowOf, tooLarge } from '../record-row.ts';
import { fixedSchemas, type SchemaDirectory } from './schemas.ts';
import { HEADER_BYTES, readSchemaId } from './wire-format.ts';

export interface FrameReaderOptions {
  /** @default the fixed ids of our own schemas */
  readonly schemas?: SchemaDirectory;
  /** Largest record, bytes with its frame. @default 1 MiB */
  readonly maxRecordBytes?: number;
}

const TYPES = 'AVRO, JSON, PROTOBUF';
const BRACE = 0x7b;

export class FrameReader {
  readonly #schemas: SchemaDirectory;
  readonly #maxRecordBytes: number;
  /** An id never changes its schema. */
  readonly #protobuf = new Map<number, ProtobufReader | Fault>();

  constructor({ schemas = fixedSchemas, maxRecordBytes = DEFAULT_MAX_RECORD_BYTES }: FrameReaderOptions) {
    this.#schemas = schemas;
    this.#maxRecordBytes = maxRecordBytes;
  }

  /**
   * The value as a row; undefined for Avro, which is read elsewhere. Where JSON is expected and nobody knows the schema's id, an object
   * behind the frame is one. Never throws.
   */
  rowOf(value: Uint8Array, expected: 'avro' | 'json'): Row | Fault | undefined {
    const id = readSchemaId(value);
    if (id instanceof Fault) return id;
    const schema = this.#schemas.find(id);
    if (schema === undefined) return expected === 'json' && value[HEADER_BYTES] === BRACE ? this.#json(value) : undefined;
    switch (schema.schemaType ?? 'AVRO') {
      case 'AVRO':
        return undefined;
      case 'JSON':
        return this.#json(value);
      case 'PROTOBUF':
        return this.#message(value, id);
      default:
        return new Fault('SCHEMA_INCOMPATIBLE', `schema ${id} is of type ${schema.schemaType}; read are ${TYPES}`);
    }
  }

  #json = (value: Uint8Array): Row | Fault => rowOf(value.subarray(HEADER_BYTES), this.#maxRecordBytes);

  #message(value: Uint8Array, id: number): Row | Fault {
    if (value.byteLength > this.#maxRecordBytes) return tooLarge(value.byteLength, this.#maxRecordBytes);
    let reader = this.#protobuf.get(id);
    if (reader === undefined) {
      try {
        reader = compileProtobuf(this.#schemas.find(id)!);
      } catch (thrown) {
        reader = new Fault('SCHEMA_INCOMPATIBLE', `schema ${id} is no Protobuf that can be read: ${messageOf(thrown)}`);
      }
      this.#protobuf.set(id, reader);
    }
    return reader instanceof Fault ? reader : reader(value);
  }
}
