/** A finished run in ClickHouse becomes what a deployment's questions are asked about. */
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { type FeedOffset, readOffsets } from '../../infra/clickhouse/feed/feed-offsets.ts';
import { promotedRun, promotionsOf, writePromotion } from '../../infra/clickhouse/promotions.ts';
import { type RunProgress, readProgress, readRuns } from '../../infra/clickhouse/readers.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { rangesOf } from '../../schemas/run-record.ts';

/** What a promotion is written under. */
export const deploymentName = ({ kafka }: Config): string => kafka?.applicationId ?? '';

/**
 * Looks whether a run may stand for the deployment. The deployment's own name may always: it takes a promotion back.
 *
 * @returns the run that stands for it now; undefined for the newest
 * @throws PipelineError `CONFIG_INVALID` naming every reason why the run does not fit
 */
export async function planStoredPromotion(clickhouse: ClickHouse, config: Config, runId: string): Promise<string | undefined> {
  const name = deploymentName(config);
  const now = await promotedRun(clickhouse, name);
  const stored = await readOffsets(clickhouse, name);
  if (runId === name && stored.size > 0) return now;
  const run = await readProgress(clickhouse, runId);
  if (run === undefined) {
    const runs = (await readRuns(clickhouse)).map((one) => one.runId);
    throw new PipelineError(
      'CONFIG_INVALID',
      `run ${runId}: not in ClickHouse at ${clickhouse.where}, which holds ${runs.join(', ') || 'none'}`,
    );
  }
  const problems = staleOrPartial(run, stored, config);
  if (problems.length > 0)
    throw new PipelineError('CONFIG_INVALID', [`run ${runId} cannot be promoted:`, ...problems].join('\n  '));
  return now;
}

/** Carries it out: one row, seen by every question after it. Done again, it changes nothing. */
export const promoteStored = (clickhouse: ClickHouse, config: Config, runId: string): Promise<void> =>
  writePromotion(clickhouse, deploymentName(config), runId);

/** @throws PipelineError `CONFIG_INVALID` for a run that stands for a deployment */
export async function requireNotPromoted(clickhouse: ClickHouse, runId: string): Promise<void> {
  const names = await promotionsOf(clickhouse, runId);
  if (names.length === 0) return;
  throw new PipelineError(
    'CONFIG_INVALID',
    `run ${runId} is promoted${names[0] === '' ? '' : ` for ${names.join(', ')}`}: promote another run first (runs promote … --to clickhouse)`,
  );
}

/** @param stored how far the sink has stored live, by `partition/topic` */
function staleOrPartial(run: RunProgress, stored: ReadonlyMap<string, FeedOffset>, { kafka }: Config): string[] {
  const problems: string[] = [];
  if (!run.finished)
    problems.push(`it is not finished: ${run.position} of ${run.total ?? '?'} events; the same replay goes on with it`);
  if (run.facts['mode'] === 'as-of') problems.push('it is of --mode as-of: of a moment, and not the newest of anyone');
  const ends = new Map(rangesOf(run).map(({ topic, partition, to }) => [`${partition}/${topic}`, to]));
  for (const [place, { nextOffset: next }] of stored) {
    if (kafka === undefined || !place.endsWith(`/${kafka.topics.userActions}`)) continue;
    const end = ends.get(place);
    if (end === undefined || end < next)
      problems.push(
        `of ${place.replace(/^(\d+)\/(.*)$/, '$2/$1')} live has stored up to offset ${next}, the run ${end === undefined ? 'was not made of it' : `ends at ${end}`}: it is older`,
      );
  }
  return problems;
}
