/** What is written to a broker and read from it, without a stream around: codecs, transactions, retention. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { PartitionProducer } from '../../infra/kafka/partition-producer.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import { kafkaConfigOf, kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';

describe.skipIf(!kafkaIsPossible)('records of a broker', { timeout: 60_000 }, () => {
  let config: KafkaConfig;
  let kafka: ReturnType<typeof kafkaClient>;
  const fetchers: PartitionFetcher[] = [];

  beforeAll(async () => {
    config = kafkaConfigOf((await sharedKafka()).connection(), { applicationId: randomName('records') });
    kafka = kafkaClient(config);
  }, 180_000);
  afterAll(() => Promise.all(fetchers.map((fetcher) => fetcher.close())));

  const newTopic = async (numPartitions = 1) => {
    const topic = randomName('records');
    const admin = kafka.admin();
    await admin.connect();
    await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
    await admin.disconnect();
    return topic;
  };

  /** Reads partition 0 until `done`. */
  const read = async (topic: string, from: number, done: (records: readonly SourceRecord[], next: number) => boolean) => {
    const skipped: [number, number][] = [];
    const records: SourceRecord[] = [];
    await new Promise<void>((resolve, reject) => {
      const fetcher = new PartitionFetcher(kafka, {
        maxBufferedBytes: 2 ** 20,
        maxWaitMs: 50,
        onError: reject,
        onSkipped: (_at, first, to) => skipped.push([first, to]),
        onData: (at) => {
          const taken = fetcher.take(at, 1_000);
          records.push(...taken.records);
          if (done(records, taken.nextOffset)) resolve();
        },
      });
      fetchers.push(fetcher);
      fetcher.connect([topic]).then(() => fetcher.assign({ topic, partition: 0 }, from), reject);
    });
    return { texts: records.map(({ value }) => Buffer.from(value as Uint8Array).toString()), skipped };
  };
  const recordsOf = (texts: readonly string[]) => texts.map((text) => ({ key: text, value: Buffer.from(text) }));
  const many = Array.from({ length: 300 }, (_, i) => `record ${i} ${'x'.repeat(i)}`);

  it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('are the same after %s', async (compression) => {
    const topic = await newTopic();
    const producer = new OutputProducer(kafka, { ...config, compression });
    await producer.open();
    await producer.send(0, new Map([[topic, recordsOf(many)]]));
    await producer.close();
    expect((await read(topic, 0, (records) => records.length >= many.length)).texts).toEqual(many);
  });

  it('come as soon as they are there, also while the other partitions have no news', async () => {
    const topic = await newTopic(2);
    const at = { topic, partition: 1 };
    let came: (() => void) | undefined;
    // A leader that waits for the others would keep this one's records for so long.
    const fetcher = new PartitionFetcher(kafka, {
      maxBufferedBytes: 2 ** 20,
      maxWaitMs: 2_000,
      onData: (from) => {
        if (fetcher.take(from, 100).records.length > 0) came?.();
      },
      onError: () => undefined,
    });
    await fetcher.connect([topic]);
    for (const partition of [0, 1]) fetcher.assign({ topic, partition }, 0);
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    const delays: number[] = [];
    for (let i = 0; i < 9; i++) {
      const arrived = new Promise<void>((resolve) => {
        came = resolve;
      });
      await producer.send(at.partition, new Map([[topic, recordsOf([`record ${i}`])]]));
      const sent = performance.now();
      await arrived;
      delays.push(performance.now() - sent);
    }
    await Promise.all([producer.close(), fetcher.close()]);
    expect(delays.sort((a, b) => a - b)[4]).toBeLessThan(500);
  });

  it('of a transaction that another producer has fenced are never read, and its owner is told', async () => {
    const topic = await newTopic();
    const zombie = new PartitionProducer(kafka, config, 0);
    await zombie.open();
    await zombie.commit({ records: new Map([[topic, recordsOf(['first'])]]), inputs: { [topic]: 1 } });
    const owner = new PartitionProducer(kafka, config, 0);
    await owner.open();
    const refused = zombie.commit({ records: new Map([[topic, recordsOf(['zombie'])]]), inputs: { [topic]: 2 } });
    await expect(refused).rejects.toMatchObject({ code: 'PRODUCER_FENCED' } satisfies Partial<PipelineError>);
    await owner.commit({ records: new Map([[topic, recordsOf(['second'])]]), inputs: { [topic]: 2 } });
    expect((await read(topic, 0, (records) => records.length >= 2)).texts).toEqual(['first', 'second']);
    await Promise.all([zombie.close(), owner.close()]);
  });

  it('of an open transaction are fenced by the next owner before it looks', async () => {
    const topic = await newTopic();
    const raw = kafka.producer({ transactionalId: `${config.applicationId}-1`, maxInFlightRequests: 1, idempotent: true });
    await raw.connect();
    const transaction = await raw.transaction();
    await transaction.send({ topic, messages: [{ value: 'left open', partition: 0 }] });
    const owner = new PartitionProducer(kafka, config, 1);
    await owner.open();
    const fetcher = new PartitionFetcher(kafka, { maxBufferedBytes: 1, onData: () => undefined, onError: () => undefined });
    fetchers.push(fetcher);
    await fetcher.connect([topic]);
    // The record and its abort marker: nothing stands in the way of what is committed.
    expect(await fetcher.offsets({ topic, partition: 0 })).toEqual({ first: 0, end: 2 });
    await Promise.all([raw.disconnect(), owner.close()]);
  });

  it('that retention has deleted are told as lost, and the reading goes on after them', async () => {
    const topic = await newTopic();
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    await producer.send(0, new Map([[topic, recordsOf(many.slice(0, 10))]]));
    await producer.close();
    const admin = kafka.admin();
    await admin.connect();
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '7' }] });
    await admin.disconnect();
    const { texts, skipped } = await read(topic, 2, (records) => records.length >= 3);
    expect(texts).toEqual(many.slice(7, 10));
    expect(skipped).toEqual([[2, 7]]);
  });

  it('before the position of another topic of the same name are refused, with what to do', async () => {
    const topic = await newTopic();
    await expect(read(topic, 1_000, () => false)).rejects.toMatchObject({ code: 'TOPICS_INVALID' });
    await expect(read(topic, 1_000, () => false)).rejects.toThrow(
      /ends at offset 0, and this deployment stands at 1000.*hstu-streams reset/,
    );
  });
});
