/** Events of files as records of `user-actions`: in the form that the deployment reads, and read back before they are sent. */
import { isDeepStrictEqual } from 'node:util';
import type { PositionedAction, SourceRecord } from '../schemas/action.ts';
import type { AvroCodec } from '../schemas/avro/avro-codec.ts';
import type { RecordDecoder } from '../schemas/avro/record-decoder.ts';
import type { DecodeResult } from '../schemas/decoded.ts';
import { PipelineError } from '../schemas/errors.ts';
import { entriesOf } from '../schemas/mapping-config.ts';
import type { LiveConfig } from './require-kafka.ts';

export interface ProducedRecordParts {
  readonly config: LiveConfig;
  readonly codec: AvroCodec;
  /** Reads as the deployment does. */
  readonly decoder: RecordDecoder;
}

/**
 * The values of the records for `actions`, which were decoded from `row` of a file.
 *
 * - **avro** a `UserAction` each
 * - **json** without a mapping each action as JSON; with one the file's row itself, once, as JSON
 *
 * @throws PipelineError `CONFIG_INVALID` where the deployment would read other actions, or none: the row, and what differs
 */
export function producedValues(
  row: SourceRecord,
  actions: readonly PositionedAction[],
  { config, codec, decoder }: ProducedRecordParts,
): readonly Buffer[] {
  const { valueFormat, mapping, topics } = config.kafka;
  const keys =
    mapping === undefined || entriesOf(mapping).every(({ mapping: kind }) => kind?.eventId !== undefined)
      ? ALL_KEYS
      : ALL_KEYS.slice(1);
  const checked = (value: Buffer, wanted: readonly PositionedAction[]): Buffer => {
    const position = { topic: topics.userActions, partition: 0, offset: 0 };
    const difference = differenceOf(wanted, decoder.decode({ position, value, key: null }), keys);
    if (difference === undefined) return value;
    const { topic, offset } = row.position;
    throw new PipelineError(
      'CONFIG_INVALID',
      `${topic}, row ${offset + 1}: \`run\` would not read from ${topics.userActions} what the file says: ${difference}. ` +
        `Make kafka.mapping and the mapping of the file agree${valueFormat === 'avro' && mapping !== undefined ? '; produce writes Avro as UserAction, whose fields kafka.mapping must name' : ''}`,
    );
  };
  if (valueFormat === 'json' && mapping !== undefined) return [checked(Buffer.from(rowText(row)), actions)];
  return actions.map((action) => {
    const { position: _, part: __, ...said } = action;
    return checked(valueFormat === 'avro' ? codec.encode('UserAction', action) : Buffer.from(JSON.stringify(said)), [action]);
  });
}

const rowText = ({ value }: SourceRecord): string => {
  if (typeof value === 'string') return value;
  return value instanceof Uint8Array ? Buffer.from(value).toString() : JSON.stringify(value);
};

/** The first is the record's position where a mapping names none. */
const ALL_KEYS = ['eventId', 'userId', 'action', 'entity', 'eventTimeMs', 'value', 'context'] as const;

/** In words; undefined where they are the same. */
function differenceOf(
  wanted: readonly PositionedAction[],
  read: DecodeResult,
  keys: readonly (typeof ALL_KEYS)[number][],
): string | undefined {
  if (!read.ok) return `${read.code} ${read.message}`;
  if (read.actions.length !== wanted.length) return `${read.actions.length} action(s), not ${wanted.length}`;
  for (const [i, action] of wanted.entries())
    for (const key of keys)
      if (!isDeepStrictEqual(action[key], read.actions[i]![key]))
        return `${key} is ${JSON.stringify(read.actions[i]![key])}, not ${JSON.stringify(action[key])}`;
  return undefined;
}
