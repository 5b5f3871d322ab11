/** Segments being encoded, and which of them one run of a graph takes together. */
import type { CacheOutcome, EncodeSegment } from '../../../schemas/encoding.ts';
import { MAX_ROWWISE } from '../../hstu/graph/graphs.ts';
import type { KvEntry } from '../../kv-cache/kv-cache.ts';
import type { KvRow } from './candidate-run.ts';
import { STEP_USERS } from './sessions.ts';

export interface Job {
  readonly segment: EncodeSegment;
  readonly userId: string;
  /** Where new K/V rows go; undefined when nothing of this segment is kept. */
  entry: KvEntry | undefined;
  /** Rows held before. */
  readonly cached: number;
  /** Rows done, cached or computed. */
  done: number;
  readonly outcome: CacheOutcome;
  /** Output rows from `segment.from` on: `(n - from, D)`. */
  readonly rows: Float32Array;
  /** Whether candidates will attend to this window: its newest row's K/V are then kept beside the cache. */
  readonly forCandidates: boolean;
  newest: KvRow | undefined;
}

/** Floats that the score matrices of one prefill may take: bounds users × rows². */
const PREFILL_FLOATS = 1024 * 1024;

/** Windows of similar length together (padding below a quarter), as many as the score matrices may take. */
export function* prefillBatches(
  sorted: readonly Job[],
  limit: number,
  { heads, layers }: { heads: number; layers: number },
): Generator<Job[]> {
  let batch: Job[] = [];
  const rowsOf = (job: Job) => Math.min(job.segment.entities.length, limit);
  for (const job of sorted) {
    const longest = rowsOf(job);
    const fits = (batch.length + 1) * longest ** 2 * (heads + layers) <= PREFILL_FLOATS;
    if (batch.length > 0 && (!fits || longest > 1.25 * rowsOf(batch[0]!) + 4)) {
      yield batch;
      batch = [];
    }
    batch.push(job);
  }
  if (batch.length > 0) yield batch;
}

/** Users with equally many new rows and equal capacity, cut into the sizes that the step graphs have; many rows go alone. */
export function* stepBatches(jobs: readonly Job[]): Generator<Job[]> {
  const groups = new Map<string, Job[]>();
  for (const job of jobs) {
    const rows = job.segment.entities.length - job.done;
    const key = rows <= MAX_ROWWISE ? `${rows}:${job.entry!.extent.capacity}` : `alone:${job.userId}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [job]);
    else group.push(job);
  }
  for (const group of groups.values()) {
    let rest = group;
    for (const users of STEP_USERS) {
      for (; rest.length >= users; rest = rest.slice(users)) yield rest.slice(0, users);
    }
  }
}
