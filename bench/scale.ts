/**
 * Many users with state on this machine: the changelog is filled in bulk by the pipeline's own pages, and `hstu-streams run`
 * restores it into an empty store, restarts from the store, and is then given as many events as it takes, of users by a heavy tail.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { partitionOf } from '../infra/kafka/keyed-producer.ts';
import { type OutgoingRecord, PartitionProducer } from '../infra/kafka/partition-producer.ts';
import { changelogOf } from '../infra/kafka/topics.ts';
import { UserSequence } from '../operators/index.ts';
import { changesOf } from '../operators/state-pages.ts';
import { encodePosition, POSITION_KEY } from '../schemas/position-record.ts';
import type { StatePosition } from '../schemas/state.ts';
import { lruHitRatio } from '../streams/plan.ts';
import { signatureOf } from '../streams/state-signature.ts';
import {
  type Deployment,
  deploy,
  ENTITIES,
  Load,
  PARTITIONS,
  quantileBetween,
  type RunningInstance,
  sleep,
  userOf,
} from './deployment.ts';
import { noteKvBytes } from './measure.ts';

const KV_BUDGET_BYTES = 2_000_000_000;
/** 1: the k-th most active user has a share of 1/k; 0.8: what `plan` assumes when it is not told. */
const SKEWS = [1, 0.8] as const;
/** Events that wait for the instance, at most. */
const AHEAD = 10_000;
const USERS_A_COMMIT = 2_000;
const HISTORY_ENDS_MS = 1_700_000_000_000;

export interface ScaleOptions {
  readonly users: number;
  /** Of each load: first the cache settles, then it is measured. */
  readonly warmSeconds: number;
  readonly seconds: number;
}

export interface ScaleFigures {
  readonly users: number;
  readonly events: number;
  readonly fillSeconds: number;
  readonly changelogBytes: number;
  /** From the start of the process, with an empty store, to RUNNING. */
  readonly restoreSeconds: number;
  readonly restoredRecords: number;
  readonly restoredRssBytes: number;
  /** On disk, all partitions. */
  readonly storeBytes: number;
  /** From the start of the process, with the store, to RUNNING. */
  readonly restartSeconds: number;
  readonly restartedRssBytes: number;
  readonly loads: readonly LoadFigure[];
}

export interface LoadFigure {
  readonly skew: number;
  readonly eventsPerSecond: number;
  /** Of published embeddings, those for which the cache had all but the new rows. */
  readonly hitRatio: number;
  readonly coldRatio: number;
  /** What `plan`'s formula foretells of finding a user in the cache, `1 - coldRatio`, for as many cached users as there were. */
  readonly foretoldHitRatio: number;
  readonly rowsPerEvent: number;
  readonly kvUsers: number;
  readonly kvBytes: number;
  readonly peakRssBytes: number;
  readonly commitP50Ms: number;
}

/** How often `benchScale` reports. */
export const SCALE_FIGURES = 4 + SKEWS.length;

export async function benchScale(
  { users, warmSeconds, seconds }: ScaleOptions,
  onProgress: (done: number, label: string) => void,
): Promise<ScaleFigures> {
  onProgress(0, 'broker');
  noteKvBytes(KV_BUDGET_BYTES);
  const deployment = await deploy('scale', { encoder: { kvBudgetBytes: KV_BUDGET_BYTES } });
  try {
    onProgress(1, 'filling the changelog');
    const began = performance.now();
    const events = await fill(deployment, users);
    const fillSeconds = (performance.now() - began) / 1e3;
    const changelogBytes = await bytesOf(join(deployment.folder, 'kafka'), changelogOf(deployment.config.kafka));
    onProgress(2, 'restoring');
    const restored = await deployment.start(1_800_000);
    const after = await restored.scrape();
    const restoredRecords = after.sum('hstu_restore_total_records');
    await restored.instance.stop();
    onProgress(3, 'starting again');
    const running = await deployment.start(600_000);
    const restarted = await running.scrape();
    const load = await Promise.all(
      SKEWS.map((skew, i) =>
        Load.open(deployment, { users, skew, fromMs: HISTORY_ENDS_MS + i * 86_400_000, prefix: `skew-${skew}-` }),
      ),
    );
    const loads: LoadFigure[] = [];
    for (const [i, skew] of SKEWS.entries()) {
      onProgress(4 + i, `load, skew ${skew}`);
      loads.push(await underLoad(running, load[i]!, { users, skew, warmSeconds, seconds }));
    }
    await Promise.all(load.map((each) => each.close()));
    onProgress(SCALE_FIGURES, 'done');
    return {
      users,
      events,
      fillSeconds,
      changelogBytes,
      restoreSeconds: restored.startMs / 1e3,
      restoredRecords,
      restoredRssBytes: after.sum('hstu_process_resident_memory_bytes'),
      storeBytes: await bytesOf(join(deployment.folder, 'instance')),
      restartSeconds: running.startMs / 1e3,
      restartedRssBytes: restarted.sum('hstu_process_resident_memory_bytes'),
      loads,
    };
  } finally {
    await deployment.close();
  }
}

