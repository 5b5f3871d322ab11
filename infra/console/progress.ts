/** A progress bar on a terminal; plain lines, now and then, where there is none. */
import { Presets, SingleBar } from 'cli-progress';
import { count, duration } from './format.ts';

export interface Progress {
  /** @param note figures that belong to the work: rates, ratios */
  update(done: number, note: string): void;
  stop(): void;
}

const LINE_EVERY_MS = 5_000;

/** Rate and time left are over what was done since the start of THIS bar: resumed work does not flatter them. */
export function startProgress(label: string, total: number, start = 0, stream: NodeJS.WriteStream = process.stderr): Progress {
  const began = performance.now();
  const rateOf = (done: number) => ((done - start) * 1000) / Math.max(1, performance.now() - began);
  const left = (done: number) => (done > start ? duration(((total - done) / rateOf(done)) * 1000) : '…');
  if (!stream.isTTY) return startLines(label, total, stream, rateOf, left);
  const bar = new SingleBar(
    {
      format: `${label} {bar} {percentage} % │ {done} of {all} │ {rate}/s │ {note} │ {left} left`,
      stream,
      hideCursor: true,
      fps: 8,
      barsize: 24,
    },
    Presets.shades_classic,
  );
  const payload = (done: number, note: string) => ({
    done: count(done),
    all: count(total),
    rate: count(rateOf(done)),
    left: left(done),
    note,
  });
  bar.start(total, start, payload(start, ''));
  return { update: (done, note) => bar.update(done, payload(done, note)), stop: () => bar.stop() };
}

function startLines(
  label: string,
  total: number,
  stream: NodeJS.WriteStream,
  rateOf: (done: number) => number,
  left: (done: number) => string,
): Progress {
  let printed = Number.NEGATIVE_INFINITY;
  return {
    update(done, note) {
      if (done < total && performance.now() - printed < LINE_EVERY_MS) return;
      printed = performance.now();
      const parts = [`${count(done)} of ${count(total)}`, `${count(rateOf(done))}/s`, note, `${left(done)} left`];
      stream.write(`${label}: ${parts.filter((part) => part !== '').join(', ')}\n`);
    },
    stop: () => undefined,
  };
}
