/** A backfill from a source to ClickHouse, by the bulk path: sort by user, encode whole histories, store; or verify what is stored. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { lastValueFrom, tap } from 'rxjs';
import type { ClickHouse } from '../../infra/clickhouse/clickhouse.ts';
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { dropRun, readProgress } from '../../infra/clickhouse/readers.ts';
import { UserSort } from '../../infra/files/user-sort.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import { judgeCacheability } from '../../models/hstu/cacheability.ts';
import type { DeadLetter } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { Config } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { pipelineModel } from '../pipeline-model.ts';
import { bulkFlow } from './bulk-flow.ts';
import { historySource } from './history-source.ts';
import { sortSource } from './sort-source.ts';
import type { BackfillSource } from './source.ts';
import type { StoredEmbeddings } from './stored.ts';
import { userBatches } from './user-batches.ts';
import { type Verification, verify } from './verify.ts';

/** `state`: the end of each history. `every-event`: also as of just before each event. `as-of`: the end at a moment. */
export type BackfillMode = 'state' | 'every-event' | 'as-of';

export interface BackfillProgress {
  readonly phase: 'sorting' | 'encoding';
  /** Records read, or events encoded. */
  readonly done: number;
  /** Of the events; unknown while they are sorted. */
  readonly total: number | undefined;
  readonly embeddings: number;
}

