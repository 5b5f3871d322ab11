/** Partitions that cannot be read on now: which, since when, and why; each is told once when it begins to stand and once when it goes on. */
import type { ErrorCode, PipelineError } from '../../schemas/errors.ts';

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** A partition that cannot be read on now: it is tried again, for ever, and is told here meanwhile. */
export interface StandingPartition extends TopicPartition {
  /** Where the next record is to be found. */
  readonly offset: number;
  readonly code: ErrorCode;
  readonly reason: string;
  /** ms since the epoch. */
  readonly sinceMs: number;
}

export interface StandingObserver {
  /** A partition begins to stand; told once, until it moves. */
  readonly onStanding?: ((at: StandingPartition, error: PipelineError) => void) | undefined;
  /** It goes on. */
  readonly onMoving?: ((at: TopicPartition) => void) | undefined;
}

const FIRST_RETRY_MS = 200;
const LONGEST_RETRY_MS = 5_000;

interface Stand {
  at: StandingPartition;
  attempts: number;
  retryAtMs: number;
}

export class Standing {
  readonly #observer: StandingObserver;
  readonly #stands = new Map<string, Stand>();

  constructor(observer: StandingObserver) {
    this.#observer = observer;
  }

  list(): readonly StandingPartition[] {
    return [...this.#stands.values()].map(({ at }) => at);
  }

  has(at: TopicPartition): boolean {
    return this.#stands.has(keyOf(at));
  }

  /** @returns how long to wait before it is tried again, ms */
  begin({ topic, partition }: TopicPartition, offset: number, error: PipelineError): number {
    const known = this.#stands.get(keyOf({ topic, partition }));
    const attempts = (known?.attempts ?? 0) + 1;
    const waitMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(attempts - 1, 10));
    const at = { topic, partition, offset, code: error.code, reason: error.message, sinceMs: known?.at.sinceMs ?? Date.now() };
    this.#stands.set(keyOf(at), { at, attempts, retryAtMs: performance.now() + waitMs });
    if (known === undefined) this.#observer.onStanding?.(at, error);
    return waitMs;
  }

  /** Whether a partition that stands is not to be tried yet. */
  waits(at: TopicPartition): boolean {
    const stand = this.#stands.get(keyOf(at));
    return stand !== undefined && performance.now() < stand.retryAtMs;
  }

  end({ topic, partition }: TopicPartition): void {
    if (this.#stands.delete(keyOf({ topic, partition }))) this.#observer.onMoving?.({ topic, partition });
  }

  /** It is nobody's any more: not told. */
  forget(at: TopicPartition): void {
    this.#stands.delete(keyOf(at));
  }

  clear(): void {
    this.#stands.clear();
  }
}

export const keyOf = ({ topic, partition }: TopicPartition): string => `${partition}/${topic}`;
