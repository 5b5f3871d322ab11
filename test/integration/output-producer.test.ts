/** Outputs outside of transactions: what was acknowledged is there, also where the broker's answer was lost. */
import { createRequire } from 'node:module';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { OutputProducer } from '../../infra/kafka/output-producer.ts';
import { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import type { OutgoingRecords } from '../../infra/kafka/partition-producer.ts';
import { withAdmin } from '../../infra/kafka/topics.ts';
import { kafkaConfigOf, kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';

const require = createRequire(import.meta.url);
const { prototype } = require('kafkajs/src/broker/index.js') as {
  prototype: { produce: (...request: unknown[]) => Promise<unknown> };
};
const { KafkaJSConnectionClosedError, KafkaJSNonRetriableError } = require('kafkajs/src/errors.js') as Record<
  'KafkaJSConnectionClosedError' | 'KafkaJSNonRetriableError',
  new (
    message: string,
  ) => Error
>;
const { produce } = prototype;

/** The broker writes what the next request brings, and its answer is lost. */
function loseNextAnswer(error: Error): void {
  prototype.produce = async function (...request) {
    prototype.produce = produce;
    await produce.apply(this, request);
    throw error;
  };
}

describe.skipIf(!kafkaIsPossible)('output producer', { timeout: 60_000 }, () => {
  let broker: Awaited<ReturnType<typeof sharedKafka>>;
  beforeAll(async () => {
    broker = await sharedKafka();
  }, 180_000);
  afterEach(() => {
    prototype.produce = produce;
  });

  async function open() {
    const config = kafkaConfigOf(broker.connection());
    const kafka = kafkaClient(config);
    const topic = randomName('outputs');
    await withAdmin(kafka, 'making a topic', (admin) => admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }));
    const producer = new OutputProducer(kafka, config);
    await producer.open();
    const batch = (text: string): OutgoingRecords =>
      new Map([[topic, [0, 1, 2].map((i) => ({ key: `${i}`, value: Buffer.from(`${text}${i}`) }))]]);
    const written = async (): Promise<string[]> => {
      const texts: string[] = [];
      let wake: () => void = () => undefined;
      const fetcher = new PartitionFetcher(kafka, { maxBufferedBytes: 1e6, onData: () => wake(), onError: () => undefined });
      await fetcher.connect([topic]);
      const at = { topic, partition: 0 };
      const { end } = await fetcher.offsets(at);
      fetcher.assign(at, 0);
      while (texts.length < end) {
        for (const { value } of fetcher.take(at, 100).records) texts.push(String(value));
        if (texts.length < end)
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      await fetcher.close();
      return texts;
    };
    return { producer, batch, written };
  }

  it('drops no batch that is sent beside one whose answer is lost', async () => {
    const { producer, batch, written } = await open();
    loseNextAnswer(new KafkaJSConnectionClosedError('closed connection'));
    await Promise.all([producer.send(0, batch('a')), producer.send(0, batch('b'))]);
    expect(await written()).toEqual(['a0', 'a1', 'a2', 'b0', 'b1', 'b2']);
    await producer.close();
  });

  it('drops no batch after one that failed for good', async () => {
    const { producer, batch, written } = await open();
    loseNextAnswer(new KafkaJSNonRetriableError('given up'));
    await expect(producer.send(0, batch('a'))).rejects.toThrow(/given up/);
    await producer.send(0, batch('b'));
    expect(await written()).toEqual(['a0', 'a1', 'a2', 'b0', 'b1', 'b2']);
    await producer.close();
  });
});
