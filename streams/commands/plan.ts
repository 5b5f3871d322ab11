/** `hstu-streams plan`: what so many users and events need, with this model, by this machine's own speed. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { count, mebibytes, percent } from '../../infra/console/format.ts';
import { facts, heading } from '../../infra/console/table.ts';
import { type Bundle, kvBytesPerRow, loadBundle } from '../../models/hstu/bundle.ts';
import type { KvPrecision } from '../../models/kv-cache/extent.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { EncodeRequest } from '../../schemas/encoding.ts';
import { pageDigests } from '../../schemas/sequence-digest.ts';
import { GPU_SHARE, type Plan, type PlanInput, plan, UTILISATION } from '../plan.ts';
import { positiveInteger } from './options.ts';

interface Options {
  readonly users: number;
  readonly events: number;
  readonly kv: number;
  readonly skew: number;
  readonly gpuMemory: number;
  readonly kvPrecision: KvPrecision;
  readonly json?: true;
}

const MIB = 2 ** 20;
/** Users of the trial: a micro-batch that the step graph takes whole. */
const TRIAL_USERS = 32;
const TRIAL_STEPS = 30;

export function addPlan(program: Command): void {
  program
    .command('plan')
    .description('memory, processors and disk for so many users and events a second, measured with the bundle on this machine')
    .argument('<bundle>', 'model bundle')
    .requiredOption('--users <n>', 'users with a history', positiveInteger)
    .requiredOption('--events <n>', 'events a second, all users together', positiveInteger)
    .option('--kv <MiB>', 'KV cache of all instances together, MiB', positiveInteger, 1_024)
    .option('--skew <s>', 'how unequal users are: activity of the k-th is k^-s; 0 for all alike', nonNegative, 0.8)
    .option('--gpu-memory <GiB>', 'memory of one GPU', positiveInteger, 80)
    .addOption(new Option('--kv-precision <p>', 'as encoder.kvPrecision').choices(['float32', 'bfloat16']).default('float32'))
    .option('--json', 'print JSON')
    .action(async (folder: string, options: Options) => {
      const bundle = await loadBundle(folder);
      const input = await inputOf(bundle, options);
      const planned = plan(input);
      console.log(options.json ? JSON.stringify({ ...input, ...planned }) : describe(bundle, input, planned));
    });
}

async function inputOf(bundle: Bundle, { users, events, kv, skew, gpuMemory, kvPrecision }: Options): Promise<PlanInput> {
  const { config } = bundle;
  const windowLength = config.window.maxLength;
  return {
    users,
    eventsPerSecond: events,
    kvBudgetBytes: kv * MIB,
    kvBytesPerUser: windowLength * kvBytesPerRow({ ...config, precision: kvPrecision }),
    skew,
    windowLength,
    blockLength: config.window.blockLength,
    gpuBytes: gpuMemory * 2 ** 30,
    dimension: config.dimension,
    ...(await measure(bundle, kvPrecision)),
  };
}

/** Median times of a user with a full window, µs. */
async function measure(
  bundle: Bundle,
  kvPrecision: KvPrecision,
): Promise<{ readonly stepUs: number; readonly prefillUs: number }> {
  const n = bundle.config.window.maxLength;
  const kvBudgetBytes = 2 * TRIAL_USERS * n * kvBytesPerRow(bundle.config) + MIB;
  const engine = new EncoderEngine(bundle, { kvBudgetBytes, kvPrecision });
  const requests = Array.from({ length: TRIAL_USERS }, (_, user) =>
    trialRequest(`user-${user}`, n, bundle.entities.length, user),
  );
  const timed = async (batch: readonly EncodeRequest[]) => {
    const began = performance.now();
    await engine.encode(batch);
    return (1_000 * (performance.now() - began)) / batch.length;
  };
  await engine.encode(requests.slice(0, 1));
  const prefills: number[] = [];
  for (let i = 1; i < TRIAL_USERS; i += 1) prefills.push(await timed(requests.slice(i, i + 1)));
  await engine.encode(requests);
  const steps: number[] = [];
  for (let i = 0; i < TRIAL_STEPS; i++) steps.push(await timed(requests));
  await engine.release();
  return { stepUs: median(steps), prefillUs: median(prefills) };
}

/** Asks for the last two rows: what a new event costs. */
function trialRequest(userId: string, n: number, vocabulary: number, seed: number): EncodeRequest {
  const entities = Int32Array.from({ length: n }, (_, i) => 1 + ((i * 7919 + seed * 104_729) % vocabulary));
  const timesS = Float64Array.from({ length: n }, (_, i) => 1_600_000_000 + i * 3_600);
  const from = Math.max(0, n - 2);
  const segment = {
    windowStart: 0,
    entities,
    timesS,
    pageDigests: pageDigests(entities, timesS),
    from,
    queryTimeS: timesS[n - 1]!,
  };
  return { userId, segments: [segment] };
}

function describe(bundle: Bundle, input: PlanInput, planned: Plan): string {
  const { config } = bundle;
  const micros = (us: number) => `${us < 100 ? us.toFixed(1) : count(Math.round(us))} µs`;
  return [
    heading(`${config.name}: ${count(input.users)} users, ${count(input.eventsPerSecond)} events/s`),
    facts([
      [
        'a user in the KV cache',
        `${count(Math.ceil(input.kvBytesPerUser / 1024))} KiB (${config.window.maxLength} events × ${count(input.kvBytesPerUser / config.window.maxLength)} bytes)`,
      ],
      [
        'KV cache',
        `${mebibytes(input.kvBudgetBytes)} holds ${count(planned.cachedUsers)} users; all would take ${mebibytes(input.users * input.kvBytesPerUser)}`,
      ],
      ['hit ratio', `${percent(planned.hitRatio)} (LRU, Che's approximation, activity k^-${input.skew})`],
      ['a step, here', `${micros(input.stepUs)}; from nothing ${micros(input.prefillUs)}`],
      [
        'an event',
        `${micros(planned.encodeUsPerEvent)} = hits × (step + slides, ${micros(planned.slideUsPerEvent)}) + misses × prefill, full windows`,
      ],
      ['encoder threads', `${planned.cores.toFixed(1)} = events/s × time / ${UTILISATION} busy`],
      [
        'or GPUs',
        `${count(planned.gpus)} hold all users' K and V = users × bytes / (${mebibytes(input.gpuBytes)} × ${GPU_SHARE}); how fast they are: bench -- gpu`,
      ],
      ['local store', `${mebibytes(planned.stateBytes)}, and about as much in the changelog (full windows)`],
      ['embeddings', `${mebibytes(planned.embeddingBytesPerSecond)}/s to Kafka, one an event, before compression`],
    ]),
  ].join('\n');
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

function nonNegative(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError(`'${text}' is not a number of 0 or more.`);
  return value;
}
