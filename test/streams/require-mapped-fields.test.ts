import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { type ConfigInput, type KafkaConfig, parseConfig } from '../../schemas/config.ts';
import { requireMappedFields } from '../../streams/require-mapped-fields.ts';
import { type SchemaRegistryStub, startSchemaRegistryStub } from '../support/schema-registry-stub.ts';

const ITEM = { type: 'record', name: 'Item', fields: [{ name: 'id', type: 'long' }] };
const CLICK = {
  type: 'record',
  name: 'Click',
  fields: [
    { name: 'user', type: ['null', { type: 'record', name: 'User', fields: [{ name: 'id', type: 'string' }] }] },
    { name: 'item', type: 'Item' },
    { name: 'seconds', type: ['null', 'double'] },
    { name: 'at', type: 'long' },
    { name: 'labels', type: { type: 'map', values: 'string' } },
  ],
};
const MAPPING = {
  userId: '{user.id}',
  action: 'view',
  entity: 'item:{item.id}',
  value: 'seconds',
  eventTime: { field: 'at', unit: 'ms' },
  context: { language: 'labels.language' },
} as const;

describe('a mapping and the schema of its topic', () => {
  let stub: SchemaRegistryStub;
  let registry: SchemaRegistry;
  const kafkaOf = (kafka: Partial<NonNullable<ConfigInput['kafka']>>): KafkaConfig =>
    parseConfig({ bundle: 'x', kafka: { brokers: ['localhost:9092'], ...kafka } }, 'test').kafka!;
  const check = (mapping: object = {}, more: object = {}) =>
    requireMappedFields(kafkaOf({ mapping: { ...MAPPING, ...mapping }, ...more }), registry);

  beforeAll(async () => {
    stub = await startSchemaRegistryStub();
    registry = new SchemaRegistry({ url: stub.url, retries: 0 });
  });
  beforeEach(() => {
    stub.bySubject.clear();
    stub.bySubject.set('item-value', [{ schema: JSON.stringify(ITEM) }]);
    stub.bySubject.set('user-actions-value', [
      { schema: JSON.stringify({ type: 'record', name: 'Old', fields: [] }) },
      { schema: JSON.stringify(CLICK), references: [{ name: 'Item', subject: 'item-value', version: 1 }] },
    ]);
  });
  afterAll(() => stub.close());

  it('fit through records, unions, maps and references, by its newest version', async () => {
    await check();
  });

  it('do not: every path that no record can have is named, with what there is', async () => {
    const wrong = check({
      eventId: '{id}-{at}',
      userId: '{user.name}',
      entity: 'item:{item.id.low}',
      value: 'dwell',
      eventTime: { field: 'time', unit: 'ms' },
      context: { language: 'labels.language.code', city: 'city' },
    });
    await expect(wrong).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const message = await wrong.catch(({ message }: Error) => message);
    expect(message!.split('\n  ')).toEqual([
      "kafka.mapping does not fit the newest schema of subject 'user-actions-value': 7 problem(s)",
      "kafka.mapping.eventId: field 'id': the record Click has no 'id', but user, item, seconds, at, labels",
      "kafka.mapping.userId: field 'user.name': the record User has no 'name', but id",
      "kafka.mapping.entity: field 'item.id.low': a long has no field 'low'",
      "kafka.mapping.value: field 'dwell': the record Click has no 'dwell', but user, item, seconds, at, labels",
      "kafka.mapping.eventTime.field: field 'time': the record Click has no 'time', but user, item, seconds, at, labels",
      "kafka.mapping.context.language: field 'labels.language.code': a string has no field 'code'",
      "kafka.mapping.context.city: field 'city': the record Click has no 'city', but user, item, seconds, at, labels",
    ]);
  });

  it('are not compared where there is no schema to know: JSON, nobody has written yet, no mapping', async () => {
    await check({ userId: '{nobody}' }, { valueFormat: 'json' });
    await requireMappedFields(kafkaOf({}), registry);
    stub.bySubject.clear();
    await check({ userId: '{nobody}' });
  });

  it('are not compared where the subject holds no Avro: its records are read by their frame', async () => {
    stub.bySubject.set('user-actions-value', [{ schema: '{}', schemaType: 'JSON' }]);
    await check();
  });

  it('without a registry must fit our own: nothing else is read', async () => {
    const own = {
      userId: '{userId}',
      entity: '{entity}',
      value: 'value',
      eventTime: { field: 'eventTimeMs', unit: 'ms' as const },
    };
    await requireMappedFields(kafkaOf({ mapping: { ...MAPPING, ...own, context: { language: 'context.language' } } }), undefined);
    const wrong = requireMappedFields(kafkaOf({ mapping: { ...MAPPING, ...own, userId: '{user}' } }), undefined);
    await expect(wrong).rejects.toThrow(/the schema of UserAction: 2 problem\(s\)\n {2}kafka\.mapping\.userId: field 'user'/);
  });
});
