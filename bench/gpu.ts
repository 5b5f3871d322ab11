/**
 * The cache on the GPU: does a step's time depend on the size of the pool, what passes between host and device, and what a step
 * saves. On the GPU of this machine, or where there is none on SwiftShader, a driver that computes on the CPU: there the ratios
 * and the bytes mean something, the milliseconds do not.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chooseProvider } from '../models/gpu/choose-provider.ts';
import { GpuEngine } from '../models/gpu/gpu-engine.ts';
import { type Bundle, kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import type { EncodeRequest } from '../schemas/encoding.ts';
import { pageDigests } from '../schemas/sequence-digest.ts';
import { swiftShaderEnvironment } from '../test/support/swiftshader.ts';
import { median, noteKvBytes } from './measure.ts';

const MIB = 2 ** 20;
const POOLS_MIB = [1, 16, 128, 512] as const;
const SHAPES = [
  { D: 64, L: 2, n: 200, onSoftware: true },
  { D: 64, L: 4, n: 1000, onSoftware: false },
  { D: 256, L: 8, n: 1000, onSoftware: false },
  { D: 256, L: 4, n: 4000, onSoftware: false },
] as const;
export const GPU_FIGURES = 1 + SHAPES.length;
const B = 4;
const STEPS = 40;
/** Set for the process that is to measure on SwiftShader. */
const SOFTWARE = 'HSTU_BENCH_SOFTWARE';

export interface PoolFigure {
  readonly poolMiB: number;
  /** One step of `B` users, `T = 2`, 96 events: median, ms. */
  readonly stepMs: number;
  /** Over the smallest pool's. */
  readonly ratio: number;
  /** A step, bytes: K and V to the device, K and V written on it, everything to the device. */
  readonly kvUploaded: number;
  readonly kvWritten: number;
  readonly uploaded: number;
}

export interface ShapeFigure {
  readonly D: number;
  readonly L: number;
  readonly n: number;
  readonly B: number;
  /** ms a user: a full encode and a step (`T = 2`) on the GPU, a step of the same on one thread of the CPU. */
  readonly fullMs: number;
  readonly stepMs: number;
  readonly ratio: number;
  readonly cpuStepMs: number;
  /** ms: a user's rows to the host, and back. */
  readonly spillMs: number;
  readonly restoreMs: number;
}

export interface GpuFigures {
  readonly device: string;
  readonly pools: readonly PoolFigure[];
  readonly shapes: readonly ShapeFigure[];
}

/** Whether this process cannot measure, for want of a driver, and another one, which finds SwiftShader, has done it all. */
export function measuredElsewhere(): boolean {
  if (process.env[SOFTWARE] !== undefined || hasGpu()) return false;
  const env = { ...process.env, ...swiftShaderEnvironment(), [SOFTWARE]: '1' };
  const { status } = spawnSync(process.execPath, [...process.execArgv, ...process.argv.slice(1)], { env, stdio: 'inherit' });
  process.exitCode = status ?? 1;
  return true;
}

export async function benchGpu(onProgress: (done: number, label: string) => void): Promise<GpuFigures> {
  const real = process.env[SOFTWARE] === undefined;
  onProgress(0, `pools of ${POOLS_MIB.join(', ')} MiB`);
  const pools = await poolFigures();
  const shapes: ShapeFigure[] = [];
  for (const shape of SHAPES.filter(({ onSoftware }) => real || onSoftware)) {
    onProgress(1 + shapes.length, `D ${shape.D}, L ${shape.L}, n ${shape.n}`);
    shapes.push(await shapeFigure(shape, real ? 32 : B));
  }
  onProgress(GPU_FIGURES, 'done');
  return { device: real ? cardName() : 'SwiftShader', pools, shapes };
}

const hasGpu = (): boolean => chooseProvider('auto').provider === 'webgpu';

/** In turn, so that whatever else the machine does falls on all of them. */
async function poolFigures(): Promise<PoolFigure[]> {
  const bundle = randomBundle({ dimension: 32, layers: 2, heads: 2, maxSequenceLength: 128 });
  const requests = requestsOf(bundle, B, 96);
  noteKvBytes(Math.max(...POOLS_MIB) * MIB);
  const engines = POOLS_MIB.map((poolMiB) => new GpuEngine(bundle, { kvBudgetBytes: poolMiB * MIB, hostBudgetBytes: 0 }));
  for (const engine of engines) for (let warm = 0; warm < 4; warm++) await engine.encode(requests);
  const before = engines.map(({ stats }) => stats);
  const times = engines.map((): number[] => []);
  for (let step = 0; step < STEPS; step++)
    for (const [i, engine] of engines.entries()) times[i]!.push(await timeMs(() => engine.encode(requests)));
  const figures = engines.map(({ stats }, i) => {
    const perStep = (pick: (of: typeof stats) => number) => (pick(stats) - pick(before[i]!)) / STEPS;
    return {
      poolMiB: POOLS_MIB[i]!,
      stepMs: median(times[i]!),
      ratio: median(times[i]!) / median(times[0]!),
      kvUploaded: perStep(({ kvBytesUploaded }) => kvBytesUploaded),
      kvWritten: perStep(({ kvBytesWritten }) => kvBytesWritten),
      uploaded: perStep(({ bytesUploaded }) => bytesUploaded),
    };
  });
  for (const engine of engines) await engine.release();
  return figures;
}

