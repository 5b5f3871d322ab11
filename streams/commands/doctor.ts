/** `hstu-streams doctor`: is everything here that a run needs? Every failure says what mends it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { freemem, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import colors from 'picocolors';
import { connect } from '../../infra/clickhouse/connect.ts';
import { count, mebibytes } from '../../infra/console/format.ts';
import { allowedOpenFiles, NEEDED_OPEN_FILES } from '../../infra/console/open-files.ts';
import { printable, printableLines } from '../../infra/console/printable.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { chooseProvider, type Provider } from '../../models/gpu/choose-provider.ts';
import { type Bundle, kvBytesPerRow, loadBundle } from '../../models/hstu/bundle.ts';
import { judgeCacheability } from '../../models/hstu/cacheability.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import type { Config } from '../../schemas/config.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { requireKnownActions } from '../require-known-actions.ts';
import { checkBrokers, checkKafkaTopics } from './doctor-kafka.ts';
import { checkRecords } from './doctor-records.ts';
import { collect } from './options.ts';

interface Check {
  readonly name: string;
  /** What to do when it fails. */
  readonly mend: string;
  /** Returns what was found; throws what is wrong. */
  readonly run: () => Promise<string>;
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check Node, the runtime, the bundle, the memory, ClickHouse and Kafka; every failure says what mends it')
    .option('-c, --config <file>', 'configuration, YAML', 'examples/movielens/replay.yaml')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (options: { config: string; set: string[] }) => {
      const settings: { config?: Config; bundle?: Bundle; kafkaAnswers?: boolean; topicsFit?: boolean } = {};
      const configured = () => {
        if (settings.config === undefined) throw new Error('not checked: the configuration is at fault');
        return settings.config;
      };
      const checks: Check[] = [
        { name: 'Node.js', mend: 'install Node.js 20 or newer', run: checkNode },
        { name: 'open files', mend: 'ulimit -n 1024', run: checkOpenFiles },
        { name: 'ONNX Runtime', mend: 'npm ci', run: () => checkRuntime('cpu') },
        {
          name: 'configuration',
          mend: `mend ${options.config}, or name another with --config`,
          run: async () => {
            settings.config = await loadConfig({ file: options.config, environment: process.env, assignments: options.set });
            return options.config;
          },
        },
        {
          name: 'provider',
          mend: 'set encoder.provider to auto or cpu; webgpu needs libvulkan.so.1 and a Vulkan driver, cuda the CUDA libraries of the runtime',
          run: async () => checkProvider(configured()),
        },
        {
          name: 'model bundle',
          mend: 'hstu-streams model import research --weights W --config C --out DIR, and name DIR as bundle',
          run: async () => {
            settings.bundle = await loadBundle(configured().bundle);
            const { config, digest } = settings.bundle;
            const { verdict } = judgeCacheability(config);
            return `${config.name} ${digest.slice(0, 12)}, D ${config.dimension}, ${config.layers} layers, ${verdict}`;
          },
        },
        {
          name: 'memory',
          mend: 'lower encoder.kvBudgetBytes or memoryBudgetBytes',
          run: async () => checkMemory(configured(), settings.bundle),
        },
        {
          name: 'ClickHouse',
          mend: 'set clickhouse.path to a folder that can be written, or clickhouse.url to a server; npm ci brings the embedded engine',
          run: async () => checkClickHouse(configured()),
        },
        {
          name: 'Kafka',
          mend: 'start the brokers, or mend kafka.brokers, kafka.ssl, kafka.sasl; `hstu-streams up` starts one on this machine',
          run: async () => {
            const found = await checkBrokers(configured());
            settings.kafkaAnswers = true;
            return found;
          },
        },
        {
          name: 'topics',
          mend: `hstu-streams topics create -c ${options.config}`,
          run: async () => {
            const { kafka } = configured();
            if (settings.kafkaAnswers !== true) throw new Error('not checked: Kafka is at fault');
            if (kafka === undefined) return 'none to check';
            const found = await checkKafkaTopics(kafka);
            settings.topicsFit = true;
            return found;
          },
        },
        {
          name: 'records',
          mend: 'make kafka.mapping say what they are; key them by user, or set kafka.misplaced: repartition',
          run: async () => {
            const config = configured();
            if (config.kafka === undefined) return 'none to check';
            if (settings.topicsFit !== true || settings.bundle === undefined)
              throw new Error('not checked: the topics, or the bundle, are at fault');
            requireKnownActions(config, settings.bundle);
            return checkRecords(requireKafka(config, options.config), settings.bundle);
          },
        },
      ];
      let failed = 0;
      for (const { name, mend, run } of checks) {
        try {
          console.log(`${colors.green('✓')} ${name.padEnd(14)} ${printable(await run())}`);
        } catch (thrown) {
          failed += 1;
          console.log(`${colors.red('✗')} ${name.padEnd(14)} ${printableLines(messageOf(thrown), ' '.repeat(17))}`);
          console.log(`  ${''.padEnd(14)} ${colors.yellow(`mend: ${mend}`)}`);
        }
      }
      if (failed > 0) throw new PipelineError('CONFIG_INVALID', `${failed} of ${checks.length} checks failed`);
    });
}

