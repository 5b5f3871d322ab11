/** A record's value as an object with fields. */
import type { SourceRecord } from './action.ts';
import { Fault, quote, type Row } from './record-fields.ts';
import { UnreadableRow } from './unreadable-row.ts';

/** What a record may take without a word of the configuration: 1 MiB. */
export const DEFAULT_MAX_RECORD_BYTES = 1_048_576;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** A record's value as an object with fields: text and bytes are JSON. */
export function rowOf(value: SourceRecord['value'], maxBytes: number): Row | Fault {
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
  if (value instanceof UnreadableRow) return new Fault('RECORD_MALFORMED', `${value.problem}: ${quote(value.text)}`);
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

export const isRow = (value: unknown): value is Row => typeof value === 'object' && value !== null && !Array.isArray(value);

const notAnObject = (value: unknown) =>
  new Fault(
    'RECORD_MALFORMED',
    `expected an object with fields, found ${value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`}`,
  );

/** The fault of a record over the limit. */
export const tooLarge = (bytes: number, maxBytes: number) =>
  new Fault('RECORD_TOO_LARGE', `at least ${bytes} bytes; maxRecordBytes allows ${maxBytes}`);
