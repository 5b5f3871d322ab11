/** A replay with what a person at a terminal expects: progress, Ctrl-C, memory. Shared by `replay` and `demo`. */
import { count, percent } from '../../infra/console/format.ts';
import { watchMemory } from '../../infra/console/memory.ts';
import { type Progress, startProgress } from '../../infra/console/progress.ts';
import type { Config } from '../../schemas/config.ts';
import { describeCatalogue } from '../catalogue.ts';
import { type ReplayProgress, type ReplayResult, type ReplayTotals, replay } from '../replay.ts';
import { onInterrupt } from './interrupt.ts';

export interface WatchedReplay extends ReplayResult {
  readonly peakRssBytes: number;
}

export interface RunReplayOptions {
  readonly limit?: number | undefined;
  readonly fresh?: boolean | undefined;
}

export async function runReplay(config: Config, { limit, fresh = false }: RunReplayOptions): Promise<WatchedReplay> {
  const memory = watchMemory();
  const interrupt = onInterrupt(() =>
    process.stderr.write('\nstopping: finishing what was read (Ctrl-C again to end at once)\n'),
  );
  const bars = new ProgressBars();
  try {
    const result = await replay({
      config,
      limit,
      fresh,
      signal: interrupt.signal,
      onCatalogue: (report) => process.stderr.write(`${describeCatalogue(report)}\n`),
      onProgress: (progress) => bars.show(progress),
    });
    bars.stop();
    return { ...result, peakRssBytes: memory.peakRssBytes };
  } finally {
    bars.stop();
    interrupt.dispose();
    memory.stop();
  }
}

/** Where an interrupted replay stopped, and how to go on. */
export const stoppedAt = ({ position, end, runId }: ReplayResult): string =>
  `stopped after ${count(position)} of ${count(end)} events; all of them are committed (run ${runId}). The same command goes on from there.`;

/** One bar a phase. */
class ProgressBars {
  #phase: ReplayProgress['phase'] | undefined;
  #bar: Progress | undefined;

  show({ phase, position, end, start, totals }: ReplayProgress): void {
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#bar = phase === 'restoring' ? startProgress('restoring state', start) : startProgress('replaying', end, start);
    }
    this.#bar?.update(position, phase === 'running' ? noteOf(totals) : '');
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}

const noteOf = ({ cacheHits, embeddings, rowsComputed, tokens }: ReplayTotals): string =>
  `cache ${percent(cacheHits / embeddings)}, ${(rowsComputed / Math.max(1, tokens)).toFixed(2)} rows an event`;
