/**
 * What a user could pick instead: a stream processor that re-encodes the history for every action, in Java and in Python, on the
 * same broker, topic, model and cores, in one run. Every system publishes an embedding for every action.
 */
import { mkdir, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ActionProducer } from '../infra/kafka/action-producer.ts';
import { startKafka } from '../infra/kafka/broker/start-kafka.ts';
import { kafkaClient } from '../infra/kafka/kafka-client.ts';
import { partitionOf } from '../infra/kafka/keyed-producer.ts';
import { PartitionFetcher } from '../infra/kafka/partition-fetcher.ts';
import { withAdmin } from '../infra/kafka/topics.ts';
import { type Bundle, loadBundle, writeBundle } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import type { UserAction } from '../schemas/action.ts';
import { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { parseConfig } from '../schemas/config.ts';
import { requireKafka } from '../streams/require-kafka.ts';
import { median } from './measure.ts';
import { kafkaStreams, ours, quixStreams, type Running, type Setting, type System } from './peers/systems.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDER = join(ROOT, '.hstu/bench/peers');
const PARTITIONS = 4;
const MINUTE_MS = 60_000;
const START_MS = Date.UTC(2026, 0, 1);
/** Of the throughput: seconds that are not counted after all is produced, and those that are. */
const WARM_SECONDS = 2;
const COUNTED_SECONDS = 12;
/** Of the latency: share of the slowest system's rate, and for how long. */
const SHARE_OF_SLOWEST = 0.5;
const LATENCY_SECONDS = 12;
const LATENCY_USERS = 48;
/** Nothing here takes longer, on a busy machine either. */
const PATIENCE_MS = 240_000;

const SYSTEMS: Readonly<Record<string, System>> = {
  exactlyOnce: ours('exactly-once'),
  atLeastOnce: ours('at-least-once'),
  kafkaStreams,
  quixStreams,
};

interface Trial {
  readonly history: number;
  readonly users: number;
  /** Actions a user after the history is full: more than the fastest can do while it is measured. */
  readonly actionsAfter: number;
  readonly bundle: () => Promise<{ readonly bundle: Bundle; readonly path: string }>;
}

const TRIALS: readonly Trial[] = [
  {
    history: 200,
    users: 400,
    actionsAfter: 800,
    bundle: async () => {
      const path = join(ROOT, 'examples/movielens/bundle');
      return { bundle: await loadBundle(path), path };
    },
  },
  {
    history: 1000,
    users: 100,
    actionsAfter: 1500,
    bundle: async () => {
      const path = join(FOLDER, 'bundle-1000');
      await mkdir(path, { recursive: true });
      await writeBundle(path, randomBundle({ dimension: 64, layers: 4, heads: 2, maxSequenceLength: 1000 }));
      return { bundle: await loadBundle(path), path };
    },
  },
];

export const PEERS_FIGURES = TRIALS.length * (1 + 2 * Object.keys(SYSTEMS).length);

export interface PeerFigures {
  readonly history: number;
  readonly system: string;
  /** Actions whose embedding was published, with the histories full. */
  readonly eventsPerSecond: number;
  /** Of the exactly-once deployment against this system. */
  readonly ratio: number;
  /** From producing an action to reading its embedding, at half the rate of the slowest system, ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Largest difference of a user's last embedding from ours. */
  readonly maxDelta: number;
}

export async function benchPeers(
  onProgress: (done: number, label: string) => void,
  trials: readonly Trial[] = TRIALS,
): Promise<PeerFigures[]> {
  let done = 0;
  const progress = (label: string) => onProgress(done++, label);
  const broker = await startKafka({
    folder: join(ROOT, '.hstu/bench/kafka-peers'),
    jars: join(ROOT, '.hstu/kafka/libs'),
    basePort: 0,
  });
  try {
    const figures: PeerFigures[] = [];
    for (const trial of trials) figures.push(...(await measure(trial, broker, progress)));
    return figures;
  } finally {
    await broker.destroy();
    await rm(FOLDER, { recursive: true, force: true });
  }
}

async function measure(trial: Trial, broker: Setting['broker'], progress: (label: string) => void): Promise<PeerFigures[]> {
  const { history } = trial;
  const { bundle, path } = await trial.bundle();
  const setting = (name: string, input: string): Setting => ({
    broker,
    name: `${input}-${name}`,
    input,
    bundle,
    bundlePath: path,
    action: bundle.config.actions.encoded[0]!,
    encodeFromMs: START_MS + (history - 1) * MINUTE_MS,
    partitions: PARTITIONS,
    parallel: availableParallelism(),
  });
  const rates = new Map<string, number>();
  for (const [name, system] of Object.entries(SYSTEMS)) {
    progress(`${history}: throughput, ${name}`);
    const own = await Topic.open(broker, `peers-${history}-${name}-${Date.now()}`, bundle);
    await own.fill(trial.users, 0, history);
    rates.set(name, await throughput(own, await system(setting(name, own.name)), trial));
    await own.close();
  }

  const rate = SHARE_OF_SLOWEST * Math.min(...rates.values());
  progress(`${history}: latency at ${Math.round(rate)}/s`);
  const latencies = new Map<string, Latencies>();
  for (const [name, system] of Object.entries(SYSTEMS)) {
    progress(`${history}: latency, ${name}`);
    const own = await Topic.open(broker, `peers-${history}-latency-${name}-${Date.now()}`, bundle);
    await own.fill(LATENCY_USERS, 0, history);
    latencies.set(name, await latency(own, await system(setting(name, own.name)), history, rate));
    await own.close();
  }
  const reference = latencies.get('exactlyOnce')!.last;
  return Object.keys(SYSTEMS).map((system) => {
    const { sorted, last } = latencies.get(system)!;
    return {
      history,
      system,
      eventsPerSecond: rates.get(system)!,
      ratio: rates.get('exactlyOnce')! / rates.get(system)!,
      p50Ms: median(sorted),
      p99Ms: sorted[Math.floor(0.99 * sorted.length)]!,
      maxDelta: largestDifference(reference, last),
    };
  });
}

/** Seeded users with one action a minute each, in turn. */
class Topic {
  readonly name: string;
  readonly client: ReturnType<typeof kafkaClient>;
  /** Actions produced, by partition: the offset of the next. */
  readonly ends = new Array<number>(PARTITIONS).fill(0);
  readonly #bundle: Bundle;
  readonly #producer: ActionProducer;

  static async open(broker: Setting['broker'], name: string, bundle: Bundle): Promise<Topic> {
    const { kafka } = requireKafka(
      parseConfig(
        { bundle: '.', kafka: { ...broker.connection(), applicationId: name, topics: { userActions: name } } },
        'bench',
      ),
      'bench',
    );
    const client = kafkaClient(kafka);
    await withAdmin(client, 'creating the topic', (admin) =>
      admin.createTopics({ topics: [{ topic: name, numPartitions: PARTITIONS, replicationFactor: 1 }] }),
    );
    return new Topic(name, client, bundle, await ActionProducer.open(client, kafka, new AvroCodec()));
  }

  private constructor(name: string, client: Topic['client'], bundle: Bundle, producer: ActionProducer) {
    this.name = name;
    this.client = client;
    this.#bundle = bundle;
    this.#producer = producer;
  }

  action(user: number, round: number): UserAction {
    const { entities, config } = this.#bundle;
    return {
      eventId: `${user}-${round}`,
      userId: `user-${user}`,
      action: config.actions.encoded[0]!,
      entity: entities[(user * 7919 + round * 104_729) % entities.length]!,
      eventTimeMs: START_MS + round * MINUTE_MS + ((user * 977) % MINUTE_MS),
    };
  }

  /** The next `rounds` actions of every user. */
  async fill(users: number, from: number, rounds: number): Promise<void> {
    for (let round = from; round < from + rounds; round++)
      await this.send(Array.from({ length: users }, (_, user) => this.action(user, round)));
  }

  /** @returns where each landed */
  async send(actions: readonly UserAction[]): Promise<string[]> {
    const places = actions.map(({ userId }) => {
      const partition = partitionOf(userId, PARTITIONS);
      return `${partition}/${this.ends[partition]!++}`;
    });
    await this.#producer.send(actions);
    return places;
  }

  close(): Promise<void> {
    return this.#producer.close();
  }
}

/** Follows what a system publishes. */
async function follow(topic: Topic, running: Running, onPublished: (place: string, embedding: ArrayLike<number>) => void) {
  await withAdmin(topic.client, 'creating the topic', (admin) =>
    admin.createTopics({ topics: [{ topic: running.output, numPartitions: PARTITIONS, replicationFactor: 1 }] }),
  );
  const reader = new PartitionFetcher(topic.client, {
    maxBufferedBytes: 2 ** 25,
    maxWaitMs: 20,
    onError: (error) => {
      throw error;
    },
    onData: (at) => {
      for (const { value } of reader.take(at, 1_000_000).records) {
        const { partition, offset, embedding } = running.read(value as Uint8Array);
        onPublished(`${partition}/${offset}`, embedding);
      }
    },
  });
  await reader.connect([running.output]);
  for (let partition = 0; partition < PARTITIONS; partition++) reader.assign({ topic: running.output, partition }, 0);
  return reader;
}

/** Published a second of what is produced at once when all users' histories are full. */
async function throughput(topic: Topic, running: Running, { users, history, actionsAfter }: Trial): Promise<number> {
  const missing = placesOfRound(users, history - 1);
  const seen = new Set<string>();
  let fromMs = Number.POSITIVE_INFINITY;
  let counted = 0;
  let lastMs = 0;
  const reader = await follow(topic, running, (place) => {
    if (seen.has(place)) return;
    seen.add(place);
    missing.delete(place);
    const nowMs = performance.now();
    if (nowMs < fromMs) return;
    counted += 1;
    lastMs = nowMs;
  });
  await until(() => missing.size === 0, running);
  const before = seen.size;
  await topic.fill(users, history, actionsAfter);
  fromMs = performance.now() + WARM_SECONDS * 1000;
  const all = before + users * actionsAfter;
  await until(() => performance.now() > fromMs + COUNTED_SECONDS * 1000 || seen.size >= all, running);
  if (counted === 0) throw new Error(`${running.output}: all ${all} were published before they were counted`);
  await reader.close();
  await running.stop();
  return (1000 * counted) / (lastMs - fromMs);
}

/** Where the actions of one round lie, those of every round before it being of the same users. */
function placesOfRound(users: number, round: number): Set<string> {
  const own = new Array<number>(PARTITIONS).fill(0);
  const partitions = Array.from({ length: users }, (_, user) => partitionOf(`user-${user}`, PARTITIONS));
  for (const partition of partitions) own[partition]! += 1;
  const next = own.map((count) => count * round);
  return new Set(partitions.map((partition) => `${partition}/${next[partition]!++}`));
}

interface Latencies {
  /** ms, rising */
  readonly sorted: readonly number[];
  /** By place, of the last actions: what was published. */
  readonly last: ReadonlyMap<string, ArrayLike<number>>;
}

async function latency(topic: Topic, running: Running, history: number, rate: number): Promise<Latencies> {
  const full = placesOfRound(LATENCY_USERS, history - 1);
  const sentMs = new Map<string, number>();
  const waits: number[] = [];
  const last = new Map<string, ArrayLike<number>>();
  const missing = new Set(full);
  const reader = await follow(topic, running, (place, embedding) => {
    missing.delete(place);
    const sent = sentMs.get(place);
    if (sent === undefined || last.has(place)) return;
    waits.push(performance.now() - sent);
    last.set(place, embedding);
  });
  await until(() => missing.size === 0, running);
  const actions = Math.floor(rate * LATENCY_SECONDS);
  const began = performance.now();
  const sends: Promise<unknown>[] = [];
  for (let i = 0; i < actions; i++) {
    const wait = began + (1000 * i) / rate - performance.now();
    if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
    const action = topic.action(i % LATENCY_USERS, history + Math.floor(i / LATENCY_USERS));
    const partition = partitionOf(action.userId, PARTITIONS);
    sentMs.set(`${partition}/${topic.ends[partition]}`, performance.now());
    sends.push(topic.send([action]));
  }
  await Promise.all(sends);
  await until(() => waits.length >= actions, running);
  await reader.close();
  await running.stop();
  return { sorted: waits.sort((a, b) => a - b), last };
}

function largestDifference(ours: Latencies['last'], theirs: Latencies['last']): number {
  let largest = 0;
  for (const [place, embedding] of theirs) {
    const own = ours.get(place);
    if (own === undefined) throw new Error(`no embedding of ours for ${place}`);
    for (let d = 0; d < embedding.length; d++) largest = Math.max(largest, Math.abs(embedding[d]! - own[d]!));
  }
  return largest;
}

async function until(condition: () => boolean, running: Running): Promise<void> {
  const began = performance.now();
  while (!condition()) {
    running.check();
    if (performance.now() - began > PATIENCE_MS) throw new Error(`${running.output}: nothing came of it in ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
