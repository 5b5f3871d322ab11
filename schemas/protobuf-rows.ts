/** Records in Protobuf, in the wire format of a schema registry, as rows: by the schema that the registry has, nothing generated. */
import protobuf from 'protobufjs';
import type { WriterSchema } from './avro/schemas.ts';
import { HEADER_BYTES } from './avro/wire-format.ts';
import { messageOf } from './errors.ts';
import { Fault, type Row } from './record-fields.ts';

/** 64-bit numbers as exact texts, enumerations by name, bytes in base64; what proto3 leaves out because it is zero is there. */
const AS_ROW: protobuf.IConversionOptions = {
  longs: String,
  enums: String,
  bytes: String,
  defaults: true,
  arrays: true,
  objects: true,
};
/** Deepest message within messages that a record may name. */
const MAX_INDEXES = 16;
const KEEP_NAMES = { keepCase: true };

export type ProtobufReader = (bytes: Uint8Array) => Row | Fault;

/** @throws Error for a schema that is none */
export function compileProtobuf({ text, references = [] }: WriterSchema): ProtobufReader {
  const { root, package: name = '' } = protobuf.parse(text, KEEP_NAMES);
  const top = typesIn(name === '' ? root : (root.lookup(name) as protobuf.NamespaceBase));
  for (const reference of references) protobuf.parse(reference, root, KEEP_NAMES);
  // Google's own types, which files import and registries do not hold.
  for (const file of Object.keys(protobuf.common) as string[]) {
    const common = protobuf.common.get(file);
    if (text.includes(file) || references.some((one) => one.includes(file))) root.addJSON(common!.nested!);
  }
  root.resolveAll();
  return (bytes) => {
    const found = messageAt(top, bytes);
    if (found instanceof Fault) return found;
    try {
      const { type, body } = found;
      return type.toObject(type.decode(body), AS_ROW) as Row;
    } catch (thrown) {
      return new Fault('RECORD_MALFORMED', `no message ${found.type.name}: ${messageOf(thrown)}`);
    }
  };
}

const typesIn = (namespace: protobuf.NamespaceBase): readonly protobuf.Type[] =>
  namespace.nestedArray.filter((one): one is protobuf.Type => one instanceof protobuf.Type);

/** Behind the schema's id stands which message it is: a list of indexes, each among the messages of the one before; `0` alone is the first. */
function messageAt(
  top: readonly protobuf.Type[],
  bytes: Uint8Array,
): { readonly type: protobuf.Type; readonly body: Uint8Array } | Fault {
  const reader = protobuf.Reader.create(bytes.subarray(HEADER_BYTES));
  try {
    const count = reader.sint32();
    if (count < 0 || count > MAX_INDEXES)
      return new Fault('RECORD_MALFORMED', `${count} message indexes; 0 to ${MAX_INDEXES} are allowed`);
    const indexes = count === 0 ? [0] : Array.from({ length: count }, () => reader.sint32());
    let types = top;
    let type: protobuf.Type | undefined;
    for (const index of indexes) {
      type = types[index];
      if (type === undefined)
        return new Fault('RECORD_MALFORMED', `message indexes ${indexes.join(', ')}: the schema has no such message`);
      types = typesIn(type);
    }
    return { type: type!, body: bytes.subarray(HEADER_BYTES + reader.pos) };
  } catch (thrown) {
    return new Fault('RECORD_MALFORMED', `no message indexes behind the schema's id: ${messageOf(thrown)}`);
  }
}
