/**
 * What Kafka costs: the demo's events from a real broker to committed embeddings, against the same operators fed from memory
 * and against a bare consumer of the same topic, in one run.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import kafkajs, { type Kafka } from 'kafkajs';
import { compressFrameSync, decompressFrameSync } from 'lz4-napi';
import { ActionProducer } from '../infra/kafka/action-producer.ts';
import { startKafka } from '../infra/kafka/broker/start-kafka.ts';
import { createTopics } from '../infra/kafka/change-topics.ts';
import { kafkaClient } from '../infra/kafka/kafka-client.ts';
import { partitionOf } from '../infra/kafka/keyed-producer.ts';
import { PartitionFetcher } from '../infra/kafka/partition-fetcher.ts';
import { HstuEncoder } from '../models/encoder.ts';
import { type Bundle, loadBundle } from '../models/hstu/bundle.ts';
import type { UserAction } from '../schemas/action.ts';
import { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { Fault } from '../schemas/record-fields.ts';
import { openLive } from '../streams/live/open-live.ts';
import { loadConfig } from '../streams/load-config.ts';
import { encoderOptions } from '../streams/replay.ts';
import { type LiveConfig, requireKafka } from '../streams/require-kafka.ts';
import { movielens } from '../test/support/promises/movielens.ts';
import { fromMemory, recordsOf } from './from-memory.ts';
import { median, noteKvBytes } from './measure.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PARTITIONS = 4;
/** Rounds of each way, interleaved; the median counts. */
const ROUNDS = 3;
/** For the latency: events a second, a seventh or less of what either way can do, for so many seconds. */
const LATENCY_RATE = 500;
const LATENCY_SECONDS = 12;
/** Of those, the first are not counted: caches fill. */
const WARM_SECONDS = 2;

type Delivery = LiveConfig['kafka']['delivery'];

export interface KafkaFigures {
  readonly exactlyOnce: DeliveryFigures;
  readonly atLeastOnce: DeliveryFigures;
  readonly memory: { readonly eventsPerSecond: number };
  readonly bareConsumer: { readonly eventsPerSecond: number };
}