async function shapeFigure({ D, L, n }: (typeof SHAPES)[number], users: number): Promise<ShapeFigure> {
  const bundle = randomBundle({ dimension: D, layers: L, heads: D === 64 ? 2 : 4, maxSequenceLength: n });
  const kvBudgetBytes = Math.ceil(1.2 * (users + 1) * n * kvBytesPerRow(bundle.config));
  const requests = requestsOf(bundle, users, n);
  noteKvBytes(2 * kvBudgetBytes);
  const gpu = new GpuEngine(bundle, { kvBudgetBytes });
  const cpu = new EncoderEngine(bundle, { kvBudgetBytes: 2 * kvBudgetBytes });
  await cpu.encode(requests);
  const [full, step, cpuStep]: [number[], number[], number[]] = [[], [], []];
  for (let round = -1; round < 7; round++) {
    for (const { userId } of requests) gpu.forget(userId);
    const fullRound = await timeMs(() => gpu.encode(requests));
    await gpu.encode(requests);
    const stepRound = await timeMs(() => gpu.encode(requests));
    const cpuRound = await timeMs(() => cpu.encode(requests));
    // The first compiles kernels.
    if (round < 0) continue;
    full.push(fullRound);
    step.push(stepRound);
    cpuStep.push(cpuRound);
  }
  const [fullMs, stepMs, cpuStepMs] = [median(full), median(step), median(cpuStep)];
  await Promise.all([gpu.release(), cpu.release()]);
  return {
    D,
    L,
    n,
    B: users,
    fullMs: fullMs / users,
    stepMs: stepMs / users,
    ratio: fullMs / stepMs,
    cpuStepMs: cpuStepMs / users,
    ...(await timeHostTier(bundle, n)),
  };
}

/** Two users in a pool for one: each comes back from the host and sends the other there. */
async function timeHostTier(bundle: Bundle, n: number): Promise<{ spillMs: number; restoreMs: number }> {
  const rowBytes = kvBytesPerRow(bundle.config);
  const engine = new GpuEngine(bundle, { kvBudgetBytes: Math.ceil(1.1 * n * rowBytes), hostBudgetBytes: 4 * n * rowBytes });
  const [a, b] = requestsOf(bundle, 2, n) as [EncodeRequest, EncodeRequest];
  const spills: number[] = [];
  const restores: number[] = [];
  for (let i = 0; i < 16; i++) {
    const back = await timeMs(() => engine.encode([i % 2 === 0 ? a : b]));
    const again = await timeMs(() => engine.encode([i % 2 === 0 ? a : b]));
    if (i >= 4) restores.push(Math.max(0, back - again));
    spills.push(await timeMs(() => engine.spillOne()));
  }
  const { stats } = engine;
  if (stats.restores !== 14) throw new Error(`${stats.restores} users came back from the host; expected 14`);
  await engine.release();
  return { spillMs: median(spills.slice(0, 4)), restoreMs: median(restores) };
}

const timeMs = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

/** The last two rows wanted: a step computes both each time. */
const requestsOf = (bundle: Bundle, users: number, n: number): EncodeRequest[] =>
  Array.from({ length: users }, (_, user) => {
    const entities = Int32Array.from({ length: n }, (_, i) => 1 + ((i * 7919 + user * 104_729) % bundle.config.vocabularySize));
    const timesS = Float64Array.from({ length: n }, (_, i) => 1_600_000_000 + i * 3_600 + ((i * 31 + user) % 1_800));
    const window = { windowStart: 0, entities, timesS, pageDigests: pageDigests(entities, timesS) };
    return { userId: `user-${user}`, segments: [{ ...window, from: n - 2, queryTimeS: timesS[n - 1]! }] };
  });

/** As NVIDIA's driver tells it; others tell nothing that can be read without their tools. */
function cardName(): string {
  const folder = '/proc/driver/nvidia/gpus';
  if (!existsSync(folder)) return 'a GPU whose name nothing here tells';
  const [card] = readdirSync(folder);
  return /^Model:\s*(.*)$/m.exec(readFileSync(join(folder, card!, 'information'), 'utf8'))?.[1] ?? 'NVIDIA';
}
