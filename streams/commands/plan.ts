/** `hstu-streams plan`: what so many users and events need, with this model, by this machine's own speed. */

import { type Command, InvalidArgumentError, Option } from 'commander';
import { count, mebibytes, percent } from '../../infra/console/format.ts';
import { printData } from '../../infra/console/guard-output.ts';
import { facts, heading } from '../../infra/console/table.ts';
import { type Bundle, kvBytesPerRow, loadBundle } from '../../models/hstu/bundle.ts';
import type { KvPrecision } from '../../models/kv-cache/extent.ts';
import { measureEncoder, measureReturn } from '../measure-encoder.ts';
import { GPU_SHARE, type Plan, type PlanInput, plan, UTILISATION } from '../plan.ts';
import { positiveInteger, wholeNumber } from './options.ts';

interface Options {
  readonly users: number;
  readonly events: number;
  readonly kv: number;
  readonly disk: number;
  readonly diskPath: string;
  readonly skew: number;
  readonly gpuMemory: number;
  readonly kvPrecision: KvPrecision;
  readonly json?: true;
}

const MIB = 2 ** 20;

export function addPlan(program: Command): void {
  program
    .command('plan')
    .description('memory, processors and disk for so many users and events a second, measured with the bundle on this machine')
    .argument('<bundle>', 'model bundle')
    .requiredOption('--users <n>', 'users with a history', positiveInteger)
    .requiredOption('--events <n>', 'events a second, all users together', positiveInteger)
    .option('--kv <MiB>', 'KV cache of all instances together, MiB', positiveInteger, 1_024)
    .option('--disk <MiB>', 'KV cache on disk of all instances together, MiB (encoder.disk.budgetBytes)', wholeNumber, 0)
    .option('--disk-path <folder>', 'where it is measured', '.hstu/kv')
    .option('--skew <s>', 'how unequal users are: activity of the k-th is k^-s; 0 for all alike', nonNegative, 0.8)
    .option('--gpu-memory <GiB>', 'memory of one GPU', positiveInteger, 80)
    .addOption(new Option('--kv-precision <p>', 'as encoder.kvPrecision').choices(['float32', 'bfloat16']).default('float32'))
    .option('--json', 'print JSON')
    .action(async (folder: string, options: Options) => {
      const bundle = await loadBundle(folder);
      const input = await inputOf(bundle, options);
      const planned = plan(input);
      if (options.json) printData(JSON.stringify({ ...input, ...planned }));
      else console.log(describe(bundle, input, planned));
    });
}

async function inputOf(bundle: Bundle, options: Options): Promise<PlanInput> {
  const { users, events, kv, disk, diskPath, skew, gpuMemory, kvPrecision } = options;
  const { config } = bundle;
  const windowLength = config.window.maxLength;
  return {
    users,
    eventsPerSecond: events,
    kvBudgetBytes: kv * MIB,
    diskBudgetBytes: disk * MIB,
    kvBytesPerUser: windowLength * kvBytesPerRow({ ...config, precision: kvPrecision }),
    skew,
    windowLength,
    blockLength: config.window.blockLength,
    gpuBytes: gpuMemory * 2 ** 30,
    dimension: config.dimension,
    ...(await measureEncoder(bundle, kvPrecision)),
    returnUs: disk > 0 ? await measureReturn(bundle, kvPrecision, diskPath) : Number.NaN,
  };
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
      ...onDisk(input, planned, micros),
      ['a step, here', `${micros(input.stepUs)}; from nothing ${micros(input.prefillUs)}`],
      [
        'an event',
        `${micros(planned.encodeUsPerEvent)} = hits × (step + slides, ${micros(planned.slideUsPerEvent)})${input.diskBudgetBytes > 0 ? ' + read back × (that time + slides)' : ''} + misses × prefill, full windows`,
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

function onDisk(
  { diskBudgetBytes, returnUs }: PlanInput,
  { diskUsers, restoreRatio }: Plan,
  micros: (us: number) => string,
): [string, string][] {
  if (diskBudgetBytes === 0) return [];
  return [
    ['on disk', `${mebibytes(diskBudgetBytes)} holds ${count(diskUsers)} users more`],
    ['read back', `${percent(restoreRatio)} of events, here ${micros(returnUs)} each, from the page cache`],
  ];
}

function nonNegative(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError(`'${text}' is not a number of 0 or more.`);
  return value;
}
