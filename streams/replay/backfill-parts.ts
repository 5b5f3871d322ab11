/** What a backfill, its estimate and its verification have in common. */
import { join } from 'node:path';
import { UserSort } from '../../infra/files/user-sort.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { judgeCacheability } from '../../models/hstu/cacheability.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { BackfillSource } from './source.ts';

/** Events of a batch: enough that the encoder finds users of equal length, few enough to be held. */
export const BATCH_EVENTS = 8_192;
export const MAX_IN_FLIGHT_BATCHES = 3;

export interface BackfillProgress {
  readonly phase: 'sorting' | 'encoding';
  /** Records read, or events encoded. */
  readonly done: number;
  /** Where this call began. @default 0 */
  readonly start?: number;
  /** Of the events; unknown while they are sorted. */
  readonly total: number | undefined;
  readonly embeddings: number;
}

export interface BackfillCommon {
  readonly config: Config;
  readonly bundle: Bundle;
  readonly source: BackfillSource;
  /** What sorting may hold in memory, bytes. @default 64 MiB */
  readonly memoryBytes?: number | undefined;
  /** Encoder threads. @default encoder.workers */
  readonly parallel?: number | undefined;
  /** When aborted, what was read is finished and committed, then it stops. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: BackfillProgress) => void;
}

/** Gives the sort, and removes what it left on disk. */
export async function withSort<T>({ config, memoryBytes }: BackfillCommon, work: (sort: UserSort) => Promise<T>): Promise<T> {
  const sort = new UserSort({
    folder: join(config.state.path, 'backfill'),
    erasureAction: config.sequence.erasureAction,
    ...(memoryBytes !== undefined && { memoryBytes }),
  });
  try {
    return await work(sort);
  } finally {
    sort.close();
  }
}

/** Late events of one window are what its cache serves: little is enough. */
export const bulkEncoder = ({ config, bundle, parallel }: BackfillCommon): HstuEncoder => {
  const workers = parallel ?? config.encoder.workers;
  return new HstuEncoder(bundle, { workers, kvBudgetBytes: Math.min(config.encoder.kvBudgetBytes, workers * 64 * 2 ** 20) });
};

/** @throws PipelineError `CONFIG_INVALID` for what only stepping serves */
export function requireBulk(bundle: Bundle): void {
  const { verdict, reasons } = judgeCacheability(bundle.config);
  if (verdict === 're-encode')
    throw new PipelineError(
      'CONFIG_INVALID',
      `bundle ${bundle.config.name} cannot be encoded in bulk: ${reasons.join('; ')}; use replay without --mode`,
    );
}
