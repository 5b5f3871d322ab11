/** What is measured against each other: each a group on the same topic, with an embedding for every action. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { LiveWorld, type LiveWorldOptions } from '../../test/support/live-world.ts';
import { topicsNamed } from '../../test/support/topics-named.ts';
import { noteKvBytes } from '../measure.ts';
import { fullEncodeGraph } from './full-encode-graph.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const JVM = join(ROOT, 'bench/peers/jvm');
const PYTHON = join(ROOT, 'bench/peers/python');
const KV_BUDGET_BYTES = 2 ** 30;

/** An action and its embedding, as a system published it. */
export interface Published {
  readonly partition: number;
  readonly offset: number;
  /** `(D,)` */
  readonly embedding: ArrayLike<number>;
}

export interface Running {
  readonly output: string;
  readonly read: (value: Uint8Array) => Published;
  /** Throws what it said, where it ended by itself. */
  readonly check: () => void;
  readonly stop: () => Promise<void>;
}

export interface Setting {
  readonly broker: LiveWorldOptions['broker'];
  /** Distinct for every start: prefix of the group, the topics and the folders. */
  readonly name: string;
  /** Topic of the actions. */
  readonly input: string;
  readonly bundle: Bundle;
  readonly bundlePath: string;
  /** Kind of action that the bundle encodes. */
  readonly action: string;
  /** Actions before are put into the history and, by the peers, not encoded: ms since the epoch. */
  readonly encodeFromMs: number;
  readonly partitions: number;
  /** Processes or threads of a peer: as many as there are cores. */
  readonly parallel: number;
}

export type System = (setting: Setting) => Promise<Running>;

/** hstu-streams, one process: its event loop and one encoder worker. */
export const ours =
  (delivery: 'exactly-once' | 'at-least-once'): System =>
  async ({ broker, name, input, bundle, bundlePath, partitions }) => {
    noteKvBytes(KV_BUDGET_BYTES);
    const topics = { ...topicsNamed(name), userActions: input };
    const world = await LiveWorld.create({
      broker,
      name,
      bundle,
      bundlePath,
      settings: {
        publish: 'every-event',
        // As the peers: an embedding for every action, and nothing else.
        scores: { topK: 0 },
        encoder: { kvBudgetBytes: KV_BUDGET_BYTES, workers: 1 },
        kafka: { delivery, topics, partitions, sessionTimeoutMs: 30_000, heartbeatIntervalMs: 3_000 },
      },
    });
    const instance = await world.start('a');
    const codec = new AvroCodec();
    return {
      output: topics.userEmbeddings,
      read(value) {
        const record = codec.decode('UserEmbedding', value);
        if (record instanceof Fault) throw new Error(record.message);
        return { ...record.lineage, embedding: record.embedding };
      },
      check: () => instance.throwIfFailed(),
      stop: () => world.close(),
    };
  };

/** Kafka Streams 4.3 with ONNX Runtime for Java: a thread a core. */
export const kafkaStreams: System = async (setting) => {
  const classpath = join(JVM, 'target/classpath');
  if (!existsSync(classpath))
    await finished(
      spawn('mvn', ['-B', '-q', 'compile', 'dependency:build-classpath', '-Dmdep.outputFile=target/classpath'], {
        cwd: JVM,
        stdio: ['ignore', 'inherit', 'inherit'],
      }),
      'mvn compile',
    );
  const file = await settingsFile(setting);
  const args = ['-cp', `${join(JVM, 'target/classes')}:${await readFile(classpath, 'utf8')}`, 'peer.FullReencode', file];
  return peer(setting, [spawn('java', args)]);
};

/** Quix Streams 3 with PyTorch: a process a core, as Python has it. */
export const quixStreams: System = async (setting) => {
  const python = join(PYTHON, '.venv/bin/python');
  if (!existsSync(join(PYTHON, '.venv/installed'))) {
    const run = (command: string, ...args: string[]) =>
      finished(spawn(command, args, { cwd: PYTHON, stdio: ['ignore', 'inherit', 'inherit'] }), `${command} ${args[0]}`);
    await run('python3', '-m', 'venv', '.venv');
    await run(python, '-m', 'pip', 'install', '-q', '-r', 'requirements.txt');
    await run(python, '-m', 'pip', 'install', '-q', '--no-deps', '-r', '../../../models/training/requirements.txt');
    await writeFile(join(PYTHON, '.venv/installed'), '');
  }
  const processes = await Promise.all(
    Array.from({ length: setting.parallel }, async (_, i) => {
      const file = await settingsFile(setting, i);
      return spawn(python, [join(PYTHON, 'full_reencode.py'), file], { env: { ...process.env, OMP_NUM_THREADS: '1' } });
    }),
  );
  return peer(setting, processes);
};

const outputOf = ({ name }: Setting): string => `${name}-embeddings`;

/** `key=value` lines: properties for Java, as easily read by Python. */
async function settingsFile(setting: Setting, process = 0): Promise<string> {
  const { broker, name, input, bundle, bundlePath, action, encodeFromMs, parallel } = setting;
  const folder = join(ROOT, '.hstu/bench/peers', name, String(process));
  await mkdir(folder, { recursive: true });
  const model = join(folder, 'full-encode.onnx');
  await writeFile(model, fullEncodeGraph(bundle));
  const { heads, dqk, dv, layers, window } = bundle.config;
  const settings = {
    brokers: broker.connection().brokers.join(','),
    group: name,
    input,
    output: outputOf(setting),
    stateDir: join(folder, 'state'),
    model,
    tensors: join(bundlePath, 'model.safetensors'),
    entities: join(bundlePath, 'entities.txt'),
    schema: join(ROOT, 'schemas/avro/user-action.avsc'),
    action,
    encodeFromMs,
    threads: parallel,
    ...window,
    ...{ heads, dqk, dv, layers },
  };
  const file = join(folder, 'settings.properties');
  await writeFile(
    file,
    Object.entries(settings)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  return file;
}

/** Both peers publish partition (4 bytes), offset (8) and the numbers, all big-endian. */
function peer(setting: Setting, processes: readonly ChildProcess[]): Running {
  let said = '';
  let ended: string | undefined;
  for (const process of processes) {
    for (const stream of [process.stdout, process.stderr])
      stream?.on('data', (chunk: Buffer) => {
        said = (said + chunk).slice(-8_000);
      });
    process.on('exit', (code, signal) => {
      ended ??= `${code ?? signal}`;
    });
  }
  return {
    output: outputOf(setting),
    read(value) {
      const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
      const embedding = Array.from({ length: (value.byteLength - 12) / 4 }, (_, d) => view.getFloat32(12 + 4 * d));
      return { partition: view.getInt32(0), offset: Number(view.getBigInt64(4)), embedding };
    },
    check() {
      if (ended !== undefined) throw new Error(`${setting.name} ended with ${ended}:\n${said}`);
    },
    async stop() {
      const exits = processes.map((process) => (process.exitCode === null ? once(process, 'exit') : undefined));
      for (const process of processes) process.kill('SIGKILL');
      await Promise.all(exits);
    },
  };
}

async function finished(child: ChildProcess, what: string): Promise<void> {
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`${what} ended with ${code}`);
}
