import { describe, expect, it } from 'vitest';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { createEntityDecoder } from '../../schemas/avro/entity-decoder.ts';

const codec = new AvroCodec();
const decode = createEntityDecoder({ maxRecordBytes: 1_000 });
const say = (key: string | Uint8Array | null, value: string | Uint8Array | null) =>
  decode({
    position: { topic: 'entities', partition: 0, offset: 0 },
    key: typeof key === 'string' ? Buffer.from(key) : key,
    value: typeof value === 'string' ? Buffer.from(value) : value,
  });

describe('a record of the entities topic', () => {
  it('says the same in Avro and in JSON, and nothing takes back', () => {
    const update = { entity: 'item:1', content: Float32Array.of(1, -0.5), popularity: 3, retired: true };
    const json = JSON.stringify({ ...update, content: [...update.content] });
    expect(say('item:1', codec.encode('Entity', update))).toEqual({ ok: true, entity: 'item:1', update });
    expect(say('item:1', json)).toEqual({ ok: true, entity: 'item:1', update });
    const bare = { ok: true, entity: 'item:1', update: { entity: 'item:1' } };
    expect(say('item:1', codec.encode('Entity', { entity: 'item:1' }))).toEqual(bare);
    for (const value of [null, '', '{"entity":"item:1","removed":true}'])
      expect(say('item:1', value)).toEqual({ ok: true, entity: 'item:1' });
  });

  it.each([
    ['no-key', null, '{"entity":"a"}'],
    ['no-key', Buffer.of(0xff), '{"entity":"a"}'],
    ['other-key', 'b', '{"entity":"a"}'],
    ['malformed', 'a', '{"entity":"a"'],
    ['malformed', 'a', '{"entity":"a","colour":"red"}'],
    ['malformed', 'a', codec.encode('Entity', { entity: 'a', popularity: Number.NaN })],
    ['content-not-finite', 'a', '{"entity":"a","content":[1,null]}'],
    ['content-not-finite', 'a', codec.encode('Entity', { entity: 'a', content: Float32Array.of(1, Number.NaN) })],
    ['undecodable', 'a', codec.encode('Erasure', { userId: 'a' })],
    ['undecodable', 'a', codec.encode('Entity', { entity: 'a', content: new Float32Array(500) })],
    ['undecodable', 'a', Buffer.of(0xff, 0xfe)],
    ['undecodable', 'a', 'x'.repeat(1_001)],
  ])('is refused as %s: key %s', (reason, key, value) => {
    const entity = reason === 'no-key' ? {} : { entity: String(key) };
    expect(say(key as string, value)).toEqual({ ok: false, reason, message: expect.any(String), ...entity });
  });
});
