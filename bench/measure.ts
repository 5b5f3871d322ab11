/** Figures every benchmark needs: medians, the machine and the commit, and what memory a suite took. */
import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import { median } from '../streams/measure-encoder.ts';

export { median };

/**
 * Starts a watch for work on this thread alone. @returns ms since then by the clock or by this process's processor time, whichever is
 * less: neither another process's turn on the core nor a helper thread of the runtime is to count
 */
export function stopwatch(): () => number {
  const [clock, processor] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(processor);
    return Math.min(performance.now() - clock, (user + system) / 1e3);
  };
}

/** GB/s of a plain copy of memory, bytes read plus bytes written: median of several. */
export function copyBandwidth(): number {
  const source = new Float32Array(16 * 1024 * 1024).fill(1);
  const target = new Float32Array(source.length).fill(2);
  const rates: number[] = [];
  for (let i = 0; i < 7; i++) {
    const elapsed = stopwatch();
    target.set(source);
    rates.push((2 * source.byteLength) / elapsed() / 1e6);
  }
  return median(rates);
}

export const machine = (): { cpu: string; cores: number; memoryGB: number; node: string } => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  memoryGB: Math.round(totalmem() / 2 ** 30),
  node: process.version,
});

/** The commit measured, with `+changes` where the working tree differs. */
export function commit(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+changes');
  } catch {
    return 'unknown';
  }
}

/** What memory a suite took. */
export interface Usage {
  /** Highest resident size of the suite's process; those it starts (brokers, peers, instances) not counted. */
  readonly peakRssBytes: number;
  /** Largest KV cache that it opened, bytes; 0: none. */
  readonly kvBytes: number;
}

let kvBytes = 0;

/** For the report: KV caches of so many bytes are open at once. */
export function noteKvBytes(bytes: number): void {
  kvBytes = Math.max(kvBytes, bytes);
}

/** Of this process until now. */
export const usage = (): Usage => ({ peakRssBytes: 1024 * process.resourceUsage().maxRSS, kvBytes });
