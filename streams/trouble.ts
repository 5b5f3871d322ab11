/** Why an instance is not ready, gathered: what it waits for, the fault it met last, and what its watch sees. */
import type { Logger } from '../infra/telemetry/log.ts';
import type { PipelineError } from '../schemas/errors.ts';
import type { LifecycleState } from './lifecycle.ts';
import type { Unready } from './watch.ts';

/** Running for this long after a fault, with nothing to commit, an instance is well again, ms. */
const SETTLED_MS = 5_000;

export class Trouble {
  readonly #log: Logger;
  readonly #now: () => number;
  #state: { readonly state: LifecycleState; readonly sinceMs: number };
  #failed: string | undefined;
  /** While it is opened. */
  #waiting: Unready | undefined;
  #fault: Unready | undefined;
  #seen: readonly Unready[] = [];
  /** What was logged. */
  readonly #told = new Set<string>();

  constructor(log: Logger, now: () => number = Date.now) {
    this.#log = log;
    this.#now = now;
    this.#state = { state: 'STARTING', sinceMs: now() };
  }

  become(state: LifecycleState): void {
    this.#state = { state, sinceMs: this.#now() };
    this.#waiting = undefined;
  }

  failed(error: unknown): void {
    this.#failed = error instanceof Error ? error.message : String(error);
  }

  waits({ code, message }: PipelineError): void {
    this.#waiting = { code, message, sinceMs: this.#waiting?.sinceMs ?? this.#now() };
  }

  recovers({ code, message }: PipelineError): void {
    this.#fault = { code, message: `going on from the last commit: ${message}`, sinceMs: this.#fault?.sinceMs ?? this.#now() };
  }

  /** Something was committed: the fault of before is over. */
  progressed(): void {
    this.#fault = undefined;
  }

  /** What the watch has seen in its newest round. */
  sees(unready: readonly Unready[]): void {
    this.#seen = unready;
    const messages = new Set(unready.map(({ topic, partition, code }) => `${code} ${topic}/${partition}`));
    for (const reason of unready) {
      const key = `${reason.code} ${reason.topic}/${reason.partition}`;
      if (!this.#told.has(key)) this.#log.warn({ ...reason, sinceMs: undefined }, 'not ready');
      this.#told.add(key);
    }
    for (const key of this.#told)
      if (!messages.has(key)) {
        this.#told.delete(key);
        this.#log.info({ was: key }, 'no longer a reason to be not ready');
      }
  }

  get health() {
    const { state, sinceMs } = this.#state;
    const quiet = this.#fault !== undefined && state === 'RUNNING' && this.#now() - sinceMs > SETTLED_MS;
    if (quiet) this.#fault = undefined;
    const unready = [this.#waiting, this.#fault, ...this.#seen].filter((reason) => reason !== undefined);
    return { state, sinceMs, unready, ...(this.#failed !== undefined && { reason: this.#failed }) };
  }
}
