/** What a record of the entities topic says of the catalogue, whether it was written in Avro or in JSON. */
import type { SourceRecord } from '../action.ts';
import { type EntityReject, type EntityUpdate, parseEntityUpdate, toEntityUpdate } from '../catalogue.ts';
import { Fault } from '../record-fields.ts';
import { DEFAULT_MAX_RECORD_BYTES, tooLarge } from '../record-row.ts';
import { AvroCodec, type AvroCodecOptions } from './avro-codec.ts';
import { isFramed } from './wire-format.ts';

/** Why a record of the topic says nothing. */
export type EntityRecordReject = EntityReject | 'no-key' | 'undecodable' | 'other-key' | 'unknown-namespace';

export type EntityRecord =
  /** `update` absent: what was said of the entity is taken back. */
  | { readonly ok: true; readonly entity: string; readonly update?: EntityUpdate }
  /** `entity` is what the key names; absent where it names none. */
  | { readonly ok: false; readonly entity?: string; readonly reason: EntityRecordReject; readonly message: string };

/**
 * Makes the decoder of the entities topic: the key is the entity, the value nothing (what was said of it is taken back), an Avro
 * `Entity`, or the JSON object of a catalogue file's line. The decoder never throws, whatever the record holds.
 */
export function createEntityDecoder(options: AvroCodecOptions): (record: SourceRecord) => EntityRecord {
  const codec = new AvroCodec(options);
  const { maxRecordBytes = DEFAULT_MAX_RECORD_BYTES } = options;
  return ({ key, value }) => {
    const entity = keyText(key);
    if (entity === undefined)
      return { ok: false, reason: 'no-key', message: `a key of ${key?.byteLength ?? 0} bytes; must be the entity in UTF-8` };
    if (isEmpty(value)) return { ok: true, entity };
    const parsed = isFramed(value) ? ofAvro(codec, value) : ofJson(value, maxRecordBytes);
    if (!parsed.ok) return { ...parsed, entity };
    if (parsed.update.entity !== entity) {
      const message = `the key names '${entity}', the value '${parsed.update.entity}'`;
      return { ok: false, entity, reason: 'other-key', message };
    }
    return parsed.update.removed === true ? { ok: true, entity } : { ok: true, entity, update: parsed.update };
  };
}

const isEmpty = (value: SourceRecord['value']): value is null =>
  value === null || value === '' || (value instanceof Uint8Array && value.byteLength === 0);

type Parsed =
  | { readonly ok: true; readonly update: EntityUpdate }
  | { readonly ok: false; readonly reason: EntityRecordReject; readonly message: string };

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function keyText(key: SourceRecord['key']): string | undefined {
  if (key === undefined || key === null || key.byteLength === 0) return undefined;
  try {
    return utf8.decode(key);
  } catch {
    return undefined;
  }
}

function ofAvro(codec: AvroCodec, value: Uint8Array): Parsed {
  const decoded = codec.decode('Entity', value);
  if (decoded instanceof Fault) return undecodable(decoded);
  // By the rules of a file's line, but for the content, which need not become an array for it.
  const { content, ...fields } = decoded;
  const parsed = toEntityUpdate(fields);
  if (!parsed.ok || content === undefined) return parsed;
  const bad = content.findIndex((one) => !Number.isFinite(one));
  if (bad < 0) return { ok: true, update: { ...parsed.update, content } };
  const message = `content of '${decoded.entity}' holds ${content[bad]} at index ${bad}`;
  return { ok: false, reason: 'content-not-finite', message };
}

function ofJson(value: Exclude<SourceRecord['value'], null>, maxBytes: number): Parsed {
  if (!(value instanceof Uint8Array)) return typeof value === 'string' ? parseEntityUpdate(value) : toEntityUpdate(value);
  if (value.byteLength > maxBytes) return undecodable(tooLarge(value.byteLength, maxBytes));
  const text = textOf(value);
  return text === undefined
    ? undecodable({ message: 'neither Avro in the wire format nor JSON: not UTF-8 text' })
    : parseEntityUpdate(text);
}

function textOf(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

const undecodable = ({ message }: Pick<Fault, 'message'>): Parsed => ({ ok: false, reason: 'undecodable', message });
