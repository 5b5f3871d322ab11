/** Replay: files in event-time order → the pipeline → ClickHouse. Resumable, idempotent, and checked against full encodes. */
import { createHash } from 'node:crypto';
import { from, lastValueFrom, tap } from 'rxjs';
import type { ClickHouse } from '../infra/clickhouse/clickhouse.ts';
import { ClickHouseSink } from '../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../infra/clickhouse/connect.ts';
import { dropRun, readProgress } from '../infra/clickhouse/readers.ts';
import { type MergedFiles, openFileSource } from '../infra/files/merge-by-time.ts';
import { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import { InMemorySequenceStore } from '../operators/index.ts';
import type { SourceRecord } from '../schemas/action.ts';
import type { OutputBatch, SourceBatch } from '../schemas/batch.ts';
import type { Config } from '../schemas/config.ts';
import type { EncoderStats } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import { batchSource } from './batch-source.ts';
import { type CatalogueReport, loadModel } from './catalogue.ts';
import { Lifecycle, type LifecycleState } from './lifecycle.ts';
import { type PipelineParts, pipeline, toSequences } from './pipeline.ts';
import { pipelineModel } from './pipeline-model.ts';
import { rowInputs } from './replay/row-inputs.ts';
import { listingOf } from './replay/settings-of.ts';
import { requireKnownActions } from './require-known-actions.ts';

/** Batches of one replay form one partition: the merged order of the files. */
const PARTITION = { topic: 'replay', partition: 0 } as const;
/** Records applied between two turns of the event loop while the state is rebuilt. */
const RESTORE_BATCH = 1024;

export interface ReplayOptions {
  readonly config: Config;
  /** Stop after this many records of the merged order. @default all */
  readonly limit?: number | undefined;
  /** Drop what an earlier replay of the same run has written, and begin anew. @default false */
  readonly fresh?: boolean;
  /** When aborted, the replay drains: what was read is published and committed, then it stops. */
  readonly signal?: AbortSignal;
  readonly onState?: (state: LifecycleState) => void;
  /** What became of `catalogue.file`, where there is one. */
  readonly onCatalogue?: (report: CatalogueReport) => void;
  /** Called as the state is rebuilt, and after every commit. */
  readonly onProgress?: (progress: ReplayProgress) => void;
}

export interface ReplayProgress {
  readonly phase: 'restoring' | 'running';
  /** Records of the merged order that are done. */
  readonly position: number;
  /** Where this replay ends. */
  readonly end: number;
  /** Where this call began. */
  readonly start: number;
  readonly totals: ReplayTotals;
}

/** Counted since this call began. */
export interface ReplayTotals {
  readonly events: number;
  readonly tokens: number;
  readonly embeddings: number;
  readonly deadLetters: number;
  /** Rows that the encoder computed for the embeddings; per event it is `rowsComputed / tokens`. */
  readonly rowsComputed: number;
  /** Embeddings for which the cache held all but the tail and the new rows. */
  readonly cacheHits: number;
}

export interface ReplayResult {
  readonly runId: string;
  readonly bundle: Bundle;
  readonly store: InMemorySequenceStore;
  readonly clickhouse: ClickHouse;
  readonly position: number;
  readonly start: number;
  readonly end: number;
  /** Records of all files. */
  readonly total: number;
  readonly interrupted: boolean;
  readonly totals: ReplayTotals;
  readonly elapsedMs: number;
  readonly encoder: EncoderStats;
}

/**
 * Runs a replay to its end (or `limit`, or the abort). The caller closes `clickhouse`.
 *
 * The run is named by what determines its outputs: contents and mappings of the files, the bundle, the publishing settings.
 * A second call with the same finds the run and goes on where it stopped; the state up to there is rebuilt from the files.
 *
 * @throws PipelineError for faults of configuration, before anything is written; `STORE_FAILED`, `WORKER_CRASHED` when they persist
 */
export async function replay(options: ReplayOptions): Promise<ReplayResult> {
  const { config } = options;
  const lifecycle = new Lifecycle(options.onState);
  const source = config.source;
  if (source === undefined)
    throw new PipelineError('CONFIG_INVALID', 'source: missing; a replay needs source.files or source.clickhouse');
  const inputs = await rowInputs(config);
  const [bundle, files] = await Promise.all([
    loadModel(config, options.onCatalogue),
    openFileSource(inputs, {
      ...config.time,
      maxRecordBytes: source.maxRecordBytes,
      maxSortRecords: source.maxSortRecords,
    }),
  ]);
  requireKnownActions(config, bundle);
  const runId = runIdOf(config, bundle, files);
  const end = Math.min(options.limit ?? files.total, files.total);
  const clickhouse = await connect(config.clickhouse);
  const encoder = new HstuEncoder(bundle, encoderOptions(config));
  try {
    if (options.fresh === true) await dropRun(clickhouse, runId);
    const progress = await readProgress(clickhouse, runId);
    const start = progress?.position ?? 0;
    const sink = new ClickHouseSink(clickhouse, { runId, total: files.total, facts: factsOf(bundle, inputs) });
    const store = new InMemorySequenceStore();
    const mappings = new Map(files.topics.map((topic, i) => [topic, files.mappings[i]!]));
    const parts: PipelineParts = {
      settings: config,
      model: pipelineModel(bundle),
      decoder: { decode: (record) => mappings.get(record.position.topic)!.decode(record) },
      store,
      encoder,
      // The sink stores rows and then the position, several batches at once: nothing is left for the commit to do.
      publisher: { publish: (batch) => sink.write(batch, batch.source.nextOffset) },
      committer: { commit: () => Promise.resolve() },
      now: Date.now,
    };
    const counter = new ReplayCounter();
    const report = (phase: ReplayProgress['phase'], position: number) =>
      options.onProgress?.({ phase, position, end, start, totals: counter.totals });

    if (start > 0) {
      lifecycle.to('RESTORING');
      await restore(parts, recordsOf(files, 0, start), (position) => report('restoring', position));
    }
    lifecycle.to('RUNNING');
    const began = performance.now();
    let position = start;
    if (start < end) {
      options.signal?.addEventListener('abort', () => lifecycle.state === 'RUNNING' && lifecycle.to('DRAINING'), { once: true });
      const batches$ = batchSource({
        ...PARTITION,
        ...source,
        from: start,
        records: recordsOf(files, start, end),
        now: Date.now,
        signal: options.signal,
      });
      const done$ = batches$.pipe(
        pipeline(parts),
        tap((batch) => {
          for (const userId of batch.erased ?? []) void encoder.forget(userId);
          position = batch.source.nextOffset;
          counter.add(batch);
          report('running', position);
        }),
      );
      await lastValueFrom(done$, { defaultValue: undefined });
      if (position === files.total) await sink.finish(position);
    }
    const elapsedMs = performance.now() - began;
    if (lifecycle.state === 'RUNNING') lifecycle.to('DRAINING');
    const stats = await encoder.stats();
    lifecycle.to('STOPPED');
    const interrupted = position < end;
    return {
      runId,
      bundle,
      store,
      clickhouse,
      position,
      start,
      end,
      total: files.total,
      interrupted,
      totals: counter.totals,
      elapsedMs,
      encoder: stats,
    };
  } catch (error) {
    lifecycle.to('FAILED');
    await clickhouse.close();
    throw error;
  } finally {
    await encoder.close();
  }
}

/** Applies the records to the sequences, without encoding: the state as it was when they had been committed. */
async function restore(
  parts: PipelineParts,
  records: Iterable<SourceRecord>,
  onPosition: (position: number) => void,
): Promise<void> {
  let position = 0;
  for (const batch of inBatches(records, RESTORE_BATCH)) {
    position += batch.length;
    const source: SourceBatch = {
      ...PARTITION,
      records: batch,
      nextOffset: position,
      readAtMs: Date.now(),
      ack: () => undefined,
    };
    from([source]).pipe(toSequences(parts)).subscribe();
    onPosition(position);
    await new Promise(setImmediate);
  }
}

function* inBatches<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let batch: T[] = [];
  for (const item of items) {
    batch.push(item);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

function* recordsOf(files: MergedFiles, start: number, end: number): Generator<SourceRecord> {
  for (const { record } of files.records(start, end)) yield record;
}

/** 16 hexadecimal digits over all that the outputs depend on. */
function runIdOf(config: Config, bundle: Bundle, files: MergedFiles): string {
  const settings = [
    config.publish,
    listingOf(config),
    config.sequence,
    config.time,
    config.source?.batchEvents,
    config.source?.maxRecordBytes,
    ...(bundle.catalogue === undefined ? [] : [bundle.catalogue.digest]),
  ];
  const hash = createHash('sha256').update(JSON.stringify([files.fingerprint, bundle.digest, settings]));
  return `replay-${hash.digest('hex').slice(0, 16)}`;
}

const factsOf = (bundle: Bundle, files: readonly { readonly path: string }[]) => ({
  model: bundle.config.name,
  modelDigest: bundle.digest,
  files: files.map(({ path }) => path),
});

/** The encoder's options of a configuration. */
export const encoderOptions = ({
  encoder: { provider, workers, kvBudgetBytes, hostBudgetBytes, disk, cachePolicy, kvPrecision, pageLength, ...calls },
}: Config) => ({
  provider,
  schedule: { maxRunUsers: calls.maxBatchUsers, ...calls.schedule },
  workers,
  kvBudgetBytes,
  cachePolicy,
  kvPrecision,
  ...(hostBudgetBytes !== undefined && { hostBudgetBytes }),
  ...(disk.budgetBytes > 0 && { disk: { folder: disk.path, budgetBytes: disk.budgetBytes } }),
  ...(pageLength !== undefined && { pageLength }),
});

class ReplayCounter {
  #events = 0;
  #tokens = 0;
  #embeddings = 0;
  #deadLetters = 0;
  #rowsComputed = 0;
  #cacheHits = 0;

  add({ source, processed, embeddings, deadLetters }: OutputBatch): void {
    this.#events += source.records.length;
    this.#deadLetters += deadLetters.length;
    this.#embeddings += embeddings.length;
    for (const { disposition } of processed) if (disposition === 'appended' || disposition === 'inserted') this.#tokens += 1;
    for (const { rowsComputed, outcome } of embeddings) {
      this.#rowsComputed += rowsComputed;
      if (outcome === 'hit') this.#cacheHits += 1;
    }
  }

  get totals(): ReplayTotals {
    return {
      events: this.#events,
      tokens: this.#tokens,
      embeddings: this.#embeddings,
      deadLetters: this.#deadLetters,
      rowsComputed: this.#rowsComputed,
      cacheHits: this.#cacheHits,
    };
  }
}
