/** A deployment to measure: a real broker, a model on disk, `hstu-streams run` in a process of its own, and what it says of itself. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Kafka } from 'kafkajs';
import { ActionProducer } from '../infra/kafka/action-producer.ts';
import { startKafka } from '../infra/kafka/broker/start-kafka.ts';
import { createTopics } from '../infra/kafka/change-topics.ts';
import { kafkaClient } from '../infra/kafka/kafka-client.ts';
import { type Bundle, loadBundle, writeBundle } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import type { UserAction } from '../schemas/action.ts';
import { AvroCodec } from '../schemas/avro/avro-codec.ts';
import { type Config, type ConfigInput, parseConfig } from '../schemas/config.ts';
import { type LiveConfig, requireKafka } from '../streams/require-kafka.ts';
import { compiledCli } from '../test/support/compiled-cli.ts';
import { Instance } from '../test/support/live-world.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const PARTITIONS = 4;
export const ENTITIES = 10_000;

export interface Deployment {
  readonly kafka: Kafka;
  readonly config: LiveConfig;
  readonly bundle: Bundle;
  readonly folder: string;
  /** @returns when it says that it is RUNNING */
  start(timeoutMs?: number): Promise<RunningInstance>;
  close(): Promise<void>;
}

export interface RunningInstance {
  readonly instance: Instance;
  /** From the start of its process to RUNNING, ms. */
  readonly startMs: number;
  scrape(): Promise<Scrape>;
}

/** D 64, 2 layers, a window of 200 that slides by 50, 10,000 entities. */
export async function deploy(name: string, settings: Omit<ConfigInput, 'bundle' | 'kafka'>): Promise<Deployment> {
  // Before a start is timed.
  compiledCli();
  const folder = join(ROOT, '.hstu', 'bench', name);
  await rm(join(folder, 'instance'), { recursive: true, force: true });
  await mkdir(join(folder, 'bundle'), { recursive: true });
  const made = randomBundle({ dimension: 64, layers: 2, heads: 2, maxSequenceLength: 200, vocabularySize: ENTITIES });
  await writeBundle(join(folder, 'bundle'), made);
  const bundle = await loadBundle(join(folder, 'bundle'));
  const broker = await startKafka({
    folder: join(folder, 'kafka'),
    jars: join(ROOT, '.hstu', 'kafka', 'libs'),
    basePort: 0,
  });
  const config: Config = parseConfig(
    {
      ...settings,
      bundle: join(folder, 'bundle'),
      kafka: { ...broker.connection(), applicationId: `${name}-${Date.now()}`, partitions: PARTITIONS },
      telemetry: { port: 0, ...settings.telemetry },
    },
    `bench ${name}`,
  );
  const live = requireKafka(config, `bench ${name}`);
  const kafka = kafkaClient(live.kafka);
  await createTopics(kafka, live.kafka);
  const running = new Set<Instance>();
  return {
    kafka,
    config: live,
    bundle,
    folder,
    start: async (timeoutMs = 60_000) => {
      const began = performance.now();
      const instance = await Instance.start('instance', folder, live);
      running.add(instance);
      await instance.untilRunning(timeoutMs);
      const startMs = performance.now() - began;
      const port = /"port":(\d+)/.exec(instance.log)?.[1];
      return { instance, startMs, scrape: () => scrape(`http://127.0.0.1:${port}/metrics`) };
    },
    close: async () => {
      await Promise.all([...running].map((instance) => instance.stop()));
      await broker.destroy();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** What `/metrics` said at one moment. */
export interface Scrape {
  readonly atMs: number;
  /** Sum of a metric's series whose labels contain `labels`; 0 where there are none. */
  sum(name: string, labels?: string): number;
  /** Upper bounds and cumulative counts of a histogram. */
  buckets(name: string): ReadonlyMap<number, number>;
}

async function scrape(url: string): Promise<Scrape> {
  const lines = (await (await fetch(url)).text()).split('\n');
  const series = (name: string) => lines.filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const value = (line: string) => Number(line.slice(line.lastIndexOf(' ') + 1));
  return {
    atMs: performance.now(),
    sum: (name, labels = '') =>
      series(name)
        .filter((line) => line.includes(labels))
        .reduce((sum, line) => sum + value(line), 0),
    buckets: (name) =>
      new Map(
        series(`${name}_bucket`).map((line) => [Number(/le="([^"]+)"/.exec(line)![1]!.replace('+Inf', 'Infinity')), value(line)]),
      ),
  };
}

/** The quantile of what a histogram took in between two scrapes, linear within a bucket. */
export function quantileBetween(before: Scrape, after: Scrape, name: string, share: number): number {
  const earlier = before.buckets(name);
  const counts = [...after.buckets(name)].map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)] as const);
  const wanted = share * (counts.at(-1)?.[1] ?? 0);
  let [lower, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= wanted && count > below)
      return Number.isFinite(bound) ? lower + ((bound - lower) * (wanted - below)) / (count - below) : lower;
    [lower, below] = [bound, count];
  }
  return Number.NaN;
}

