/** A deployment's committed topics on a real broker, a sink in a process of its own, and ClickHouse behind a door that can be shut. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Kafka, Producer } from 'kafkajs';
import { stringify } from 'yaml';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { type EngineLease, openEngine } from '../../infra/clickhouse/engine/open-engine.ts';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { createTopics } from '../../infra/kafka/change-topics.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { parseConfig } from '../../schemas/config.ts';
import { type LiveConfig, requireKafka } from '../../streams/require-kafka.ts';
import { embeddedIn, until } from './clickhouse-store.ts';
import { compiledCli } from './compiled-cli.ts';
import { topicsWithOutcomes } from './topics-named.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface OutRecord {
  readonly topic: string;
  readonly key: string;
  readonly value: Buffer | null;
  readonly timestampMs: number;
}

export class SinkWorld {
  readonly config: LiveConfig;
  readonly kafka: Kafka;
  readonly codec = new AvroCodec();
  readonly clickhouse: ClickHouse;
  readonly door: Door;
  /** The `clickhouse` section of a sink that holds the embedded engine itself. */
  readonly embedded: ReturnType<typeof embeddedIn>;
  readonly #folder: string;
  readonly #lease: EngineLease;
  readonly #producer: Producer;
  readonly #sinks: SinkProcess[] = [];

  static async create(broker: Pick<LocalKafka, 'connection'>, name: string): Promise<SinkWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'hstu-sink-'));
    const store = join(folder, 'clickhouse');
    const clickhouse = await connect(embeddedIn(store));
    const lease = await openEngine(store);
    const door = await Door.open(Number(new URL(lease.url).port));
    const input = {
      bundle: 'none',
      telemetry: { port: 0 },
      sink: { port: 0, maxDelayMs: 100, maxRecords: 1_000, maxBufferedBytes: 2 * 2 ** 20 },
      clickhouse: { url: door.url, username: lease.username, password: lease.password },
      kafka: {
        ...broker.connection(),
        applicationId: name,
        topics: topicsWithOutcomes(name),
        partitions: 2,
        sessionTimeoutMs: 6_000,
        heartbeatIntervalMs: 300,
      },
    };
    const config = requireKafka(parseConfig(input, 'this test'), 'this test');
    const kafka = kafkaClient(config.kafka);
    await createTopics(kafka, config.kafka);
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 5, createPartitioner: statedPartition });
    await producer.connect();
    return new SinkWorld({ config, kafka, clickhouse, door, folder, lease, producer });
  }

  private constructor(parts: {
    readonly config: LiveConfig;
    readonly kafka: Kafka;
    readonly clickhouse: ClickHouse;
    readonly door: Door;
    readonly folder: string;
    readonly lease: EngineLease;
    readonly producer: Producer;
  }) {
    this.config = parts.config;
    this.kafka = parts.kafka;
    this.clickhouse = parts.clickhouse;
    this.door = parts.door;
    this.#folder = parts.folder;
    this.embedded = embeddedIn(join(parts.folder, 'clickhouse'));
    this.#lease = parts.lease;
    this.#producer = parts.producer;
  }

  get runId(): string {
    return this.config.kafka.applicationId;
  }

  /** Writes records, each to the partition of its key, in order. */
  async produce(records: readonly OutRecord[]): Promise<void> {
    const topics = new Map<string, OutRecord[]>();
    for (const record of records) topics.get(record.topic)?.push(record) ?? topics.set(record.topic, [record]);
    for (const [topic, list] of topics)
      await this.#producer.send({
        topic,
        messages: list.map(({ key, value, timestampMs }) => ({
          key,
          value,
          partition: partitionOf(key, this.config.kafka.partitions!),
          timestamp: String(timestampMs),
        })),
      });
  }

  async sink(overrides: Record<string, unknown> = {}): Promise<SinkProcess> {
    const file = join(this.#folder, `sink-${this.#sinks.length}.yaml`);
    await writeFile(file, stringify({ ...this.config, ...overrides }));
    const sink = new SinkProcess(file);
    this.#sinks.push(sink);
    return sink;
  }

  /** Rows of the run, replaced ones not counted, and with `raw` those that merges have yet to drop. */
  async count(table: string, raw = false): Promise<number> {
    const sql = `SELECT count() AS n FROM ${table} ${raw ? '' : 'FINAL'} WHERE run_id = {runId:String}`;
    const [row] = await this.clickhouse.rows<{ n: number }>(sql, { runId: this.runId });
    return row!.n;
  }

  async untilCount(table: string, rows: number, timeoutMs = 90_000): Promise<void> {
    try {
      await until(async () => (await this.count(table)) >= rows, timeoutMs);
    } catch {
      throw new Error(`${table} has ${await this.count(table)} of ${rows} rows\n${this.#sinks.at(-1)?.log.slice(-3_000)}`);
    }
  }

  /** Next offsets that the sink's group has committed, summed over a topic. */
  async committed(topic: string): Promise<number> {
    const admin = this.kafka.admin();
    await admin.connect();
    try {
      const [answer] = await admin.fetchOffsets({ groupId: `${this.runId}-sink`, topics: [topic] });
      return answer!.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
    } finally {
      await admin.disconnect();
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#sinks.map((sink) => sink.kill()));
    await this.#producer.disconnect();
    await this.door.close();
    this.#lease.release();
    await this.clickhouse.close();
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

/** `hstu-streams sink` in a process of its own. */
export class SinkProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #log = '';

  constructor(file: string) {
    this.#child = spawn(process.execPath, [compiledCli(), 'sink', '-c', file], {
      cwd: ROOT,
      env: { ...process.env, NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (chunk: Buffer) => {
        this.#log = (this.#log + chunk.toString()).slice(-200_000);
      });
    this.#exited = new Promise((resolve) => this.#child.on('exit', resolve));
  }

  get log(): string {
    return this.#log;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Where it serves its health and metrics. */
  get port(): number {
    return Number(/"port":(\d+)/.exec(this.#log)?.[1]);
  }

  async untilLogged(pattern: RegExp, timeoutMs = 90_000): Promise<void> {
    await until(() => pattern.test(this.#log), timeoutMs).catch(() => {
      throw new Error(`not logged within ${timeoutMs} ms: ${pattern}\n${this.#log.slice(-4_000)}`);
    });
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** SIGTERM, and its exit code. */
  stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    return this.#exited;
  }

  /** Its exit code, when it ends by itself. */
  ended(): Promise<number | null> {
    return this.#exited;
  }
}

/** A TCP port in front of another, which can be shut: connections break, new ones are refused. */
export class Door {
  readonly #target: number;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;

  static async open(target: number): Promise<Door> {
    const door = new Door(target);
    await door.open();
    return door;
  }

  private constructor(target: number) {
    this.#target = target;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async open(): Promise<void> {
    const server = createServer((near) => {
      const far = dial(this.#target, '127.0.0.1');
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('error', () => to.destroy()).on('close', () => this.#sockets.delete(from) && to.destroy());
        from.pipe(to);
      }
    });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.#port, '127.0.0.1', resolve));
    this.#server = server;
    this.#port = (server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => (this.#server === undefined ? resolve() : this.#server.close(() => resolve())));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.#server = undefined;
  }
}
