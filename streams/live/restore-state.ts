/** Brings a partition's local store up to date with its changelog: from where it stands, or from nothing. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { TOMBSTONES_KEPT_MS } from '../../infra/kafka/topics.ts';
import { type LmdbStateStore, openStateStore, type StateStoreMeta } from '../../infra/store/lmdb-state-store.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import { decodePosition, isPosition } from '../../schemas/position-record.ts';
import type { StateChange, StatePosition } from '../../schemas/state.ts';
import type { TaskParts } from './partition-task.ts';
import { headLost, requireWhole, whatIsMissing } from './whole-state.ts';

/** Stored with every commit, in the same transaction of the local store. */
export interface StateMeta extends StateStoreMeta {
  /** Absent while a restore from nothing is under way. */
  readonly position?: StatePosition;
  /** Offset after the newest changelog record that is applied; that record is the position's. */
  readonly changelogOffset: number;
  readonly savedAtMs: number;
}

export interface RestoredState {
  readonly store: LmdbStateStore;
  readonly stateId: string;
  /** Absent: nothing was ever committed. */
  readonly position: StatePosition | undefined;
  /** Timestamp of the position's record, ms since the epoch; absent with it. */
  readonly positionedAtMs: number | undefined;
}

/** Where the changelog's newest position stands. */
interface Reached {
  readonly position: StatePosition;
  readonly positionedAtMs: number;
}

export type RestoreParts = Pick<TaskParts, 'config' | 'changelog' | 'requireCompatible' | 'observer' | 'now'>;

/** Half of the time for which tombstones are kept: a store that was away for longer may have missed a removal. */
const MAX_AGE_MS = TOMBSTONES_KEPT_MS / 2;

/**
 * Opens the partition's store and applies what the changelog has more.
 *
 * A store that is damaged, older than the changelog's tombstones, or not of this changelog (after a reset) is emptied, which is
 * said, and restored from the start.
 *
 * @param alone the caller is the partition's only producer: nobody else writes, so the state is to be whole
 * @throws PipelineError `STATE_INCOMPATIBLE`, `STATE_CORRUPTED` (of the changelog), `STATE_LOST` where records of a whole state are
 *   missing, Kafka's; `AbortError` when stopped
 */
export async function restoreState(
  partition: number,
  parts: RestoreParts,
  signal: AbortSignal,
  { alone }: { readonly alone: boolean },
): Promise<RestoredState> {
  const { config, changelog, observer, now } = parts;
  const path = join(config.state.path, config.kafka.applicationId, String(partition));
  const { store, rebuilt } = await openStateStore({ path });
  try {
    const meta = store.meta() as StateMeta | undefined;
    const { first, end } = await changelog.offsets(partition);
    let reason = rebuilt ?? (meta && whyUnusable(meta, { first, end, now: now() }));
    if (reason === undefined && meta?.position !== undefined) {
      // Begins at the newest record that the store has, to see whether it is still the same.
      const from = meta.changelogOffset - 1;
      const reached = await catchUp(partition, parts, signal, store, { from, known: meta.position });
      const missing = alone && reached !== undefined ? whatIsMissing(reached.position, store.count) : undefined;
      if (reached !== undefined && missing === undefined) {
        if (alone && first > 0) observer.onNotice?.('the changelog has lost its beginning', headLost(partition, first));
        return { store, stateId: reached.position.stateId, ...reached };
      }
      reason = missing ?? 'it is of another state than the changelog';
    }
    if (meta !== undefined || rebuilt !== undefined) {
      observer.onNotice?.('the local store is restored from the changelog', { partition, path, reason });
      await store.clear();
    }
    const reached = await catchUp(partition, parts, signal, store, { from: first });
    if (alone) requireWhole(partition, config.kafka, { first, position: reached?.position, records: store.count });
    return {
      store,
      stateId: reached?.position.stateId ?? randomUUID(),
      position: reached?.position,
      positionedAtMs: reached?.positionedAtMs,
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Applies the changelog from `from` to its end; undefined where it holds no position, or another state's than `known`. */
export async function catchUp(
  partition: number,
  { changelog, requireCompatible, observer, now }: RestoreParts,
  signal: AbortSignal,
  store: LmdbStateStore,
  { from, known }: { readonly from: number; readonly known?: StatePosition },
): Promise<Reached | undefined> {
  const where = `partition ${partition}`;
  let reached: Reached | undefined;
  let foreign = false;
  const changesOf = (records: readonly SourceRecord[]): StateChange[] => {
    const changes = new Map<string, StateChange>();
    for (const { key, value, timestampMs = 0 } of records) {
      if (key === null || key === undefined) continue;
      if (isPosition(key)) {
        const position = decodePosition(value as Uint8Array, where);
        reached = { position, positionedAtMs: timestampMs };
        foreign ||= known !== undefined && position.stateId !== known.stateId;
      } else {
        // The last of a key wins: the earlier ones need not be written.
        changes.set((key as Buffer).toString('latin1'), { key, value: value as Uint8Array | null });
      }
    }
    return [...changes.values()];
  };
  await changelog.readToEnd({
    partition,
    from,
    signal,
    apply: async ({ records, nextOffset }, end) => {
      const changes = changesOf(records);
      if (foreign) return;
      const newest = records.at(-1)?.position.offset ?? nextOffset - 1;
      const position = reached?.position ?? known;
      await store.write(changes, {
        ...(position !== undefined && { position }),
        changelogOffset: newest + 1,
        savedAtMs: now(),
      });
      observer.onRestore?.(partition, nextOffset - from, Math.max(nextOffset, end) - from);
    },
  });
  if (foreign || reached === undefined) return undefined;
  // Of the last alone: a promotion or a reset has put another state behind what lies before it.
  requireCompatible(reached.position.signature, where);
  return reached;
}

function whyUnusable(
  { changelogOffset, savedAtMs, position }: StateMeta,
  { first, end, now }: { readonly first: number; readonly end: number; readonly now: number },
): string | undefined {
  if (position === undefined) return 'its restoring was broken off';
  if (changelogOffset > end) return `it stands at changelog offset ${changelogOffset}, and the changelog ends at ${end}`;
  if (changelogOffset <= first) return `it stands at changelog offset ${changelogOffset}, and the changelog begins at ${first}`;
  if (now - savedAtMs > MAX_AGE_MS) return `it was last written ${Math.round((now - savedAtMs) / 86_400_000)} days ago`;
  return undefined;
}
