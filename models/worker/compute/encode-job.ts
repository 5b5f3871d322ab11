/** Segments being encoded, and which of them one run of a graph takes together. */
import type { CacheOutcome, EncodeSegment } from '../../../schemas/encoding.ts';
import type { KvEntry } from '../../kv-cache/kv-cache.ts';
import { type AttentionWorkspace, MAX_NEW_ROWS, MAX_STEP_ROWS } from '../../wasm/attention-workspace.ts';
import type { KvRow } from './candidate-run.ts';

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

/** Jobs of one run. */
export interface StepBatch {
  readonly jobs: Job[];
  /** The kernel that reaches the jobs' cached rows; undefined for a job that goes alone, through the runtime. */
  readonly workspace: AttentionWorkspace | undefined;
}

/** Users of few new rows whose cached rows one kernel reaches, as many as a step takes; any other goes alone. */
export function* stepBatches(
  jobs: readonly Job[],
  workspaceOf: (job: Job) => AttentionWorkspace | undefined,
): Generator<StepBatch> {
  const open = new Map<AttentionWorkspace, { jobs: Job[]; rows: number }>();
  for (const job of jobs) {
    const rows = job.segment.entities.length - job.done;
    const workspace = rows <= MAX_NEW_ROWS ? workspaceOf(job) : undefined;
    if (workspace === undefined) {
      yield { jobs: [job], workspace };
      continue;
    }
    const batch = open.get(workspace);
    if (batch !== undefined && batch.rows + rows <= MAX_STEP_ROWS) {
      batch.jobs.push(job);
      batch.rows += rows;
      continue;
    }
    if (batch !== undefined) yield { jobs: batch.jobs, workspace };
    open.set(workspace, { jobs: [job], rows });
  }
  for (const [workspace, { jobs: rest }] of open) yield { jobs: rest, workspace };
}