/** A user's rank, 1 the most active, with probability ∝ `rank^-skew`: the inverse of the continuous distribution. */
export function heavyTail(users: number, skew: number, random: () => number = Math.random): number {
  const power = 1 - skew;
  const rank = power === 0 ? users ** random() : ((users ** power - 1) * random() + 1) ** (1 / power);
  return Math.min(users, Math.floor(rank));
}

export interface LoadOptions {
  readonly users: number;
  readonly skew: number;
  /** Event time of the first event; later ones go on from it by the clock. */
  readonly fromMs: number;
  /** Of event ids, so that two loads share none. @default '' */
  readonly prefix?: string;
}

/** Sends events of users by a heavy tail. */
export class Load {
  readonly #producer: ActionProducer;
  readonly #options: LoadOptions;
  #beganMs: number | undefined;
  #sent = 0;

  static async open({ kafka, config }: Deployment, options: LoadOptions): Promise<Load> {
    return new Load(await ActionProducer.open(kafka, config.kafka, new AvroCodec()), options);
  }

  private constructor(producer: ActionProducer, options: LoadOptions) {
    this.#producer = producer;
    this.#options = options;
  }

  get sent(): number {
    return this.#sent;
  }

  async send(events: number): Promise<void> {
    const { users, skew, fromMs, prefix = '' } = this.#options;
    const nowMs = Date.now();
    this.#beganMs ??= nowMs;
    const eventTimeMs = fromMs + nowMs - this.#beganMs;
    const actions = Array.from({ length: events }, (): UserAction => {
      const n = this.#sent++;
      return {
        eventId: `${prefix}live${n}`,
        userId: userOf(heavyTail(users, skew)),
        action: 'view',
        entity: `item:${1 + Math.floor(ENTITIES * Math.random())}`,
        eventTimeMs,
      };
    });
    await this.#producer.send(actions, nowMs);
  }

  /** As evenly as the clock allows, until aborted. */
  async steady(perSecond: number, signal: AbortSignal): Promise<void> {
    const began = performance.now();
    let sent = 0;
    while (!signal.aborted) {
      const due = Math.floor(((performance.now() - began) * perSecond) / 1000) - sent;
      if (due > 0) await this.send(Math.min(due, perSecond));
      sent += Math.max(0, Math.min(due, perSecond));
      await sleep(10);
    }
  }

  /** As fast as the instance takes them: at most `ahead` events more than it has processed. */
  async saturate(running: RunningInstance, ahead: number, signal: AbortSignal): Promise<void> {
    const start = this.#sent - (await running.scrape()).sum('hstu_tokens_total');
    while (!signal.aborted) {
      const processed = start + (await running.scrape()).sum('hstu_tokens_total');
      if (this.#sent - processed < ahead) await this.send(2_000);
      else await sleep(50);
    }
  }

  close(): Promise<void> {
    return this.#producer.close();
  }
}

/** The user of a rank. */
export const userOf = (rank: number): string => `user-${rank}`;
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
