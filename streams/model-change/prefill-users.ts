/** Fills the cache of a model that is about to serve, in the background: live events come first. */
import type { Encoder } from '../../operators/index.ts';
import type { EncoderStats, EncodeSegment } from '../../schemas/encoding.ts';

export interface PrefillOptions {
  /** Most recently used first. */
  readonly users: readonly string[];
  /** A user's window as it is now, asked about its newest event; undefined for one who is not in memory here. */
  readonly windowOf: (userId: string) => Omit<EncodeSegment, 'from'> | undefined;
  readonly encoder: Encoder & {
    stats(): Promise<Pick<EncoderStats, 'kvBytesUsed' | 'evictions' | 'users'>>;
    touch(userIds: readonly string[]): Promise<void>;
  };
  /** At most. */
  readonly usersPerSecond: number;
  /** KV cache that may be filled, bytes. */
  readonly maxBytes: number;
  /** Whether live events are under way. */
  readonly busy: () => boolean;
  readonly onProgress: (progress: PrefillProgress) => void;
  /** Aborted, the prefill ends at once, and what it has filled stays. */
  readonly signal: AbortSignal;
}

export interface PrefillProgress {
  /** Users looked at. */
  readonly done: number;
  /** Of them, those that are in the cache now. */
  readonly cached: number;
  readonly total: number;
}

/** Where events are always under way, a user is encoded after so many times the usual pause all the same. */
const LONGEST_PAUSE = 4;
/** How often it is asked whether events are under way, ms. */
const LOOK_MS = 2;

/**
 * One user at a time, the most recent first, until all are done or the memory is used up; at the end the cache's order of use is
 * that of `users`.
 *
 * - **rate** at most `usersPerSecond`, at most half of one core's time, and a quarter of that while events are always under way
 */
export async function prefillUsers(options: PrefillOptions): Promise<PrefillProgress> {
  const { users, windowOf, encoder, usersPerSecond, maxBytes, onProgress, signal } = options;
  const cached: string[] = [];
  /** What a user takes, at most so far. */
  let largest = 1;
  let progress: PrefillProgress = { done: 0, cached: 0, total: users.length };
  let { kvBytesUsed, evictions } = await encoder.stats();
  onProgress(progress);
  for (const [i, userId] of users.entries()) {
    if (signal.aborted || kvBytesUsed + largest > maxBytes) break;
    const began = performance.now();
    const window = windowOf(userId);
    const known = window !== undefined && window.entities.length > 0;
    if (known) {
      await encoder.encode([{ userId, segments: [{ ...window, from: window.entities.length - 1 }] }], { workClass: 'backfill' });
      const stats = await encoder.stats();
      // A model without anything to cache, or a cache that is full: more would only push out those before.
      if (stats.users === 0 || stats.evictions > evictions) break;
      largest = Math.max(largest, stats.kvBytesUsed - kvBytesUsed);
      ({ kvBytesUsed, evictions } = stats);
      cached.push(userId);
    }
    progress = { done: i + 1, cached: cached.length, total: users.length };
    onProgress(progress);
    if (!known) continue;
    const tookMs = performance.now() - began;
    await pause(Math.max(1000 / usersPerSecond - tookMs, tookMs), options);
  }
  await encoder.touch(cached.reverse());
  return progress;
}

/** Waits for `pauseMs`, and on while events are under way, but not for ever. */
async function pause(pauseMs: number, { busy, signal }: Pick<PrefillOptions, 'busy' | 'signal'>): Promise<void> {
  const began = performance.now();
  await sleep(pauseMs, signal);
  while (busy() && !signal.aborted && performance.now() - began < LONGEST_PAUSE * pauseMs) await sleep(LOOK_MS, signal);
}

function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, delayMs);
    signal.addEventListener('abort', end, { once: true });
  });
}
