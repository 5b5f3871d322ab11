/** Tells a machine whose clock is behind from producers whose clocks are ahead: to both, good records look as if they came from the future. */
import type { OutputBatch } from '../../schemas/batch.ts';
import { PipelineError } from '../../schemas/errors.ts';

export interface ClockWitness {
  /** ms since the epoch, by this machine. */
  readonly now: () => number;
  /** Whether the changelog holds anything of after a moment: what the brokers, and other instances, wrote by their clocks. */
  readonly hasAnythingAfter: (timeMs: number) => Promise<boolean>;
  /** Commits nothing new, so that the changelog holds the brokers' own time of now. */
  readonly commitNothing: () => Promise<void>;
}

/** What clocks that are kept in step may differ by, and more, ms. */
const TOLERANCE_MS = 60_000;
/** The brokers' clock is not asked for again before this is over, ms. */
const ASKED_AGAIN_MS = 10_000;

export class ClockCheck {
  readonly #witness: ClockWitness;
  #goodUntilMs = Number.NEGATIVE_INFINITY;

  constructor(witness: ClockWitness) {
    this.#witness = witness;
  }

  /**
   * Of a batch half of which, or more, is refused for its time and was written after this machine's now: asks the changelog, which no
   * producer writes to, whether it is this machine that is behind.
   *
   * @throws PipelineError `CLOCK_OFF`, with nothing of the batch committed
   */
  async require({ source, deadLetters }: OutputBatch): Promise<void> {
    const nowMs = this.#witness.now();
    const refused = new Set(deadLetters.filter(({ code }) => code === 'TIME_INVALID').map(({ position }) => position.offset));
    if (2 * refused.size < source.records.length || refused.size === 0) return;
    const ahead = source.records
      .flatMap(({ position, timestampMs = 0 }) => (refused.has(position.offset) ? [timestampMs - nowMs] : []))
      .filter((aheadMs) => aheadMs > TOLERANCE_MS)
      .sort((a, b) => a - b);
    if (2 * ahead.length < source.records.length || performance.now() < this.#goodUntilMs) return;
    if (!(await this.#isBehind())) {
      this.#goodUntilMs = performance.now() + ASKED_AGAIN_MS;
      return;
    }
    const { topic, partition, records } = source;
    const [first, last] = [records[0]!.position.offset, records.at(-1)!.position.offset];
    throw new PipelineError(
      'CLOCK_OFF',
      `the clock of this machine says ${new Date(nowMs).toISOString()}, and is about ${spanOf(ahead[ahead.length >> 1]!)} behind the brokers': ${refused.size} of the ${records.length} records at ${topic}/${partition}, offsets ${first} to ${last}, seem to come from the future. None of them was committed. Set the clock (NTP), and start again`,
    );
  }

  async #isBehind(): Promise<boolean> {
    const { now, hasAnythingAfter, commitNothing } = this.#witness;
    if (await hasAnythingAfter(now() + TOLERANCE_MS)) return true;
    await commitNothing();
    return hasAnythingAfter(now() + TOLERANCE_MS);
  }
}

function spanOf(ms: number): string {
  const minutes = Math.round(ms / 60_000);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
