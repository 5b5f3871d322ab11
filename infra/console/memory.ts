/** Resident memory of this process, sampled over a piece of work; and of another process now. */
import { execFileSync } from 'node:child_process';

export interface MemoryWatch {
  /** Highest resident size seen so far, bytes. */
  readonly peakRssBytes: number;
  stop(): void;
}

export function watchMemory(everyMs = 200): MemoryWatch {
  let peak = process.memoryUsage.rss();
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, everyMs);
  timer.unref();
  return {
    get peakRssBytes() {
      peak = Math.max(peak, process.memoryUsage.rss());
      return peak;
    },
    stop: () => clearInterval(timer),
  };
}

/** Resident bytes of a process, or undefined where the system does not say. */
export function rssOf(pid: number): number | undefined {
  try {
    const kibibytes = Number(
      execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
    );
    return Number.isFinite(kibibytes) && kibibytes > 0 ? 1024 * kibibytes : undefined;
  } catch {
    return undefined;
  }
}