async function checkNode(): Promise<string> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 15)) throw new Error(`version ${process.versions.node}; 20.15 or newer is needed`);
  return process.versions.node;
}

/** Fewer than are needed end every command before it begins. */
async function checkOpenFiles(): Promise<string> {
  const allowed = allowedOpenFiles();
  return allowed === undefined ? 'no limit is known' : `${count(allowed)} allowed, ${NEEDED_OPEN_FILES} needed`;
}

/** On what the encoder would run, and why; a GPU, asked for or found, really encodes. */
async function checkProvider({ encoder }: Config): Promise<string> {
  const { provider, reason } = chooseProvider(encoder.provider);
  if (provider === 'cpu') return `cpu: ${reason}`;
  return `${await checkRuntime(provider)}; ${reason}${provider === 'cuda' ? `; ${CUDA_COST}` : ''}`;
}

const CUDA_COST = 'K and V of every step are copied to it: nothing stays on the device';

/** Really encodes: one worker thread, a small random model, full against incremental. */
async function checkRuntime(provider: Provider): Promise<string> {
  const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
  const bundle = randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 16 });
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes: 2 ** 20, provider });
  try {
    const entities = Int32Array.from({ length: 16 }, (_, i) => i + 1);
    const timesS = Float64Array.from(entities, (i) => 1_000_000_000 + i * i * 60);
    const segment = (n: number) => {
      const window = { entities: entities.slice(0, n), timesS: timesS.slice(0, n) };
      return {
        windowStart: 0,
        ...window,
        pageDigests: pageDigests(window.entities, window.timesS),
        from: n - 1,
        queryTimeS: timesS[n - 1]!,
      };
    };
    const segments = Array.from({ length: 16 }, (_, i) => segment(i + 1));
    const [grown] = await encoder.encode([{ userId: 'grown', segments }]);
    const [whole] = await encoder.encode([{ userId: 'whole', segments: [segment(16)] }]);
    const delta = Math.max(...whole!.segments[0]!.rows.map((value, d) => Math.abs(value - grown!.segments.at(-1)!.rows[d]!)));
    if (encoder.provider.provider !== provider) throw new Error(encoder.provider.reason);
    if (!(delta <= 1e-4)) throw new Error(`incremental and full encodes differ by ${delta}`);
    return `onnxruntime-node ${version} (${provider}); incremental = full within ${delta.toExponential(1)}`;
  } finally {
    await encoder.close();
  }
}

function checkMemory({ memoryBudgetBytes, encoder }: Config, bundle: Bundle | undefined): string {
  const { kvBudgetBytes, kvPrecision: precision } = encoder;
  if (kvBudgetBytes > memoryBudgetBytes)
    throw new Error(
      `encoder.kvBudgetBytes ${mebibytes(kvBudgetBytes)} exceeds memoryBudgetBytes ${mebibytes(memoryBudgetBytes)}`,
    );
  if (memoryBudgetBytes > totalmem())
    throw new Error(`memoryBudgetBytes ${mebibytes(memoryBudgetBytes)} exceeds this machine's ${mebibytes(totalmem())}`);
  const users =
    bundle && Math.floor(kvBudgetBytes / (bundle.config.window.maxLength * kvBytesPerRow({ ...bundle.config, precision })));
  const room = users === undefined ? '' : `; KV ${mebibytes(kvBudgetBytes)} holds ${count(users)} users with full windows`;
  return `budget ${mebibytes(memoryBudgetBytes)}, free ${mebibytes(freemem())}${room}`;
}

/** The configured store is only looked at; a trial of the embedded engine goes to a folder of its own. */
async function checkClickHouse(config: Config): Promise<string> {
  const trial = config.clickhouse.url === undefined ? await mkdtemp(join(tmpdir(), 'hstu-doctor-')) : undefined;
  try {
    const clickhouse = await connect(trial === undefined ? config.clickhouse : { ...config.clickhouse, path: trial });
    const [row] = await clickhouse.rows<{ version: string }>('SELECT version() AS version');
    await clickhouse.close();
    return `${row?.version} ${trial === undefined ? `at ${config.clickhouse.url}` : `embedded, for ${config.clickhouse.path}`}`;
  } finally {
    if (trial !== undefined) await rm(trial, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}
