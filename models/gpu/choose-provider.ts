/** On what the encoder runs, and why: asked for by name, or found out. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { matrixProductGraph } from './graphs.ts';
import { plainReason } from './plain-reason.ts';

/** `webgpu`: the KV cache lies on the GPU. `cuda`: it lies in host memory and is copied for every step. `cpu`: it is read where it lies. */
export type Provider = 'webgpu' | 'cuda' | 'cpu';
export type ProviderChoice = 'auto' | Provider;

export interface ProviderReport {
  readonly provider: Provider;
  readonly reason: string;
}

/** Without one of these Linux has no GPU that the runtime could use: spares every start without one the trial. */
const DEVICE_NODES = ['/dev/nvidia0', '/dev/dri/renderD128', '/dev/dxg'];
/** What a GPU must be faster than one thread of the CPU, at least: no driver that computes on the CPU is. */
const MIN_SPEEDUP = 3;
const TRIAL_TIMEOUT_MS = 60_000;
/** Named on purpose, by tests above all: spares them a trial of many seconds. Others are found out by being slow. */
const SOFTWARE_DRIVERS = /swiftshader|lvp_icd/;

/** Of this process: a GPU does not become faster. */
let trial: Trial | undefined;

/** `auto` takes a GPU that has just shown that it works and is faster; it blocks for a second or two where there might be one. */
export function chooseProvider(choice: ProviderChoice): ProviderReport {
  if (choice !== 'auto') return { provider: choice, reason: 'asked for by encoder.provider' };
  if (process.platform === 'linux' && !DEVICE_NODES.some((node) => existsSync(node)))
    return { provider: 'cpu', reason: `no GPU here: none of ${DEVICE_NODES.join(', ')}` };
  const drivers = process.env['VK_DRIVER_FILES'];
  if (drivers !== undefined && SOFTWARE_DRIVERS.test(drivers))
    return { provider: 'cpu', reason: `VK_DRIVER_FILES names a driver in software: ${drivers}` };
  trial ??= tryWebGpu();
  return judgeTrial(trial);
}

/** What `auto` makes of a trial. */
export function judgeTrial(trial: Trial): ProviderReport {
  if ('failure' in trial) return { provider: 'cpu', reason: `a GPU cannot be used: ${trial.failure}` };
  const { gpuMs, cpuMs } = trial;
  const measured = `products of matrices took ${gpuMs.toFixed(1)} ms against ${cpuMs.toFixed(1)} ms on one thread of the CPU`;
  return cpuMs / gpuMs >= MIN_SPEEDUP
    ? { provider: 'webgpu', reason: measured }
    : { provider: 'cpu', reason: `the GPU found, or its driver in software, is slow: ${measured}` };
}

/** Times of some matrix products, ms; or why WebGPU does not work here. */
export type Trial = { readonly gpuMs: number; readonly cpuMs: number } | { readonly failure: string };

/** In a process of its own: a driver that is broken ends the process that tries it. */
function tryWebGpu(): Trial {
  const runtime = createRequire(import.meta.url).resolve('onnxruntime-node');
  const graph = Buffer.from(matrixProductGraph()).toString('base64');
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['-e', TRIAL, runtime, graph], {
    encoding: 'utf8',
    timeout: TRIAL_TIMEOUT_MS,
  });
  if (status === 0) return JSON.parse(stdout.trim().split('\n').at(-1)!) as Trial;
  return { failure: signal === null ? plainReason(/reason: (.*)/.exec(stderr)?.[1] ?? stderr) : `the trial ended by ${signal}` };
}

const TRIAL = `
const [runtime, graph] = process.argv.slice(1);
const ort = require(runtime);
(async () => {
  const data = Float32Array.from({ length: 512 * 512 }, (_, i) => ((i * 7919) % 13) / 100 - 0.06);
  const x = new ort.Tensor('float32', data, [512, 512]);
  const results = {};
  for (const [name, provider] of [['cpuMs', 'cpu'], ['gpuMs', 'webgpu']]) {
    const options = { executionProviders: [provider], intraOpNumThreads: 1, logSeverityLevel: 3 };
    const session = await ort.InferenceSession.create(Buffer.from(graph, 'base64'), options);
    const times = [];
    for (let i = 0; i < 3; i++) {
      const start = performance.now();
      const { y } = await session.run({ x });
      times.push(performance.now() - start);
      results.y ??= y.data;
      if (!(Math.abs(results.y[5] - y.data[5]) < 1e-2)) throw new Error('the GPU computes wrong products');
    }
    results[name] = Math.min(times[1], times[2]);
    await session.release();
  }
  console.log(JSON.stringify({ cpuMs: results.cpuMs, gpuMs: results.gpuMs }));
})().catch((error) => { console.error('reason: ' + error.message); process.exit(1); });
`;
