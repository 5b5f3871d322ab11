/** Batches that no client of ours writes: Java's zstd of megabytes, hundreds of thousands of records in one, one that is a bomb. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import kafkajs from 'kafkajs';
import { openCluster } from '../../../../infra/kafka/kafkajs-internals.ts';
import { withAdmin } from '../../../../infra/kafka/topics.ts';
import { AvroCodec } from '../../../../schemas/avro/avro-codec.ts';
import { liveEvents } from '../../live-bundle.ts';
import type { LiveWorld } from '../../live-world.ts';
import { producerPerformance } from '../../outside/java-tools.ts';
import { MemoryLimit, peakRssBytes } from '../../outside/memory-limit.ts';
import { Load, type Say, type Shown, settle, sleep } from '../promise.ts';

/** Kafka's number for a topic as a resource. */
const TOPIC = 2;

export interface JavaLoadOptions {
  /** `host:port` of the broker. */
  readonly broker: string;
  readonly records: number;
  readonly batchBytes: number;
  readonly say: Say;
}

/** The world: JSON, one partition (its records have no key), outcomes. */
export async function whatAJavaProducerPacksIsProcessed(world: LiveWorld, options: JavaLoadOptions): Promise<Shown> {
  const { broker, records, batchBytes, say } = options;
  const { topics } = world.config.kafka;
  const payloadFile = join(world.folder, 'payload.jsonl');
  const lines = liveEvents({ events: 50_000, users: 500 }).map((action) => `${JSON.stringify(action)}\n`);
  await writeFile(payloadFile, lines.join(''));
  const instance = await world.start('a');
  await instance.untilRunning();
  const began = performance.now();
  await producerPerformance(broker, {
    topic: topics.userActions,
    records,
    payloadFile,
    settings: {
      'compression.type': 'zstd',
      'batch.size': batchBytes,
      'linger.ms': 1_000,
      'max.request.size': 10_000_000,
      'buffer.memory': 64_000_000,
      acks: 1,
    },
  });
  say(`${records} records produced`);
  await world.untilConsumed(records, 900_000);
  const seconds = (performance.now() - began) / 1000;
  const problems: string[] = [];
  const letters = await world.outputs(topics.deadLetters, 'DeadLetter');
  if (letters.length > 0) problems.push(`${letters.length} of them are dead letters: ${letters[0]!.value?.message}`);
  // One outcome an offset, each once.
  const outcomes = await world.outputs(topics.actionOutcomes!, 'ActionOutcome');
  const offsets = new Set(outcomes.map(({ value }) => value!.position.offset));
  if (outcomes.length !== records || offsets.size !== records)
    problems.push(`${outcomes.length} outcomes of ${offsets.size} records, ${records} were produced`);
  return { facts: { records, 'records/s': Math.round(records / seconds), outcomes: outcomes.length }, problems };
}

/** One batch of the log, and more records than a call may have arguments. */
export async function aBatchOfManyRecordsIsProcessed(
  world: LiveWorld,
  { records }: { readonly records: number },
): Promise<Shown> {
  const codec = new AvroCodec();
  const { userActions } = world.config.kafka.topics;
  await withAdmin(world.kafka, 'raising max.message.bytes', (admin) =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: TOPIC, name: userActions, configEntries: [{ name: 'max.message.bytes', value: '12582912' }] }],
    }),
  );
  const instance = await world.start('a');
  await instance.untilRunning();
  const actions = liveEvents({ events: records, users: 2_000 });
  const messages = actions.map((action) => ({ key: action.userId, value: codec.encode('UserAction', action), headers: {} }));
  await produceAsOne(world, userActions, messages);
  const began = performance.now();
  await world.untilConsumed(records, 600_000);
  const seconds = (performance.now() - began) / 1000;
  const { facts, problems } = await settle(world, actions);
  const letters = await world.read(world.config.kafka.topics.deadLetters);
  return {
    facts: { ...facts, seconds: Math.round(seconds), 'dead letters': letters.length },
    problems: letters.length === 0 ? problems : [...problems, `${letters.length} dead letters`],
  };
}

