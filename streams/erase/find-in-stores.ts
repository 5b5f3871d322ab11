/** What the local stores and ClickHouse hold of a user. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { countUserRows, erasureTimes } from '../../infra/clickhouse/user-rows.ts';
import { peekKeys } from '../../infra/store/peek-state-store.ts';
import { UserKeys } from '../../operators/state-keys.ts';
import { messageOf } from '../../schemas/errors.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { type Finding, nothingIn } from './finding.ts';

/**
 * Looks into the stores of this machine, of instances that run and of those that were stopped.
 *
 * @param returned whether the user came back after the erasure: then there may be records
 */
export async function findInStores({ state, kafka }: LiveConfig, userId: string, returned: boolean): Promise<Finding> {
  const folder = join(state.path, kafka.applicationId);
  const place = `state folder ${folder}`;
  const partitions = (await readdir(folder).catch(() => [])).filter((name) => /^\d+$/.test(name));
  if (partitions.length === 0) return nothingIn(place, 'none on this machine: ask on those where instances run');
  const keys = new UserKeys(userId);
  const { first, last } = keys.range;
  let records = 0;
  const unread: string[] = [];
  for (const partition of partitions)
    try {
      const found = await peekKeys(join(folder, partition), first, last);
      records += (found ?? []).filter((key) => keys.owns(key)).length;
    } catch (error) {
      unread.push(messageOf(error));
    }
  const note = unread.length > 0 ? unread.join('; ') : `${partitions.length} partition(s)`;
  return { place, leftOver: (returned ? 0 : records) + unread.length, expiring: 0, later: returned ? records : 0, note };
}

export interface RowsSearch {
  readonly userId: string;
  /** Of the deployment; undefined where there is none, and nobody keeps erasures. */
  readonly liveRunId: string | undefined;
  /** Timestamp of the last erasure that the topics hold. */
  readonly erasedAtMs: number | undefined;
}

/** Looks into every table, for every run. Only a deployment's sink takes rows again after an erasure. */
export async function findInClickHouse(
  clickhouse: ClickHouse,
  { userId, liveRunId, erasedAtMs = 0 }: RowsSearch,
): Promise<Finding[]> {
  const none = { actionsMs: 0, outputsMs: 0 };
  const known = liveRunId === undefined ? none : await erasureTimes(clickhouse, liveRunId, userId);
  const times = { actionsMs: Math.max(known.actionsMs, erasedAtMs), outputsMs: Math.max(known.outputsMs, erasedAtMs) };
  const rows = await countUserRows(clickhouse, userId, times);
  const where = `ClickHouse at ${clickhouse.where}`;
  if (rows.length === 0) return [nothingIn(where)];
  return rows.map(({ table, runId, before, after }) => {
    const mayReturn = runId === liveRunId && times.actionsMs > 0;
    return {
      place: `${where}, ${table} of run ${runId}`,
      leftOver: mayReturn ? before : before + after,
      expiring: 0,
      later: mayReturn ? after : 0,
      note: '',
    };
  });
}