async function underLoad(
  running: RunningInstance,
  load: Load,
  { users, skew, warmSeconds, seconds }: ScaleOptions & { readonly skew: number },
): Promise<LoadFigure> {
  const stop = new AbortController();
  const loading = load.saturate(running, AHEAD, stop.signal);
  await sleep(1e3 * warmSeconds);
  const before = await running.scrape();
  let last = before;
  let peakRssBytes = 0;
  while (last.atMs - before.atMs < 1e3 * seconds) {
    await sleep(1_000);
    last = await running.scrape();
    peakRssBytes = Math.max(peakRssBytes, last.sum('hstu_process_resident_memory_bytes'));
  }
  stop.abort();
  await loading;
  const grown = (name: string, labels?: string) => last.sum(name, labels) - before.sum(name, labels);
  const embeddings = grown('hstu_cache_outcomes_total');
  const kvUsers = last.sum('hstu_kv_cache_users');
  return {
    skew,
    eventsPerSecond: (1e3 * grown('hstu_tokens_total')) / (last.atMs - before.atMs),
    hitRatio: grown('hstu_cache_outcomes_total', 'outcome="hit"') / embeddings,
    coldRatio: grown('hstu_cache_outcomes_total', 'outcome="cold"') / embeddings,
    foretoldHitRatio: lruHitRatio(users, kvUsers, skew),
    rowsPerEvent: grown('hstu_rows_computed_total') / grown('hstu_tokens_total'),
    kvUsers,
    kvBytes: last.sum('hstu_kv_cache_used_bytes'),
    peakRssBytes,
    commitP50Ms: 1e3 * quantileBetween(before, last, 'hstu_commit_duration_seconds', 0.5),
  };
}

/** Writes all users' pages, and with every commit a position before the first action. @returns events in all */
async function fill({ kafka, config, bundle }: Deployment, users: number): Promise<number> {
  const { seenLimit } = config.sequence;
  const position: StatePosition = {
    stateId: 'bench',
    inputs: { [config.kafka.topics.userActions]: 0 },
    signature: signatureOf(bundle, seenLimit),
  };
  const head = { key: POSITION_KEY, value: encodePosition(position) };
  const topic = changelogOf(config.kafka);
  const producers = Array.from({ length: PARTITIONS }, (_, partition) => new PartitionProducer(kafka, config.kafka, partition));
  for (const producer of producers) await producer.open();
  const waiting = producers.map(() => ({ users: 0, records: [] as OutgoingRecord[] }));
  const committing = producers.map(() => Promise.resolve() as Promise<unknown>);
  const flush = async (partition: number) => {
    const { records } = waiting[partition]!;
    waiting[partition] = { users: 0, records: [] };
    await committing[partition];
    committing[partition] = producers[partition]!.commit({ records: new Map([[topic, [...records, head]]]), inputs: {} });
  };
  let events = 0;
  for (let rank = 1; rank <= users; rank++) {
    const length = historyOf(rank, users, bundle.config.window.maxLength);
    const sequence = new UserSequence({ window: bundle.config.window, seenLimit });
    for (let i = 0; i < length; i++) {
      const entity = 1 + ((rank * 7919 + i * 104_729) % ENTITIES);
      const timeMs = HISTORY_ENDS_MS - (length - i) * (60_000 + 1_000 * (rank % 7_200));
      sequence.add(`view:${entity}:${timeMs / 1e3}`, timeMs, entity);
    }
    events += length;
    const partition = partitionOf(userOf(rank), PARTITIONS);
    const held = waiting[partition]!;
    for (const change of changesOf(userOf(rank), sequence)) held.records.push(change);
    if (++held.users >= USERS_A_COMMIT) await flush(partition);
  }
  for (let partition = 0; partition < PARTITIONS; partition++) await flush(partition);
  await Promise.all(committing);
  await Promise.all(producers.map((producer) => producer.close()));
  return events;
}

/** The most active twentieth fill the window; of the others `rank^-0.8` of that, 18 at the end. */
function historyOf(rank: number, users: number, window: number): number {
  return Math.max(1, Math.round(window * Math.min(1, (rank / (users / 20)) ** -0.8)));
}

/** Of the files under a folder whose path has `part` in it, as the disk has them. */
async function bytesOf(folder: string, part = ''): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && path.includes(part)) bytes += 512 * (await stat(path)).blocks;
  }
  return bytes;
}
