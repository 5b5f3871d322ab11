/** Events of files as records of `user-actions`: in the form that the deployment reads, and read back before they are sent. */
import { isDeepStrictEqual } from 'node:util';
import type { PositionedAction, SourceRecord } from '../schemas/action.ts';
import type { AvroCodec } from '../schemas/avro/avro-codec.ts';
import type { RecordDecoder } from '../schemas/avro/record-decoder.ts';
import { PipelineError } from '../schemas/errors.ts';
import type { DecodeResult } from '../schemas/record-mapping.ts';
import type { LiveConfig } from './require-kafka.ts';

export interface ProducedRecordParts {
  readonly config: LiveConfig;
  readonly codec: AvroCodec;
  /** Reads as the deployment does. */
  readonly decoder: RecordDecoder;
}

/**
 * The value of a record for `action`, which was decoded from `row` of a file.
 *
 * - **avro** a `UserAction`
 * - **json** without a mapping the action as JSON; with one the file's row itself, as JSON
 *
 * @throws PipelineError `CONFIG_INVALID` where the deployment would read another action, or none: the row, and what differs
 */
export function producedValue(
  row: SourceRecord,
  action: PositionedAction,
  { config, codec, decoder }: ProducedRecordParts,
): Buffer {
  const { valueFormat, mapping, topics } = config.kafka;
  const value =
    valueFormat === 'avro' ? codec.encode('UserAction', action) : Buffer.from(jsonOf(row, action, mapping !== undefined));
  const position = { topic: topics.userActions, partition: 0, offset: 0 };
  const keys = mapping === undefined || mapping.eventId !== undefined ? ALL_KEYS : ALL_KEYS.slice(1);
  const difference = differenceOf(action, decoder.decode({ position, value, key: null }), keys);
  if (difference === undefined) return value;
  const { topic, offset } = row.position;
  throw new PipelineError(
    'CONFIG_INVALID',
    `${topic}, row ${offset + 1}: \`run\` would not read from ${topics.userActions} what the file says: ${difference}. ` +
      `Make kafka.mapping and the mapping of the file agree${valueFormat === 'avro' && mapping !== undefined ? '; produce writes Avro as UserAction, whose fields kafka.mapping must name' : ''}`,
  );
}

function jsonOf({ value }: SourceRecord, { position: _, ...action }: PositionedAction, mapped: boolean): string {
  if (!mapped) return JSON.stringify(action);
  if (typeof value === 'string') return value;
  return value instanceof Uint8Array ? Buffer.from(value).toString() : JSON.stringify(value);
}

/** The first is the record's position where a mapping names none. */
const ALL_KEYS = ['eventId', 'userId', 'action', 'entity', 'eventTimeMs', 'value', 'context'] as const;

/** In words; undefined where they are the same. */
function differenceOf(
  wanted: PositionedAction,
  read: DecodeResult,
  keys: readonly (typeof ALL_KEYS)[number][],
): string | undefined {
  if (!read.ok) return `${read.code} ${read.message}`;
  for (const key of keys)
    if (!isDeepStrictEqual(wanted[key], read.action[key]))
      return `${key} is ${JSON.stringify(read.action[key])}, not ${JSON.stringify(wanted[key])}`;
  return undefined;
}