interface DeliveryFigures {
  readonly eventsPerSecond: number;
  /** From an action's append, as its producer stamped it, to its embedding being read by a read-committed consumer, ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export async function benchKafka(onProgress: (done: number, label: string) => void, events = 60_000): Promise<KafkaFigures> {
  let done = 0;
  const progress = (label: string) => onProgress(done++, label);
  progress('broker');
  const broker = await startKafka({
    folder: join(ROOT, '.hstu', 'bench', 'kafka'),
    jars: join(ROOT, '.hstu', 'kafka', 'libs'),
    basePort: 0,
  });
  try {
    const base = await loadConfig({ file: join(ROOT, 'examples/movielens/live.yaml') });
    const bundle = await loadBundle(base.bundle);
    const actions = await movielens(events);
    const topic = `bench-${Date.now()}`;
    const kafkaConfig = base.kafka!;
    const configOf = (id: string, delivery: Delivery, input = topic): LiveConfig =>
      requireKafka(
        {
          ...base,
          state: { ...base.state, path: join(ROOT, '.hstu', 'bench', 'state', id) },
          kafka: {
            ...kafkaConfig,
            brokers: broker.connection().brokers,
            applicationId: id,
            delivery,
            partitions: PARTITIONS,
            topics: {
              ...kafkaConfig.topics,
              userActions: input,
              userEmbeddings: `${id}-embeddings`,
              candidateScores: `${id}-scores`,
            },
          },
        },
        'bench',
      );
    const kafka = kafkaClient(configOf('fill', 'exactly-once').kafka);
    progress('producing');
    await createTopics(kafka, configOf(`fill-${topic}`, 'exactly-once').kafka);
    const producer = await ActionProducer.open(kafka, configOf('fill', 'exactly-once').kafka, new AvroCodec());
    for (let i = 0; i < actions.length; i += 1000) await producer.send(actions.slice(i, i + 1000));
    await producer.close();

    const rates: Record<'memory' | Delivery, number[]> = { memory: [], 'exactly-once': [], 'at-least-once': [] };
    const bare: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      progress('from memory');
      rates.memory.push(await rateFromMemory(bundle, base, actions));
      for (const delivery of ['exactly-once', 'at-least-once'] as const) {
        progress(delivery);
        rates[delivery].push(await throughput(bundle, configOf(`${topic}-${delivery}-${round}`, delivery), actions.length));
      }
      progress('bare consumer');
      bare.push(await bareConsumer(kafka, topic, actions.length));
    }
    const latencyOf = async (delivery: Delivery) => {
      progress(`latency, ${delivery}`);
      const id = `${topic}-latency-${delivery}`;
      return latency(bundle, configOf(id, delivery, `${id}-actions`), actions);
    };
    const exactlyOnce = await latencyOf('exactly-once');
    const atLeastOnce = await latencyOf('at-least-once');
    return {
      exactlyOnce: { eventsPerSecond: median(rates['exactly-once']), ...exactlyOnce },
      atLeastOnce: { eventsPerSecond: median(rates['at-least-once']), ...atLeastOnce },
      memory: { eventsPerSecond: median(rates.memory) },
      bareConsumer: { eventsPerSecond: median(bare) },
    };
  } finally {
    await broker.destroy();
    await rm(join(ROOT, '.hstu', 'bench', 'state'), { recursive: true, force: true });
  }
}

/** How often `benchKafka` reports. */
export const KAFKA_FIGURES = 2 + 4 * ROUNDS + 2;

async function rateFromMemory(
  bundle: Bundle,
  config: Awaited<ReturnType<typeof loadConfig>>,
  actions: readonly UserAction[],
): Promise<number> {
  const records = recordsOf(actions, config.kafka!.topics.userActions, PARTITIONS);
  const options = encoderOptions(config);
  noteKvBytes(options.kvBudgetBytes);
  const encoder = new HstuEncoder(bundle, options);
  try {
    const began = performance.now();
    await fromMemory({ bundle, config, records, encoder });
    return (1e3 * actions.length) / (performance.now() - began);
  } finally {
    await encoder.close();
  }
}

/** From the start of the flow, the group joined, to the last event's commit. */
async function throughput(bundle: Bundle, config: LiveConfig, events: number): Promise<number> {
  await createTopics(kafkaClient(config.kafka), config.kafka);
  const stop = new AbortController();
  let runningMs = 0;
  let committed = 0;
  let endedMs = 0;
  const live = await openLive({
    config,
    bundle,
    observer: {
      onState: (state) => {
        if (state === 'RUNNING') runningMs = performance.now();
      },
      onCommitted: (batch) => {
        committed += batch.source.records.length;
        if (committed < events) return;
        endedMs = performance.now();
        stop.abort();
      },
    },
  });
  try {
    await live.run(stop.signal);
  } finally {
    await live.close();
  }
  return (1000 * committed) / (endedMs - runningMs);
}

/** kafkajs' own consumer, as its users set it up: it unpacks, and does nothing else. */
async function bareConsumer(kafka: Kafka, topic: string, events: number): Promise<number> {
  const { CompressionCodecs, CompressionTypes } = kafkajs;
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async ({ buffer }: { buffer: Buffer }) => compressFrameSync(buffer),
    decompress: async (buffer: Buffer) => decompressFrameSync(buffer),
  });
  const consumer = kafka.consumer({ groupId: `bare-${Date.now()}`, maxBytesPerPartition: 2 ** 20 });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  let seen = 0;
  let joinedMs = 0;
  consumer.on(consumer.events.GROUP_JOIN, () => {
    joinedMs = performance.now();
  });
  const rate = await new Promise<number>((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    consumer
      .run({
        autoCommit: false,
        eachBatch: async ({ batch }) => {
          seen += batch.messages.length;
          if (seen >= events) resolve((1000 * seen) / (performance.now() - joinedMs));
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return rate;
}

/** A steady stream of actions, and a reader of the embeddings. */
async function latency(bundle: Bundle, config: LiveConfig, actions: readonly UserAction[]) {
  const kafka = kafkaClient(config.kafka);
  await createTopics(kafka, config.kafka);
  const codec = new AvroCodec();
  const stop = new AbortController();
  const faults: string[] = [];
  const running = new Promise<void>((resolve, reject) => {
    const observer = {
      onState: (state: string) => state === 'RUNNING' && resolve(),
      onRecovering: (error: Error) => faults.push(error.message),
    };
    openLive({ config, bundle, observer })
      .then(async (live) => {
        await live.run(stop.signal).finally(() => live.close());
      })
      .catch((error: unknown) => {
        faults.push(String(error));
        reject(error);
      });
  });
  await running;
  const producer = await ActionProducer.open(kafka, config.kafka, codec);
  const sentMs = new Map<string, number>();
  const latencies: number[] = [];
  const topic = config.kafka.topics.userEmbeddings;
  const began = performance.now();
  const reader = new PartitionFetcher(kafka, {
    maxBufferedBytes: 2 ** 24,
    maxWaitMs: 50,
    onError: (error) => {
      throw error;
    },
    onData: (at) => {
      const nowMs = Date.now();
      for (const { value } of reader.take(at, 100_000).records) {
        const embedding = codec.decode('UserEmbedding', value as Uint8Array);
        if (embedding instanceof Fault) throw new Error(embedding.message);
        const { topic: from, partition, offset } = embedding.lineage;
        const sent = sentMs.get(`${from}/${partition}/${offset}`);
        if (sent !== undefined && performance.now() - began > WARM_SECONDS * 1000) latencies.push(nowMs - sent);
      }
    },
  });
  await reader.connect([topic]);
  for (let partition = 0; partition < PARTITIONS; partition++) reader.assign({ topic, partition }, 0);

  const offsets = new Array<number>(PARTITIONS).fill(0);
  const perTick = LATENCY_RATE / 50;
  for (let tick = 0; tick < LATENCY_SECONDS * 50; tick++) {
    const due = began + tick * 20;
    const wait = due - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    const sending = actions.slice(tick * perTick, (tick + 1) * perTick);
    const atMs = Date.now();
    for (const { userId } of sending) {
      const partition = partitionOf(userId, PARTITIONS);
      sentMs.set(`${config.kafka.topics.userActions}/${partition}/${offsets[partition]!++}`, atMs);
    }
    await producer.send(sending, atMs);
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  stop.abort();
  await Promise.all([producer.close(), reader.close()]);
  if (latencies.length === 0)
    throw new Error(`${config.kafka.delivery}: no embedding was read; ${faults.join('; ') || 'no fault was told'}`);
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))]!;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}
