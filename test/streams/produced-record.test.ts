import { describe, expect, it } from 'vitest';
import type { PositionedAction, SourceRecord } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { type ConfigInput, parseConfig } from '../../schemas/config.ts';
import { compileMapping } from '../../schemas/record-mapping.ts';
import { producedValues } from '../../streams/produced-record.ts';
import { deploymentDecoder } from '../../streams/replay/source.ts';
import { requireKafka } from '../../streams/require-kafka.ts';

const MAPPING = {
  eventId: '{id}',
  userId: '{user.id}',
  action: '{type}',
  entity: 'item:{product.id}',
  eventTime: { field: 'ts', unit: 'iso' as const },
};
const ROW = {
  id: 'e0',
  type: 'view',
  ts: '2026-11-24T19:01:32.087-05:00',
  user: { id: 'u1' },
  product: { id: '100', price: 2.99 },
};

function produced(kafka: Partial<NonNullable<ConfigInput['kafka']>>, row: SourceRecord['value'] = JSON.stringify(ROW)) {
  const config = requireKafka(
    parseConfig({ bundle: 'none', kafka: { brokers: ['localhost:9092'], ...kafka } }, 'this test'),
    'this test',
  );
  const decoder = deploymentDecoder(config, undefined);
  const record: SourceRecord = { position: { topic: 'in.jsonl', partition: 0, offset: 6 }, value: row };
  const decoded = compileMapping(MAPPING).decode(record) as { readonly actions: readonly PositionedAction[] };
  const [value] = producedValues(record, decoded.actions, { config, codec: new AvroCodec(), decoder }) as [Buffer];
  return {
    value,
    read: decoder.decode({ position: { topic: 'user-actions', partition: 0, offset: 3 }, value, key: null }),
    action: decoded.actions[0]!,
  };
}

describe('what produce writes is what the configuration reads', () => {
  it.each([
    ['avro', { valueFormat: 'avro' as const }],
    ['json', { valueFormat: 'json' as const }],
    ['json by a mapping', { valueFormat: 'json' as const, mapping: MAPPING }],
    ['json by a mapping without an id', { valueFormat: 'json' as const, mapping: { ...MAPPING, eventId: undefined } }],
  ])('%s', (_, kafka) => {
    const { read, action } = produced(kafka);
    const { eventId: _id, position: _position, ...same } = action;
    expect(read).toMatchObject({ ok: true, actions: [same] });
  });

  it('a row goes as it is where a mapping reads rows: fields that nobody mapped stay', () => {
    expect(JSON.parse(produced({ valueFormat: 'json', mapping: MAPPING }).value.toString())).toEqual(ROW);
    expect(JSON.parse(produced({ valueFormat: 'json', mapping: MAPPING }, ROW).value.toString())).toEqual(ROW);
  });

  it('is refused where it is not, with the row and what differs', () => {
    expect(() => produced({ valueFormat: 'json', mapping: { ...MAPPING, entity: 'product:{product.id}' } })).toThrow(
      /in\.jsonl, row 7: `run` would not read from user-actions what the file says: entity is "product:100", not "item:100"/,
    );
    expect(() => produced({ valueFormat: 'json', mapping: { ...MAPPING, userId: '{user_id}' } })).toThrow(
      /FIELD_MISSING field 'user_id'/,
    );
    expect(() => produced({ valueFormat: 'json', mapping: { ...MAPPING, eventId: '{type}' } })).toThrow(
      /eventId is "view", not "e0"/,
    );
    expect(() => produced({ valueFormat: 'avro', mapping: MAPPING })).toThrow(/produce writes Avro as UserAction/);
  });
});
