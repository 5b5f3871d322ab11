import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SchemaRegistry, type SchemaRegistryOptions } from '../../infra/kafka/schema-registry.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { FIXED_SCHEMA_IDS, SCHEMA_TEXTS } from '../../schemas/avro/schemas.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type SchemaRegistryStub, startSchemaRegistryStub } from '../support/schema-registry-stub.ts';

let stub: SchemaRegistryStub;
beforeEach(async () => {
  stub = await startSchemaRegistryStub();
});
afterEach(() => stub.close());

const connect = (options: Partial<SchemaRegistryOptions> = {}) =>
  new SchemaRegistry({ url: stub.url, retryDelayMs: 1, retries: 2, ...options });
const refusal = async (work: Promise<unknown>): Promise<PipelineError> => {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(PipelineError);
  return error as PipelineError;
};
const schema = { schema: SCHEMA_TEXTS.Erasure };

describe('schemas are fetched before they are needed', () => {
  it('once for ever, however many ask at the same time', async () => {
    stub.byId.set(7, schema).set(8, schema);
    const registry = connect();
    await Promise.all([registry.ensure([7, 8, 7]), registry.ensure([8]), registry.ensure(new Set([7]))]);
    await registry.ensure([7, 8]);
    expect(stub.requests.sort()).toEqual(['GET /schemas/ids/7', 'GET /schemas/ids/8']);
    expect(registry.find(7)).toMatchObject({ text: SCHEMA_TEXTS.Erasure });
  });

  it('many of them, a few at a time', async () => {
    const ids = Array.from({ length: 100 }, (_, id) => id + 1);
    for (const id of ids) stub.byId.set(id, schema);
    const registry = connect();
    await registry.ensure(ids);
    expect(ids.every((id) => registry.find(id) !== undefined)).toBe(true);
  });

  it('not for the fixed ids of our own, nor for what no registry gives', async () => {
    const registry = connect();
    await registry.ensure([FIXED_SCHEMA_IDS.UserAction, 0, -5]);
    expect(stub.requests).toEqual([]);
    expect(registry.find(FIXED_SCHEMA_IDS.UserAction)).toMatchObject({ text: SCHEMA_TEXTS.UserAction });
    expect(registry.find(0)).toBeUndefined();
  });

  it('with those they refer to, each before it is referred to', async () => {
    const named = (name: string, field: string) => JSON.stringify({ type: 'record', name, fields: [{ name: 'f', type: field }] });
    const reference = (subject: string) => ({ name: subject, subject, version: 1 });
    stub.bySubject.set('inner', [{ schema: named('Inner', 'string') }]);
    stub.bySubject.set('outer', [{ schema: named('Outer', 'Inner'), references: [reference('inner')] }]);
    stub.byId.set(3, { schema: named('Top', 'Outer'), references: [reference('outer'), reference('inner')] });
    const registry = connect();
    await registry.ensure([3]);
    const bytes = Buffer.from([0, 0, 0, 0, 3, 2, 0x61]);
    expect(new AvroCodec({ schemas: registry }).decodeRow(bytes)).toEqual({ f: { f: { f: 'a' } } });
  });
});

describe('an id that the registry does not have', () => {
  it('is no error, is not asked for again for a while, and then is', async () => {
    let clock = 1_000;
    const registry = connect({ now: () => clock });
    const codec = new AvroCodec({ schemas: registry });
    const bytes = Buffer.from([0, 0, 0, 0, 9, 2, 0x75, 0, 0]);
    await registry.ensure([9]);
    expect(codec.decode('Erasure', bytes)).toMatchObject({ code: 'SCHEMA_UNKNOWN' });
    stub.byId.set(9, schema);
    clock += 29_999;
    await registry.ensure([9]);
    expect(registry.find(9)).toBeUndefined();
    expect(stub.requests).toHaveLength(1);
    clock += 1;
    await registry.ensure([9]);
    expect(codec.decode('Erasure', bytes)).toEqual({ userId: 'u' });
  });
});