interface Common {
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

export interface BackfillOptions extends Common {
  readonly mode: BackfillMode;
  /** Of `as-of`, ms: events after it are left out, and it is what the embeddings are asked about. */
  readonly asOfMs?: number | undefined;
  /** Rank each event among all entities, too; and list the best at the end of each history. @default false */
  readonly ranks?: boolean | undefined;
  readonly clickhouse: ClickHouse;
  /** Drop what an earlier backfill of the same run has written. @default false */
  readonly fresh?: boolean | undefined;
  /** Events a second, at most. @default unbounded */
  readonly maxRate?: number | undefined;
}

export interface BackfillResult {
  readonly runId: string;
  /** Records of the source. */
  readonly records: number;
  /** Events of the backfill, dead letters left out; erased ones among them. */
  readonly events: number;
  /** Where this call began, and where the run stands now, in events. */
  readonly start: number;
  readonly position: number;
  readonly embeddings: number;
  readonly deadLetters: number;
  readonly interrupted: boolean;
  readonly sortMs: number;
  readonly encodeMs: number;
}

/** Events of a batch: enough that the encoder finds users of equal length, few enough to be held. */
const BATCH_EVENTS = 8_192;
const MAX_IN_FLIGHT_BATCHES = 3;
/** Dead letters stored at once. */
const LETTERS = 1_000;

/**
 * Runs a backfill to its end, or to the abort. The run is named by what decides its outputs; a second call with the same goes on
 * where it stood, at the last user that was done.
 *
 * @throws PipelineError `CONFIG_INVALID` for a bundle that cannot be encoded in bulk, before anything is read
 */
export async function backfill(options: BackfillOptions): Promise<BackfillResult> {
  const { config, bundle, source, mode, asOfMs, ranks = false, clickhouse, fresh = false, maxRate, signal, onProgress } = options;
  requireBulk(bundle, config);
  const model = pipelineModel(bundle);
  return withSort(options, async (sort) => {
    const began = performance.now();
    const letters: DeadLetter[] = [];
    const { fingerprint, records } = await sortSource({
      source,
      sort,
      tokenizer: model.tokenizer,
      erasureAction: config.sequence.erasureAction,
      ...(mode === 'as-of' && { untilMs: asOfMs }),
      signal,
      onLetter: (letter) => letters.push(letter),
      onRecords: (done) => onProgress?.({ phase: 'sorting', done, total: undefined, embeddings: 0 }),
    });
    const sortMs = performance.now() - began;
    const runId = runIdOf(options, fingerprint);
    if (fresh) await dropRun(clickhouse, runId);
    const start = (await readProgress(clickhouse, runId))?.position ?? 0;
    const facts = { mode, model: bundle.config.name, modelDigest: bundle.digest, ...source.facts };
    const sink = new ClickHouseSink(clickhouse, { runId, total: sort.count, facts });
    for (let at = 0; at < letters.length; at += LETTERS) await sink.write(lettersOnly(letters.slice(at, at + LETTERS)), 0);
    const encoder = bulkEncoder(options);
    const sorted = sort.sorted();
    for (let skipped = 0; skipped < start; skipped++) sorted.next();
    let position = start;
    let embeddings = 0;
    let ended = false;
    const encoding = performance.now();
    try {
      const batches$ = historySource({
        batches: userBatches(
          untilEnd(sorted, () => (ended = true)),
          BATCH_EVENTS,
          start,
        ),
        maxInFlightBatches: MAX_IN_FLIGHT_BATCHES,
        maxRate,
        signal,
        now: Date.now,
      });
      const done$ = batches$.pipe(
        bulkFlow({
          settings: config,
          model,
          encoder,
          everyEvent: mode === 'every-event',
          ranks,
          asOfMs,
          maxInFlight: 2,
          // The sink stores rows and then the position: nothing is left for the commit to do.
          publisher: { publish: (batch) => sink.write(batch, batch.source.nextOffset) },
          committer: { commit: () => Promise.resolve() },
          now: Date.now,
        }),
        tap((batch) => {
          position = batch.source.nextOffset;
          embeddings += batch.embeddings.length;
          onProgress?.({ phase: 'encoding', done: position, total: sort.count, embeddings });
        }),
      );
      await lastValueFrom(done$, { defaultValue: undefined });
      if (ended) await sink.finish(position);
    } finally {
      await encoder.close();
    }
    return {
      runId,
      records,
      events: sort.count,
      start,
      position,
      embeddings,
      deadLetters: letters.length,
      interrupted: !ended,
      sortMs,
      encodeMs: performance.now() - encoding,
    };
  });
}

export interface BackfillVerifyOptions extends Common {
  readonly stored: StoredEmbeddings;
  readonly everyVersion: boolean;
}

/** Recomputes from the source what is stored, and compares. @throws PipelineError as `backfill` */
export async function verifyStored(options: BackfillVerifyOptions): Promise<Verification> {
  const { config, bundle, source, stored, everyVersion, signal, onProgress } = options;
  requireBulk(bundle, config);
  const model = pipelineModel(bundle);
  return withSort(options, async (sort) => {
    await sortSource({
      source,
      sort,
      tokenizer: model.tokenizer,
      erasureAction: config.sequence.erasureAction,
      signal,
      onRecords: (done) => onProgress?.({ phase: 'sorting', done, total: undefined, embeddings: 0 }),
    });
    const encoder = bulkEncoder(options);
    try {
      return await verify({
        sort,
        stored,
        model,
        settings: config,
        encoder,
        everyVersion,
        // Each event brings its window along.
        maxEvents: Math.max(64, Math.min(BATCH_EVENTS, Math.floor(2 ** 21 / bundle.config.window.maxLength))),
        signal,
        onProgress: (done) => onProgress?.({ phase: 'encoding', done, total: sort.count, embeddings: 0 }),
      });
    } finally {
      await encoder.close();
    }
  });
}

async function withSort<T>({ config, memoryBytes }: Common, work: (sort: UserSort) => Promise<T>): Promise<T> {
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
const bulkEncoder = ({ config, bundle, parallel }: Common): HstuEncoder => {
  const workers = parallel ?? config.encoder.workers;
  return new HstuEncoder(bundle, { workers, kvBudgetBytes: Math.min(config.encoder.kvBudgetBytes, workers * 64 * 2 ** 20) });
};

function requireBulk(bundle: Bundle, config: Config): void {
  const { verdict, reasons } = judgeCacheability(bundle.config);
  if (verdict === 're-encode')
    throw new PipelineError(
      'CONFIG_INVALID',
      `bundle ${bundle.config.name} cannot be encoded in bulk: ${reasons.join('; ')}; use replay without --mode`,
    );
  if (config.sequence.sideFeatures !== undefined)
    throw new PipelineError('CONFIG_INVALID', 'sequence.sideFeatures: not with --mode; use replay without it');
}

/** 16 hexadecimal digits over all that the outputs depend on. */
function runIdOf({ config, bundle, mode, asOfMs, ranks = false }: BackfillOptions, fingerprint: string): string {
  const settings = [mode, asOfMs ?? null, ranks, ranks ? config.scores : null, config.sequence, config.time, bundle.digest];
  const hash = createHash('sha256').update(JSON.stringify([settings, fingerprint]));
  return `${mode}-${hash.digest('hex').slice(0, 16)}`;
}

/** Says when the last has been read. */
function* untilEnd<T>(items: Iterable<T>, onEnd: () => void): Generator<T> {
  yield* items;
  onEnd();
}

const lettersOnly = (deadLetters: readonly DeadLetter[]): OutputBatch => ({
  source: { topic: 'backfill', partition: 0, records: [], nextOffset: 0, readAtMs: 0, ack: () => undefined },
  processed: [],
  deadLetters,
  embeddings: [],
  scores: [],
  quality: [],
});
