/** Warm standby: the local stores of partitions that others own, kept near the end of their changelogs. */
import type { LmdbStateStore } from '../../infra/store/lmdb-state-store.ts';
import { messageOf } from '../../schemas/errors.ts';
import { catchUp, type RestoreParts, restoreState, type StateMeta } from './restore-state.ts';

export interface StandbyOptions {
  /** Of the input topics: all partition numbers. */
  readonly partitions: number;
  /** Wait between two looks at the changelogs, ms. @default 1000 */
  readonly intervalMs?: number;
}

/** After a fault, a partition is left alone for this long, ms. */
const RETRY_MS = 60_000;

/**
 * Follows every partition that this instance does not own, so that taking one over reads a second's worth of changelog, not
 * all of it. A fault here is told and stops nothing: without a standby the state is restored as ever.
 */
export class Standby {
  readonly #parts: RestoreParts;
  readonly #options: Required<StandbyOptions>;
  readonly #stores = new Map<number, LmdbStateStore>();
  /** Partitions that could not be followed, which was said, and when to try again: `performance.now()`, ms. */
  readonly #retryAtMs = new Map<number, number>();
  #owned: readonly number[] = [];
  #stop = new AbortController();
  #round: Promise<void> = Promise.resolve();

  constructor(parts: RestoreParts, options: StandbyOptions) {
    // Progress is told of partitions that are waited for.
    const { onNotice } = parts.observer;
    this.#parts = { ...parts, observer: onNotice === undefined ? {} : { onNotice } };
    this.#options = { intervalMs: 1_000, ...options };
  }

  /** Lets go of the stores of `partitions`, which are this instance's own now, and follows all others. */
  async own(partitions: readonly number[]): Promise<void> {
    await this.#halt();
    this.#owned = partitions;
    for (const partition of partitions) {
      await this.#stores.get(partition)?.close();
      this.#stores.delete(partition);
    }
  }

  /** Begins to follow; what `own` named last is left alone. */
  follow(): void {
    this.#stop = new AbortController();
    this.#round = this.#run(this.#stop.signal);
  }

  async close(): Promise<void> {
    await this.#halt();
    for (const store of this.#stores.values()) await store.close();
    this.#stores.clear();
  }

  async #halt(): Promise<void> {
    this.#stop.abort();
    await this.#round;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      for (let partition = 0; partition < this.#options.partitions && !signal.aborted; partition++)
        if (!this.#owned.includes(partition) && performance.now() >= (this.#retryAtMs.get(partition) ?? 0))
          await this.#advance(partition, signal);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#options.intervalMs);
        signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
      });
    }
  }

  async #advance(partition: number, signal: AbortSignal): Promise<void> {
    try {
      const store = this.#stores.get(partition);
      const meta = store?.meta() as StateMeta | undefined;
      if (store !== undefined && meta?.position !== undefined) {
        const from = meta.changelogOffset - 1;
        if ((await catchUp(partition, this.#parts, signal, store, { from, known: meta.position })) !== undefined) return;
      }
      // The first look, or a changelog that was reset meanwhile.
      await store?.close();
      this.#stores.delete(partition);
      const restored = await restoreState(partition, this.#parts, signal, { alone: false });
      this.#stores.set(partition, restored.store);
    } catch (error) {
      if (signal.aborted) return;
      this.#retryAtMs.set(partition, performance.now() + RETRY_MS);
      this.#parts.observer.onNotice?.('a partition cannot be followed as a standby', { partition, reason: messageOf(error) });
    }
  }
}
