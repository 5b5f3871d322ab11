/** Starts the encoder worker, from source (under tsx or vitest) or compiled. */
import { Worker } from 'node:worker_threads';
import type { WorkerStart } from './protocol.ts';

export function spawnEncoderWorker(start: WorkerStart): Worker {
  const fromSource = import.meta.url.endsWith('.ts');
  const entry = new URL(`./encoder-worker.${fromSource ? 'ts' : 'js'}`, import.meta.url);
  return new Worker(fromSource ? new URL('./boot.mjs', import.meta.url) : entry, {
    workerData: { entry: entry.href, start },
    execArgv: [],
  });
}
