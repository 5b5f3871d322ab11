/** A deployment of its own on a real broker: topics, instances as processes, a producer, and eyes for what was committed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Kafka, Producer } from 'kafkajs';
import { stringify } from 'yaml';
import { ActionProducer } from '../../infra/kafka/action-producer.ts';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { createTopics } from '../../infra/kafka/change-topics.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { partitionOf } from '../../infra/kafka/keyed-producer.ts';
import { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { changelogOf, withAdmin } from '../../infra/kafka/topics.ts';
import { statedPartition } from '../../infra/kafka/transactions.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { UserSequence } from '../../operators/index.ts';
import { loadSequence } from '../../operators/state-pages.ts';
import type { SourceRecord, UserAction } from '../../schemas/action.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { RecordTypes } from '../../schemas/avro/record-shapes.ts';
import type { CandidateRequest } from '../../schemas/avro/requests.ts';
import type { RecordName } from '../../schemas/avro/schemas.ts';
import { parseConfig } from '../../schemas/config.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { type LiveConfig, requireKafka } from '../../streams/require-kafka.ts';
import { compiledCli } from './compiled-cli.ts';
import { topicsNamed } from './topics-named.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const SHIFTED_CLOCK = fileURLToPath(new URL('shifted-clock.cjs', import.meta.url));

export interface LiveWorldOptions {
  readonly broker: Pick<LocalKafka, 'connection'>;
  /** Distinct: prefix of topics, group and folders. */
  readonly name: string;
  /** Folder of the bundle, and the bundle. */
  readonly bundlePath: string;
  readonly bundle: Bundle;
  /** Settings over the world's own, as in a configuration file. */
  readonly settings?: Readonly<Record<string, Readonly<Record<string, unknown>> | string>> | undefined;
  /** Reads a topic's committed records. @default the product's own reader */
  readonly reader?: ((topic: string) => Promise<SourceRecord[]>) | undefined;
}

/** How an instance is started, where it is not as the others. */
export interface Launch {
  /** Settings of `kafka` over the world's. */
  readonly kafka?: Readonly<Record<string, unknown>>;
  /** Words before the command. */
  readonly prefix?: readonly string[];
  /** How far ahead its clock is, ms. @default 0 */
  readonly clockMs?: number;
}

export interface Output<N extends RecordName> {
  readonly record: SourceRecord;
  readonly key: string;
  /** Null: a tombstone. */
  readonly value: RecordTypes[N] | null;
}

export class LiveWorld {
  readonly config: LiveConfig;
  readonly kafka: Kafka;
  readonly folder: string;
  readonly #bundle: Bundle;
  readonly #reader: LiveWorldOptions['reader'];
  readonly #instances: Instance[] = [];
  readonly #codec = new AvroCodec();
  #producer: ActionProducer | undefined;
  #requester: Producer | undefined;

  static async create(options: LiveWorldOptions): Promise<LiveWorld> {
    const world = new LiveWorld(options);
    await mkdir(world.folder, { recursive: true });
    await createTopics(world.kafka, world.config.kafka);
    world.#producer = await ActionProducer.open(world.kafka, world.config.kafka, world.#codec);
    return world;
  }

  private constructor({ broker, name, bundlePath, bundle, settings = {}, reader }: LiveWorldOptions) {
    this.#reader = reader;
    this.folder = join(ROOT, '.hstu', 'live-tests', name);
    this.#bundle = bundle;
    const { kafka, ...rest } = settings;
    const input = {
      bundle: bundlePath,
      publish: 'every-event',
      telemetry: { port: 0, shadowSampleRate: 0 },
      encoder: { kvBudgetBytes: 64 * 2 ** 20 },
      ...rest,
      kafka: {
        ...broker.connection(),
        applicationId: name,
        topics: topicsNamed(name),
        partitions: 4,
        sessionTimeoutMs: 6_000,
        heartbeatIntervalMs: 300,
        transactionTimeoutMs: 20_000,
        ...(kafka as Record<string, unknown>),
      },
    };
    this.config = requireKafka(parseConfig(input, 'this test'), 'this test');
    this.kafka = kafkaClient(this.config.kafka);
  }

