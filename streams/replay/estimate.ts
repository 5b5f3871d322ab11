/** What a backfill would be: counted from the source, and extrapolated from its first batches. Nothing is stored. */
import { lastValueFrom, tap } from 'rxjs';
import { pipelineModel } from '../pipeline-model.ts';
import type { BackfillOptions } from './backfill.ts';
import { BATCH_EVENTS, bulkEncoder, requireBulk, withSort } from './backfill-parts.ts';
import { bulkFlow } from './bulk-flow.ts';
import { historySource } from './history-source.ts';
import { type SortedSource, sortSource } from './sort-source.ts';
import { type UserBatch, userBatches } from './user-batches.ts';

export interface Estimate extends Omit<SortedSource, 'fingerprint'> {
  readonly events: number;
  /** Written to disk by the sort, bytes. */
  readonly sortBytes: number;
  readonly sortMs: number;
  /** Of encoding, storing not included. */
  readonly encodeMs: number;
  readonly embeddings: number;
  /** Of the embeddings as numbers, before compression. */
  readonly embeddingBytes: number;
}

/** Batches that are encoded to learn from. */
const SAMPLE_BATCHES = 4;

/** @throws PipelineError as `backfill` */
export async function estimate(options: Omit<BackfillOptions, 'output'>): Promise<Estimate> {
  const { config, bundle, source, mode, asOfMs, ranks = false, signal, onProgress } = options;
  requireBulk(bundle);
  const model = pipelineModel(bundle);
  return withSort(options, async (sort) => {
    const began = performance.now();
    const { fingerprint: _, ...read } = await sortSource({
      source,
      sort,
      tokenizer: model.tokenizer,
      erasureAction: config.sequence.erasureAction,
      ...(mode === 'as-of' && { untilMs: asOfMs }),
      signal,
      onRecords: (done) => onProgress?.({ phase: 'sorting', done, total: undefined, embeddings: 0 }),
    });
    const sortMs = performance.now() - began;
    const encoder = bulkEncoder(options);
    try {
      await encoder.stats();
      const batches = firstOf(userBatches(sort.sorted(), BATCH_EVENTS), SAMPLE_BATCHES);
      const events = batches.reduce((sum, { actions }) => sum + actions.length, 0);
      let embeddings = 0;
      const encoding = performance.now();
      const done$ = historySource({ batches, maxInFlightBatches: SAMPLE_BATCHES, signal, now: Date.now }).pipe(
        bulkFlow({
          settings: config,
          model,
          encoder,
          everyEvent: mode === 'every-event',
          ranks,
          asOfMs,
          maxInFlight: 2,
          publisher: { publish: () => Promise.resolve() },
          committer: { commit: () => Promise.resolve() },
          now: Date.now,
        }),
        tap((batch) => {
          embeddings += batch.embeddings.length;
        }),
      );
      await lastValueFrom(done$, { defaultValue: undefined });
      const times = events === 0 ? 0 : sort.count / events;
      const expected = Math.round(times * embeddings);
      return {
        ...read,
        events: sort.count,
        sortBytes: sort.spilledBytes,
        sortMs,
        encodeMs: times * (performance.now() - encoding),
        embeddings: expected,
        embeddingBytes: 4 * bundle.config.dimension * expected,
      };
    } finally {
      await encoder.close();
    }
  });
}

function firstOf(batches: Iterable<UserBatch>, count: number): UserBatch[] {
  const first: UserBatch[] = [];
  for (const batch of batches) {
    first.push(batch);
    if (first.length === count) break;
  }
  return first;
}
