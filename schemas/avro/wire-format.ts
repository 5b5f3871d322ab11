/** The Confluent wire format: a zero byte, the schema's id (4 bytes, big-endian), the Avro body. */
import type { SourceRecord } from '../action.ts';
import { Fault } from '../record-fields.ts';

/** Bytes before the body. */
export const HEADER_BYTES = 5;
const MAGIC = 0;

/** Writes the header at the start of `bytes`. */
export function writeHeader(bytes: Buffer, schemaId: number): void {
  bytes[0] = MAGIC;
  bytes.writeInt32BE(schemaId, 1);
}

/** Whether a value is in the wire format, rather than JSON or raw: JSON never starts with a zero byte. */
export const isFramed = (value: SourceRecord['value']): value is Uint8Array =>
  value instanceof Uint8Array && value.byteLength >= HEADER_BYTES && value[0] === MAGIC;

/** The id of the schema that a value was written with. */
export function readSchemaId(bytes: Uint8Array): number | Fault {
  if (bytes.byteLength < HEADER_BYTES)
    return new Fault(
      'RECORD_MALFORMED',
      `${bytes.byteLength} bytes are too few for a schema id: is this Avro in the wire format?`,
    );
  if (bytes[0] !== MAGIC)
    return new Fault('RECORD_MALFORMED', `begins with byte ${bytes[0]}, not with 0: is this Avro in the wire format?`);
  return (bytes[1]! << 24) | (bytes[2]! << 16) | (bytes[3]! << 8) | bytes[4]!;
}

/** Every schema id that a batch mentions, for `ensure` of the registry before the batch is decoded. */
export function schemaIdsOf(records: readonly SourceRecord[]): Set<number> {
  const ids = new Set<number>();
  for (const { value } of records) {
    if (!isFramed(value)) continue;
    const id = readSchemaId(value);
    if (typeof id === 'number') ids.add(id);
  }
  return ids;
}
