import { describe, expect, it } from 'vitest';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { createRecordDecoder } from '../../schemas/avro/record-decoder.ts';
import { parseConfig } from '../../schemas/config.ts';
import { judgePlaces, type Misplaced } from '../../streams/misplaced.ts';

const PARTITIONS = 6;
const topics = { userActions: 'a', erasures: 'e', candidateRequests: 'r' } as const;
const kafkaOf = (settings: object) =>
  parseConfig({ bundle: 'b', kafka: { brokers: ['k:9092'], topics, valueFormat: 'json', ...settings } }, 'this test').kafka!;

/** Java's `Utils.toPositive(Utils.murmur2(key)) % 6`, by kafka-clients 4.3.1. */
const BY_JAVA = { 'user-0': 1, twin: 4, '': 3 };

const judged = (misplaced: 'warn' | 'refuse' | 'repartition') => {
  const told: Misplaced[] = [];
  const decoder = createRecordDecoder({ topics, valueFormat: 'json' });
  const kafka = { ...kafkaOf({}), misplaced };
  return { told, ...judgePlaces(decoder, { kafka, partitions: PARTITIONS, onMisplaced: (one) => told.push(one) }) };
};
const action = (userId: string, partition: number) => ({
  position: { topic: 'a', partition, offset: 7 },
  value: JSON.stringify({ eventId: 'e', userId, action: 'view', entity: 'item:1', eventTimeMs: 1 }),
});
const request = (userId: string, partition: number) => ({
  position: { topic: 'r', partition, offset: 8 },
  value: JSON.stringify({ requestId: 'q', userId, entities: ['item:1'], queryTimeMs: 1 }),
});

describe('records that do not lie on their user’s partition', () => {
  it('are told by the partition that Java’s clients choose for the id', () => {
    for (const [userId, partition] of Object.entries(BY_JAVA)) expect(partitionOf(userId, PARTITIONS), userId).toBe(partition);
  });

  it('are processed, and told, where nothing else is said', () => {
    const { told, decode, decodeRequest } = judged('warn');
    for (let partition = 0; partition < PARTITIONS; partition++) {
      expect(decode(action('twin', partition)).ok).toBe(true);
      expect(decodeRequest(request('twin', partition)).ok).toBe(true);
    }
    expect(told).toHaveLength(2 * (PARTITIONS - 1));
    expect(told[0]).toEqual({ position: { topic: 'a', partition: 0, offset: 7 }, userId: 'twin', belongs: BY_JAVA.twin });
  });

  it.each(['refuse', 'repartition'] as const)('are dead letters that say where they belong, with %s', (policy) => {
    const { told, decode, decodeRequest } = judged(policy);
    expect(decode(action('twin', BY_JAVA.twin)).ok).toBe(true);
    expect(decodeRequest(request('twin', BY_JAVA.twin)).ok).toBe(true);
    expect(told).toEqual([]);
    const refused = {
      ok: false,
      code: 'RECORD_MISPLACED',
      message: expect.stringContaining("user 'twin' belongs on partition 4 of 6"),
    };
    expect(decode(action('twin', 0))).toEqual(refused);
    expect(decodeRequest(request('twin', 0))).toEqual(refused);
    expect(told).toHaveLength(2);
  });

  it('are not asked of erasures, which go to every partition, nor of what cannot be read', () => {
    const { told, decode } = judged('refuse');
    const erasure = { position: { topic: 'e', partition: 0, offset: 1 }, value: null, key: Buffer.from('twin'), timestampMs: 5 };
    expect(decode(erasure).ok).toBe(true);
    expect(decode({ ...action('twin', 0), value: '{' })).toMatchObject({ code: 'RECORD_MALFORMED' });
    expect(told).toEqual([]);
  });
});

describe('kafka.misplaced: repartition', () => {
  it('takes the topic that is named for the source, and a topic of its own for what is by user', () => {
    const { topics: found } = kafkaOf({ misplaced: 'repartition', applicationId: 'shop' });
    expect(found).toMatchObject({ source: 'a', userActions: 'shop-repartition' });
    const again = kafkaOf({ misplaced: 'repartition', applicationId: 'shop', topics: found });
    expect(again.topics).toEqual(found);
  });

  it('is what a source is for, and needs another topic', () => {
    expect(() => kafkaOf({ topics: { source: 'clicks' } })).toThrow(/kafka\.topics\.source.*misplaced: repartition/);
    expect(() => kafkaOf({ misplaced: 'repartition', topics: { source: 'a', userActions: 'a' } })).toThrow(
      /userActions.*another/,
    );
  });
});
