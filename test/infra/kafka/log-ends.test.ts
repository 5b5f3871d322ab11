/** Where the logs end, and what is said where the brokers do not tell. */
import { afterEach, describe, expect, it } from 'vitest';
import { LogEnds } from '../../../infra/kafka/log-ends.ts';

const fault = (type: string) => Object.assign(new Error(type.toLowerCase()), { type });
const closed = Object.assign(new Error('Closed connection'), { name: 'KafkaJSConnectionClosedError' });

/** Two topics on three brokers, each led by one and held by all. */
function cluster() {
  const it = {
    brokers: [1, 2, 3],
    faults: new Map<string, Error | 'silence'>(),
    leaderless: new Set<number>(),
    ends: { a: [5, 7], b: [9] } as Record<string, number[]>,
    made: 0,
    isolation: [] as number[],
  };
  const answered = <T>(topic: string, answer: () => T): Promise<T> => {
    const problem = it.faults.get(topic);
    if (problem === 'silence') return new Promise(() => undefined);
    return problem === undefined ? Promise.resolve(answer()) : Promise.reject(problem);
  };
  const broker = (nodeId: string) => ({
    metadata: ([topic]: string[]) =>
      answered(topic!, () => ({
        brokers: it.brokers.map((id) => ({ nodeId: id })),
        topicMetadata: [
          {
            topic,
            partitionMetadata: it.ends[topic!]!.map((_, partitionId) => ({
              partitionId,
              leader: topic === 'a' ? 1 : 2,
              replicas: [1, 2, 3],
            })),
          },
        ],
      })),
    listOffsets: ({
      isolationLevel,
      topics: [asked],
    }: {
      isolationLevel: number;
      topics: { topic: string; partitions: { partition: number }[] }[];
    }) => {
      it.isolation.push(isolationLevel);
      if (it.leaderless.has(Number(nodeId))) return Promise.reject(closed);
      const { topic, partitions } = asked!;
      return Promise.resolve({
        responses: [
          { topic, partitions: partitions.map(({ partition }) => ({ partition, offset: String(it.ends[topic]![partition]) })) },
        ],
      });
    },
  });
  const create = () => {
    it.made += 1;
    return {
      connect: async () => undefined,
      disconnect: async () => undefined,
      brokerPool: { findConnectedBroker: async () => broker('1') },
      addMultipleTargetTopics: async () => undefined,
      findBroker: async ({ nodeId }: { nodeId: string }) => broker(nodeId),
    };
  };
  return { it, kafka: { [Symbol('private:Kafka:createCluster')]: create } as never };
}

let ends: LogEnds | undefined;
afterEach(() => ends?.close());

/** Rounds of asking, one after the other; the wait between them is left out by asking again at once. */
async function world() {
  const { it, kafka } = cluster();
  let nowMs = 0;
  let rounded: () => void = () => undefined;
  ends = new LogEnds(kafka, {
    topics: ['a', 'b'],
    everyMs: 1,
    againMs: 1,
    withinMs: 50,
    onRound: () => rounded(),
    nowMs: () => nowMs,
  });
  const opened = ends;
  const round = () =>
    new Promise<void>((resolve) => {
      rounded = resolve;
    });
  const first = round();
  opened.start();
  await first;
  return { it, ends: opened, round, pass: (ms: number) => (nowMs += ms) };
}

describe('the ends of the logs', () => {
  it('are high watermarks, of every partition that exists', async () => {
    const { it, ends, round } = await world();
    expect([...ends.endsOf('a')]).toEqual([
      [0, 5],
      [1, 7],
    ]);
    expect(it.isolation).toContain(0);
    it.ends['a'] = [6, 7, 0];
    await round();
    await round();
    expect([...ends.endsOf('a')]).toEqual([
      [0, 6],
      [1, 7],
      [2, 0],
    ]);
    expect(ends.faults).toEqual([]);
    expect(ends.brokersAway).toBe(0);
    // By one connection, while all is well.
    expect(it.made).toBe(1);
  });

  it.each([
    ['UNKNOWN_TOPIC_OR_PARTITION', 'TOPICS_INVALID', 'the topic a is not there'],
    ['TOPIC_AUTHORIZATION_FAILED', 'KAFKA_AUTHORIZATION', 'grant the user'],
    ['LEADER_NOT_AVAILABLE', 'KAFKA_FAILED', 'asking for the end of a'],
  ])('%s of one topic is said when it was met twice, as %s, and the other goes on', async (type, code, message) => {
    const { it, ends, round, pass } = await world();
    it.faults.set('a', fault(type));
    pass(5_000);
    await round();
    expect(ends.faults).toEqual([]);
    it.ends['b'] = [11];
    await round();
    expect(ends.faults).toMatchObject([{ topic: 'a', code, reason: expect.stringContaining(message), sinceMs: 5_000 }]);
    expect([...ends.endsOf('b')]).toEqual([[0, 11]]);
    pass(1_000);
    // As old as the older of the two, and not well because nothing is heard.
    expect(ends.ageMs).toBe(6_000);
    it.faults.clear();
    await round();
    expect(ends.faults).toEqual([]);
    expect(ends.ageMs).toBeLessThanOrEqual(1_000);
  });

  it('one of three brokers away is counted, and no fault where others have what it led', async () => {
    const { it, ends, round } = await world();
    it.brokers = [1, 2];
    await round();
    await round();
    expect(ends.brokersAway).toBe(1);
    expect(ends.faults).toEqual([]);
    // Whose partitions nobody has taken over yet.
    it.leaderless.add(2);
    await round();
    await round();
    expect(ends.faults.map(({ topic }) => topic)).toEqual(['b']);
  });

  it('brokers that keep silent are away, all of them, and are asked by a new connection', async () => {
    const { it, ends, round } = await world();
    it.faults.set('a', 'silence');
    await round();
    await round();
    // The other has its answer all the same.
    expect(ends.faults.map(({ topic }) => topic)).toEqual(['a']);
    it.faults.set('b', 'silence');
    await round();
    await round();
    expect(ends.faults.map(({ topic }) => topic)).toEqual(['a', 'b']);
    expect(ends.brokersAway).toBe(3);
    it.faults.clear();
    await round();
    await round();
    expect(ends.faults).toEqual([]);
    expect(ends.brokersAway).toBe(0);
    expect(it.made).toBeGreaterThan(1);
  });
});
