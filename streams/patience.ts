/** Tries again what met a fault that may pass: a broker that is away, a connection that was cut. */
import { PipelineError } from '../schemas/errors.ts';

export interface PatienceOptions {
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
  /** Told of every attempt that failed, and when the next is made. */
  readonly onTrouble?: ((error: PipelineError, delayMs: number) => void) | undefined;
  /** Attempts in all. @default no end */
  readonly attempts?: number;
}

const FIRST_DELAY_MS = 100;
const LAST_DELAY_MS = 5_000;

/**
 * What `step` gives, after as many attempts as it takes: waiting longer each time, 5 s at most.
 *
 * @throws what `step` throws and trying again does not mend, or that came last; `DOMException` `AbortError` when stopped
 */
export async function patiently<T>(
  step: () => Promise<T>,
  { signal, onTrouble, attempts = Number.POSITIVE_INFINITY }: PatienceOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await step();
    } catch (thrown) {
      if (!mayPass(thrown) || attempt >= attempts) throw thrown;
      const delayMs = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
      onTrouble?.(thrown, delayMs);
      await waited(delayMs, signal);
    }
  }
}

/** Resolves after that time, or when stopped. */
function waited(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/** A fault of the way to the brokers, not of who owns what, or of the state. */
export const mayPass = (thrown: unknown): thrown is PipelineError =>
  thrown instanceof PipelineError && (thrown.code === 'KAFKA_UNAVAILABLE' || thrown.code === 'KAFKA_FAILED');

/** Whether a wait was ended by its signal. */
export const isStopped = (thrown: unknown, signal: AbortSignal): boolean =>
  signal.aborted && thrown instanceof DOMException && thrown.name === 'AbortError';