describe('a registry that is not well', () => {
  it('is asked again after 503, 429 and a cut connection', async () => {
    stub.byId.set(7, schema);
    stub.faults.push(503, 429, 0);
    const registry = connect({ retries: 3 });
    await registry.ensure([7]);
    expect(registry.find(7)).toBeDefined();
    expect(stub.requests).toHaveLength(4);
  });

  it('is reported as retriable when it stays so, and nothing is remembered of it', async () => {
    stub.byId.set(7, schema);
    stub.faults.push(500, 500, 500);
    const registry = connect();
    const error = await refusal(registry.ensure([7]));
    expect(error).toMatchObject({ code: 'KAFKA_UNAVAILABLE', retriable: true });
    expect(error.message).toContain('answered 500');
    await registry.ensure([7]);
    expect(registry.find(7)).toBeDefined();
  });

  it('that is not there, or does not answer in time', async () => {
    stub.delayMs = 200;
    stub.byId.set(7, schema);
    expect((await refusal(connect({ requestTimeoutMs: 20, retries: 0 }).ensure([7]))).message).toContain('within 20 ms');
    const { url } = stub;
    await stub.close();
    const error = await refusal(connect({ url, retries: 1 }).ensure([7]));
    expect(error).toMatchObject({ code: 'KAFKA_UNAVAILABLE', retriable: true });
    expect(error.message).toMatch(/ECONNREFUSED/);
    stub = await startSchemaRegistryStub();
  });

  it('does not hold up a shutdown', async () => {
    stub.faults.push(...Array<number>(50).fill(503));
    const stopping = new AbortController();
    const waiting = refusal(connect({ retries: 50, retryDelayMs: 60_000, signal: stopping.signal }).ensure([7]));
    setTimeout(() => stopping.abort(), 50);
    expect(await waiting).toMatchObject({ code: 'KAFKA_UNAVAILABLE' });
  });
});

describe('credentials', () => {
  it('go with every request, from the options or the address', async () => {
    stub.credentials = 'user:p@ss';
    stub.byId.set(7, schema);
    for (const registry of [
      connect({ username: 'user', password: 'p@ss' }),
      connect({ url: stub.url.replace('//', '//user:p%40ss@') }),
    ]) {
      await registry.ensure([7]);
      expect(registry.find(7)).toBeDefined();
    }
  });

  it('are never told, and a refusal is final', async () => {
    stub.credentials = 'user:right';
    const error = await refusal(connect({ url: stub.url.replace('//', '//user:secret@') }).ensure([7]));
    expect(error).toMatchObject({ code: 'KAFKA_AUTHENTICATION', retriable: false });
    expect(`${error.message}${error.stack}${JSON.stringify(error)}`).not.toContain('secret');
    expect(stub.requests).toHaveLength(1);
    stub.faults.push(403);
    expect(await refusal(connect().ensure([8]))).toMatchObject({ code: 'KAFKA_AUTHORIZATION' });
    for (const url of ['nonsense', 'ftp://user:secret@host'])
      expect(() => connect({ url })).toThrowError(
        expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.not.stringContaining('secret') }),
      );
  });
});

describe('our schemas are registered under the names of their topics', () => {
  it('and written under the ids that they get', async () => {
    stub.byId.set(1, schema);
    const registry = connect();
    await registry.register({ UserEmbedding: 'user-embeddings', DeadLetter: 'dead-letters' });
    expect(stub.requests).toEqual([
      'POST /subjects/user-embeddings-value/versions',
      'POST /subjects/dead-letters-value/versions',
    ]);
    expect([registry.idOf('UserEmbedding'), registry.idOf('DeadLetter')]).toEqual([2, 3]);
    expect(registry.idOf('UserAction')).toBe(FIXED_SCHEMA_IDS.UserAction);
    const codec = new AvroCodec({ schemas: registry });
    const letter = {
      position: { topic: 't', partition: 0, offset: 1 },
      code: 'TIME_INVALID',
      step: 's',
      message: 'm',
      original: null,
    } as const;
    const bytes = codec.encode('DeadLetter', letter);
    expect(bytes.readInt32BE(1)).toBe(3);
    // Another process reads it by the registry alone.
    const other = connect();
    await other.ensure([3]);
    expect(new AvroCodec({ schemas: other }).decode('DeadLetter', bytes)).toEqual(letter);
  });

  it('unless the registry has an incompatible one', async () => {
    stub.incompatible.add('user-embeddings-value');
    const error = await refusal(connect().register({ UserEmbedding: 'user-embeddings' }));
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    expect(error.message).toContain("subject 'user-embeddings-value'");
    expect(error.message).toContain('incompatible');
  });
});
