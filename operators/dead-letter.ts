/** A record that a step gave up on, with what is needed to try it again. */
import type { DeadLetter, SourceRecord } from '../schemas/action.ts';
import type { ErrorCode } from '../schemas/errors.ts';
import { UnreadableRow } from '../schemas/unreadable-row.ts';

/** The dead letter of `record`: bytes and text as they came, a parsed row as JSON. */
export function deadLetter(record: SourceRecord, step: string, code: ErrorCode, message: string): DeadLetter {
  const { position, key } = record;
  const original = originalOf(record.value);
  return { position, code, step, message, original, ...(key !== undefined && { originalKey: key }) };
}

function originalOf(value: SourceRecord['value']): DeadLetter['original'] {
  if (value instanceof UnreadableRow) return value.text;
  if (value === null || typeof value === 'string' || value instanceof Uint8Array) return value;
  try {
    return JSON.stringify(value, (_key, field: unknown) => (typeof field === 'bigint' ? String(field) : field));
  } catch {
    // A row that refers to itself: no reason to stop the stream.
    return String(value);
  }
}