/** One batch, past kafkajs' producer: that takes minutes to sort so many messages by partition. */
async function produceAsOne(world: LiveWorld, topic: string, messages: readonly object[]): Promise<void> {
  const cluster = openCluster(world.kafka);
  await cluster.connect();
  await cluster.addMultipleTargetTopics([topic]);
  const nodeId = Object.keys(cluster.findLeaderForPartitions(topic, [0]))[0]!;
  const broker = (await cluster.findBroker({ nodeId })) as unknown as { produce(request: object): Promise<unknown> };
  const topicData = [{ topic, partitions: [{ partition: 0, firstSequence: 0, messages }] }];
  await broker.produce({ acks: -1, timeout: 30_000, compression: kafkajs.CompressionTypes.GZIP, topicData });
  await cluster.disconnect();
}

export interface BombOptions {
  /** Of spaces, in one record of one gzip batch. */
  readonly bytes: number;
  /** What the process and the engine's threads may have together. */
  readonly limitBytes: number;
  readonly say: Say;
}

const BOMB = fileURLToPath(new URL('../../outside/send-bomb.mjs', import.meta.url));

/** Above `memoryBudgetBytes`, by this share at most. */
const MEMORY_SLACK = 0.25;
const MAX_PAUSE_MS = 1_000;

/** A record that is a thousand times what it is on the wire, among good ones, in a container's memory: one dead letter. */
export async function aCompressedBombIsOneDeadLetter(world: LiveWorld, { bytes, limitBytes, say }: BombOptions): Promise<Shown> {
  const { topics, partitions } = world.config.kafka;
  const limit = await MemoryLimit.create(limitBytes);
  if ('impossible' in limit) return refuseToSkip(limit.impossible);
  const instance = await world.start('a', { prefix: limit.prefix });
  try {
    await instance.untilRunning();
    const load = new Load(world).start({ perSecond: 200, users: 100 });
    await sleep(3_000);
    say(`a bomb of ${bytes} bytes`);
    const bombedMs = Date.now();
    const { brokers } = world.config.kafka;
    await promisify(execFile)(process.execPath, [BOMB, brokers[0]!, topics.userActions, String(bytes)]);
    await sleep(6_000);
    const actions = await load.stop();
    await world.untilConsumed(actions.length + 1, 60_000);
    const rssBytes = peakRssBytes(instance.pid);
    const { facts, problems: wrong } = await settle(world, actions);
    const problems = [...wrong];
    const letters = await world.outputs(topics.deadLetters, 'DeadLetter');
    if (letters.length !== 1) problems.push(`${letters.length} dead letters, one expected`);
    const allowed = (1 + MEMORY_SLACK) * world.config.memoryBudgetBytes;
    if (!(rssBytes <= allowed)) problems.push(`it grew to ${mebibytes(rssBytes)} MiB, ${mebibytes(allowed)} allowed`);
    const pauseMs = await longestPause(world, partitions!, bombedMs);
    if (!(pauseMs <= MAX_PAUSE_MS)) problems.push(`a partition beside it stood still for ${Math.round(pauseMs)} ms`);
    return {
      facts: {
        'dead letter': `${letters[0]?.value?.code} ${letters[0]?.value?.message}`,
        'RSS at most, MiB': mebibytes(rssBytes),
        'longest pause beside it, ms': Math.round(pauseMs),
        ...facts,
      },
      problems,
    };
  } finally {
    await instance.kill();
    await limit.remove();
  }
}

/** Between two embeddings of one partition, not the bomb's, by the times at which they were produced. */
async function longestPause(world: LiveWorld, partitions: number, fromMs: number): Promise<number> {
  const records = await world.read(world.config.kafka.topics.userEmbeddings);
  let longest = 0;
  for (let partition = 1; partition < partitions; partition++) {
    const times = records
      .filter(({ position, timestampMs }) => position.partition === partition && timestampMs! >= fromMs - 1_000)
      .map(({ timestampMs }) => timestampMs!)
      .sort((a, b) => a - b);
    for (let i = 1; i < times.length; i++) longest = Math.max(longest, times[i]! - times[i - 1]!);
  }
  return longest;
}

/** In CI nothing is passed over unseen. */
function refuseToSkip(why: string): Shown {
  if (process.env['CI'] !== undefined) return { facts: {}, problems: [`not shown: ${why}`] };
  return { facts: {}, problems: [], skipped: why };
}

const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