  async produce(actions: readonly UserAction[], batch = 500): Promise<void> {
    for (let i = 0; i < actions.length; i += batch) await this.#producer!.send(actions.slice(i, i + batch));
  }

  /** Asks for candidates, each user's requests in the partition of the user's actions. */
  async request(requests: readonly CandidateRequest[]): Promise<void> {
    const { topics, partitions } = this.config.kafka;
    this.#requester ??= await openRequester(this.kafka);
    const messages = requests.map((request) => ({
      key: request.userId,
      value: this.#codec.encode('CandidateRequest', request),
      partition: partitionOf(request.userId, partitions!),
    }));
    await this.#requester.send({ topic: topics.candidateRequests, acks: -1, messages });
  }

  /** Starts an instance as a process. `name` is its state folder: the same name later finds the state again. */
  async start(name: string, launch: Launch = {}): Promise<Instance> {
    const config = { ...this.config, kafka: { ...this.config.kafka, ...launch.kafka } };
    const instance = await Instance.start(name, this.folder, config, launch);
    this.#instances.push(instance);
    return instance;
  }

  /** All committed records of a topic, partition by partition. */
  async read(topic: string, partitions = this.config.kafka.partitions!): Promise<SourceRecord[]> {
    const records: SourceRecord[] = [];
    let wake: () => void = () => undefined;
    const fetcher = new PartitionFetcher(this.kafka, {
      maxBufferedBytes: 64 * 2 ** 20,
      onData: () => wake(),
      onError: (error) => {
        throw error;
      },
    });
    await fetcher.connect([topic]);
    for (let partition = 0; partition < partitions; partition++) {
      const { first, end } = await fetcher.offsets({ topic, partition });
      fetcher.assign({ topic, partition }, first);
      for (let next = first; next < end; ) {
        const taken = fetcher.take({ topic, partition }, Number.MAX_SAFE_INTEGER);
        records.push(...taken.records);
        if (taken.nextOffset > next) next = taken.nextOffset;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      fetcher.unassign({ topic, partition });
    }
    await fetcher.close();
    return records;
  }

  async outputs<N extends RecordName>(topic: string, name: N): Promise<Output<N>[]> {
    const records = await (this.#reader?.(topic) ?? this.read(topic));
    return records.map((record) => {
      const value = record.value === null ? null : this.#codec.decode(name, record.value as Uint8Array);
      if (value instanceof Fault) throw new Error(`${topic}: ${value.message}`);
      return { record, key: Buffer.from(record.key ?? []).toString(), value };
    });
  }

  /** Records committed as consumed, all partitions of an input topic together. */
  async consumed(topic = this.config.kafka.topics.userActions): Promise<number> {
    const [answer] = await withAdmin(this.kafka, 'reading the committed offsets', (admin) =>
      admin.fetchOffsets({ groupId: this.config.kafka.applicationId, topics: [topic] }),
    );
    return answer!.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
  }

  /** Waits until that many records are committed as consumed. */
  async untilConsumed(records: number, timeoutMs = 60_000, topic?: string): Promise<void> {
    const began = performance.now();
    for (;;) {
      const consumed = await this.consumed(topic);
      if (consumed >= records) return;
      for (const instance of this.#instances) instance.throwIfFailed();
      if (performance.now() - began > timeoutMs)
        throw new Error(
          `${consumed} of ${records} records consumed after ${timeoutMs} ms\n${this.#instances
            .map((i) => i.log)
            .join('\n---\n')
            .slice(-6000)}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /**
   * What the promise says of these actions: in each user's embeddings every version once and in order, the last equal to a
   * full encode by the model that it names.
   *
   * @param others bundles that may have been served beside the world's
   * @returns the largest |published − full encode| over the users' last embeddings
   */
  async verify(
    actions: readonly UserAction[],
    others: readonly Bundle[] = [],
  ): Promise<{ readonly users: number; readonly maxDelta: number; readonly problems: string[] }> {
    const expected = this.#sequencesOf(actions);
    const outputs = await this.outputs(this.config.kafka.topics.userEmbeddings, 'UserEmbedding');
    const versions = new Map<string, number[]>();
    const last = new Map<string, RecordTypes['UserEmbedding']>();
    for (const { value } of outputs) {
      if (value === null) continue;
      const list = versions.get(value.userId) ?? [];
      versions.set(value.userId, list);
      list.push(value.version);
      if ((last.get(value.userId)?.version ?? 0) <= value.version) last.set(value.userId, value);
    }
    const problems: string[] = [];
    const engines = new Map(
      [this.#bundle, ...others].map((bundle) => [bundle.digest, new EncoderEngine(bundle, { kvBudgetBytes: 0 })]),
    );
    let maxDelta = 0;
    for (const [userId, sequence] of expected) {
      const got = versions.get(userId) ?? [];
      const wanted = Array.from({ length: sequence.version }, (_, i) => i + 1);
      if (this.config.publish === 'every-event') {
        // At least once, a version may come again; none may be missing.
        const seen = this.config.kafka.delivery === 'exactly-once' ? got : [...new Set(got)].sort((x, y) => x - y);
        if (seen.join() !== wanted.join()) problems.push(`${userId}: versions ${summary(got)}, expected 1…${sequence.version}`);
      } else if (Math.max(0, ...got) !== sequence.version)
        problems.push(`${userId}: last version ${Math.max(0, ...got)}, expected ${sequence.version}`);
      const embedding = last.get(userId);
      if (embedding === undefined) continue;
      if (embedding.lineage.sequenceDigest !== sequence.digest) problems.push(`${userId}: made of other tokens`);
      const window = sequence.snapshot();
      const segment = { ...window, from: window.entities.length - 1, queryTimeS: Math.floor(embedding.queryTimeMs / 1000) };
      const engine = engines.get(embedding.lineage.modelDigest);
      if (engine === undefined) {
        problems.push(`${userId}: made by model ${embedding.lineage.modelDigest}`);
        continue;
      }
      const [full] = await engine.encode([{ userId, segments: [segment] }]);
      full!.segments[0]!.rows.forEach((value, d) => {
        maxDelta = Math.max(maxDelta, Math.abs(value - embedding.embedding[d]!));
      });
    }
    for (const userId of versions.keys()) if (!expected.has(userId)) problems.push(`${userId}: published, and did nothing`);
    for (const engine of engines.values()) await engine.release();
    return { users: expected.size, maxDelta, problems };
  }

  /**
   * Whether the state that a new machine would restore is that of these actions.
   *
   * @returns what differs, a line each
   */
  async verifyState(actions: readonly UserAction[]): Promise<string[]> {
    const expected = this.#sequencesOf(actions);
    const records = new Map<string, Uint8Array>();
    const changelog = changelogOf(this.config.kafka);
    for (const { key, value } of await (this.#reader?.(changelog) ?? this.read(changelog))) {
      const name = Buffer.from(key!).toString('latin1');
      if (value === null) records.delete(name);
      else records.set(name, value as Uint8Array);
    }
    const reader = { get: (key: Uint8Array) => records.get(Buffer.from(key).toString('latin1')) };
    const options = { window: this.#bundle.config.window, seenLimit: this.config.sequence.seenLimit };
    const problems: string[] = [];
    for (const [userId, sequence] of expected) {
      const restored = loadSequence(userId, reader, options);
      const facts = (of: UserSequence | undefined) =>
        of === undefined
          ? 'none'
          : `version ${of.version}, digest ${of.digest}, ${of.seen().length} seen, ids ${of.eventIds.join()}`;
      if (facts(restored) !== facts(sequence)) problems.push(`${userId}: state ${facts(restored)}, expected ${facts(sequence)}`);
    }
    return problems;
  }

  async close(): Promise<void> {
    await Promise.all(this.#instances.map((instance) => instance.kill()));
    await this.#producer?.close();
    await this.#requester?.disconnect();
    await rm(this.folder, { recursive: true, force: true });
  }

  #sequencesOf(actions: readonly UserAction[]): Map<string, UserSequence> {
    const tokenizer = new Tokenizer(this.#bundle);
    const users = new Map<string, UserSequence>();
    const { window } = this.#bundle.config;
    for (const action of actions) {
      const token = tokenizer.token(action);
      if (token.kind !== 'token') continue;
      const sequence = users.get(action.userId) ?? new UserSequence({ window, seenLimit: this.config.sequence.seenLimit });
      users.set(action.userId, sequence);
      sequence.add(action.eventId, action.eventTimeMs, token.entity);
    }
    return users;
  }
}

async function openRequester(kafka: Kafka): Promise<Producer> {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: statedPartition });
  await producer.connect();
  return producer;
}

/** An instance of `hstu-streams run` in a process of its own. */
export class Instance {
  readonly #child: ChildProcess;
  #log = '';
  #exit: { readonly code: number | null } | undefined;
  readonly #exited: Promise<void>;
  /** Its end is waited for. */
  #mayFail = false;

  static async start(name: string, folder: string, config: LiveConfig, launch: Launch = {}): Promise<Instance> {
    const file = join(folder, `${name}.yaml`);
    await writeFile(file, stringify({ ...config, state: { ...config.state, path: join(folder, name) } }));
    return new Instance(file, launch);
  }

  private constructor(file: string, { prefix = [], clockMs = 0 }: Launch) {
    const clock = clockMs === 0 ? [] : ['--require', SHIFTED_CLOCK];
    const [program, ...args] = [...prefix, process.execPath, ...clock, compiledCli(), 'run', '-c', file];
    this.#child = spawn(program!, args, {
      cwd: ROOT,
      env: { ...process.env, NO_COLOR: '1', SHIFTED_CLOCK_MS: String(clockMs) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (chunk: Buffer) => {
        this.#log = (this.#log + chunk.toString()).slice(-200_000);
      });
    this.#exited = new Promise((resolve) => {
      this.#child.on('exit', (code) => {
        this.#exit = { code };
        resolve();
      });
    });
  }

  /** What it has said, on both outputs. */
  get log(): string {
    return this.#log;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** What it answers over HTTP. */
  async ask(path: '/readyz' | '/healthz' | '/metrics'): Promise<{ readonly status: number; readonly body: string }> {
    await this.untilLogged(/"port":(\d+)/);
    const response = await fetch(`http://127.0.0.1:${/"port":(\d+)/.exec(this.#log)![1]}${path}`);
    return { status: response.status, body: await response.text() };
  }

  /** Resolves when the log matches, what it held before its character `from` left out. */
  async untilLogged(pattern: RegExp, timeoutMs = 30_000, from = 0): Promise<void> {
    const began = performance.now();
    while (!pattern.test(this.#log.slice(from))) {
      if (this.#exit !== undefined) throw new Error(`the instance ended with ${this.#exit.code}:\n${this.#log}`);
      if (performance.now() - began > timeoutMs) throw new Error(`not logged within ${timeoutMs} ms: ${pattern}\n${this.#log}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  untilRunning(timeoutMs = 30_000): Promise<void> {
    return this.untilLogged(/"state":"RUNNING"/, timeoutMs);
  }

  /** Whether it ended by itself within that time. */
  async endsWithin(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#exited, late]);
    clearTimeout(timer);
    return this.#exit !== undefined;
  }

  throwIfFailed(): void {
    if (!this.#mayFail && this.#exit !== undefined && this.#exit.code !== 0 && this.#exit.code !== null)
      throw new Error(`an instance ended with ${this.#exit.code}:\n${this.#log.slice(-4000)}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Its exit code, when it ends by itself. */
  async ended(timeoutMs = 60_000): Promise<number | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`it has not ended within ${timeoutMs} ms:\n${this.#log}`)), timeoutMs);
    });
    this.#mayFail = true;
    await Promise.race([this.#exited, late]).finally(() => clearTimeout(timer));
    return this.#exit!.code;
  }

  /** SIGTERM, and its exit code. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    await this.#exited;
    return this.#exit!.code;
  }
}

const summary = (versions: readonly number[]): string =>
  versions.length <= 12
    ? versions.join(',')
    : `${versions.slice(0, 6).join(',')}…${versions.slice(-6).join(',')} (${versions.length})`;
