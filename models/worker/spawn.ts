/** Starts the threads of models, from source (under tsx or vitest) or compiled. */
import { Worker } from 'node:worker_threads';
import type { IndexBuildStart } from './index/build-index.ts';
import type { WorkerStart } from './protocol.ts';

export const spawnEncoderWorker = (start: WorkerStart): Worker => spawn('encoder-worker', start);

export const spawnIndexBuild = (start: IndexBuildStart): Worker => spawn('index/build-index', start);

function spawn(name: string, start: object): Worker {
  const fromSource = import.meta.url.endsWith('.ts');
  const entry = new URL(`./${name}.${fromSource ? 'ts' : 'js'}`, import.meta.url);
  return new Worker(fromSource ? new URL('./boot.mjs', import.meta.url) : entry, {
    workerData: { entry: entry.href, start },
    execArgv: [],
  });
}
