/** A producer that has met an error: nothing of its transaction is left under way, and it commits nothing more. */
import type { Kafka } from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { PartitionProducer } from '../../../infra/kafka/partition-producer.ts';
import { allSettled } from '../../../infra/kafka/transactions.ts';
import { kafkaConfigOf } from '../../support/kafka-broker.ts';

/** A client whose producers send as told, and say what was done. */
function client(send: (topic: string) => Promise<void>) {
  const calls: string[] = [];
  let made = 0;
  const producer = () => {
    const id = ++made;
    let active = true;
    return {
      connect: async () => void calls.push(`${id} connect`),
      disconnect: async () => void calls.push(`${id} disconnect`),
      transaction: async () => {
        calls.push(`${id} begin`);
        active = true;
        return {
          isActive: () => active,
          send: async ({ topic }: { topic: string }) => {
            await send(topic);
            calls.push(`${id} sent ${topic}`);
            return [{ baseOffset: '5' }];
          },
          sendOffsets: async () => undefined,
          commit: async () => void calls.push(`${id} commit`),
          abort: async () => {
            active = false;
            calls.push(`${id} abort`);
          },
        };
      },
    };
  };
  return { calls, kafka: { producer } as unknown as Kafka };
}

const config = kafkaConfigOf({ brokers: ['localhost:1'] } as never, { applicationId: 'app' });
const records = (...topics: string[]) => ({
  records: new Map(topics.map((topic) => [topic, [{ key: 'k', value: null }]])),
  inputs: {},
});

describe('a producer of a partition', () => {
  it('aborts only when no send is under way, and throws what the first has thrown', async () => {
    let slow: () => void = () => undefined;
    const { calls, kafka } = client((topic) =>
      topic === 'refused' ? Promise.reject(new Error('refused')) : new Promise((resolve) => (slow = resolve)),
    );
    const producer = new PartitionProducer(kafka, config, 0);
    await producer.open();
    calls.length = 0;
    const committed = producer.commit(records('slow', 'refused')).catch((error: Error) => error.message);
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(calls).toEqual(['1 begin']);
    slow();
    expect(await committed).toMatch(/^writing 1 record\(s\) to refused\/0, .*: refused$/);
    expect(calls).toEqual(['1 begin', '1 sent slow', '1 abort']);
  });

  it('is used no more after an error: another takes its place', async () => {
    let fails = true;
    const { calls, kafka } = client(() => (fails ? Promise.reject(new Error('Closed connection')) : Promise.resolve()));
    const producer = new PartitionProducer(kafka, config, 0);
    await producer.open();
    await expect(producer.commit(records('t'))).rejects.toThrow('Closed connection');
    fails = false;
    await expect(producer.commit(records('t'))).rejects.toThrow('is to be opened anew');
    calls.length = 0;
    await producer.reopen();
    expect(await producer.commit(records('t'))).toEqual(new Map([['t', 6]]));
    // Its first transaction is the one that fences.
    expect(calls).toEqual(['1 disconnect', '2 connect', '2 begin', '2 abort', '2 begin', '2 sent t', '2 commit']);
  });

  it('is used no more where it could not be opened', async () => {
    const { kafka } = client(() => Promise.resolve());
    const failing = { producer: () => ({ ...kafka.producer(), connect: () => Promise.reject(new Error('no broker')) }) };
    const producer = new PartitionProducer(failing as unknown as Kafka, config, 0);
    await expect(producer.open()).rejects.toThrow('no broker');
    await expect(producer.commit(records('t'))).rejects.toThrow('is to be opened anew');
  });
});

describe('sends that are waited for together', () => {
  it('end together, well or not', async () => {
    await expect(allSettled([Promise.resolve(), Promise.resolve()])).resolves.toBeUndefined();
    const first = new Error('first');
    await expect(allSettled([Promise.reject(first), Promise.reject(new Error('second'))])).rejects.toBe(first);
  });
});
