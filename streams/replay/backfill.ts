/** A backfill, by the bulk path: sort by user, encode whole histories, store; or verify what is stored. */
import { createHash } from 'node:crypto';
import { lastValueFrom, tap } from 'rxjs';
import type { DeadLetter } from '../../schemas/action.ts';
import { pipelineModel } from '../pipeline-model.ts';
import { requireKnownActions } from '../require-known-actions.ts';
import { toleranceOf16Bits } from '../shadow-check.ts';
import { signatureOf } from '../state-signature.ts';
import type { BackfillOutput, RunWriter } from './backfill-output.ts';
import {
  BATCH_EVENTS,
  type BackfillCommon,
  bulkEncoder,
  MAX_IN_FLIGHT_BATCHES,
  requireBulk,
  withSort,
} from './backfill-parts.ts';
import { bulkFlow } from './bulk-flow.ts';
import { historySource } from './history-source.ts';
import { holdRun } from './hold-run.ts';
import { listingOf, settingsOf } from './settings-of.ts';
import { type SortedSource, sortSource } from './sort-source.ts';
import type { StoredEmbeddings } from './stored.ts';
import { userBatches } from './user-batches.ts';
import { type Verification, verify } from './verify.ts';

/** `state`: the end of each history. `every-event`: also as of just before each event. `as-of`: the end at a moment. */
export type BackfillMode = 'state' | 'every-event' | 'as-of';

export interface BackfillOptions extends BackfillCommon {
  readonly mode: BackfillMode;
  /** Of `as-of`, ms: events after it are left out, and it is what the embeddings are asked about. */
  readonly asOfMs?: number | undefined;
  /** Rank each event among all entities, too; and list the best at the end of each history. @default false */
  readonly ranks?: boolean | undefined;
  readonly output: BackfillOutput;
  /** Drop what an earlier backfill of the same run has written. @default false */
  readonly fresh?: boolean | undefined;
  /** Events a second, at most. @default unbounded */
  readonly maxRate?: number | undefined;
}

export interface BackfillResult extends Omit<SortedSource, 'fingerprint'> {
  readonly runId: string;
  /** Events of the backfill, dead letters left out; erased ones among them. */
  readonly events: number;
  /** Where this call began, and where the run stands now, in events. */
  readonly start: number;
  readonly position: number;
  readonly embeddings: number;
  readonly interrupted: boolean;
  readonly sortMs: number;
  readonly encodeMs: number;
}

/**
 * Runs a backfill to its end, or to the abort. The run is named by what decides its outputs; a second call with the same goes on
 * where it stood, at the last user that was done.
 *
 * @throws PipelineError `CONFIG_INVALID` for a bundle that cannot be encoded in bulk, before anything is read; for a run that another
 *   process is writing
 */
export async function backfill(options: BackfillOptions): Promise<BackfillResult> {
  const { config, bundle, source, mode, asOfMs, ranks = false, output, fresh = false, maxRate, signal, onProgress } = options;
  requireBulk(bundle);
  requireKnownActions(config, bundle);
  const model = pipelineModel(bundle);
  return withSort(options, async (sort) => {
    const began = performance.now();
    const letters: DeadLetter[] = [];
    const { fingerprint, ...read } = await sortSource({
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
    const held = await holdRun(config, runId);
    let writer: RunWriter | undefined;
    let encoder: ReturnType<typeof bulkEncoder> | undefined;
    try {
      if (fresh) await output.drop(runId);
      writer = await output.open({ runId, total: sort.count, facts: factsOf(options), letters, places: source.places });
      const { position: start, batchesDone } = writer;
      const publish = afterFirst(batchesDone, writer);
      encoder = bulkEncoder(options);
      const sorted = sort.sorted();
      for (let skipped = 0; skipped < start; skipped++) sorted.next();
      let position = start;
      let embeddings = 0;
      let ended = false;
      onProgress?.({ phase: 'encoding', done: start, start, total: sort.count, embeddings: 0 });
      const encoding = performance.now();
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
          keepState: output.keepsState && mode !== 'as-of' && isOfKafka(options),
          // The writer stores rows and where the run goes on as one: nothing is left for the commit to do.
          publisher: { publish },
          committer: { commit: () => Promise.resolve() },
          now: Date.now,
        }),
        tap((batch) => {
          position = batch.source.nextOffset;
          embeddings += batch.embeddings.length;
          onProgress?.({ phase: 'encoding', done: position, start, total: sort.count, embeddings });
        }),
      );
      await lastValueFrom(done$, { defaultValue: undefined });
      if (ended) await writer.finish(position);
      return {
        runId,
        ...read,
        events: sort.count,
        start,
        position,
        embeddings,
        interrupted: !ended,
        sortMs,
        encodeMs: performance.now() - encoding,
      };
    } finally {
      await encoder?.close();
      await writer?.close();
      held.release();
    }
  });
}

/** What was stored by an earlier call is computed again, for what comes after it, and not stored again. */
function afterFirst(count: number, writer: RunWriter): RunWriter['write'] {
  let seen = 0;
  return (batch) => (seen++ < count ? Promise.resolve() : writer.write(batch));
}

const isOfKafka = ({ source }: BackfillOptions): boolean => source.facts['ranges'] !== undefined;

/** What a run is made of, as it is recorded with it: what a cut-over asks about. */
function factsOf({ config, bundle, source, mode, asOfMs }: BackfillOptions): Readonly<Record<string, unknown>> {
  return {
    mode,
    ...(asOfMs !== undefined && { asOfMs }),
    model: bundle.config.name,
    modelDigest: bundle.digest,
    settings: settingsOf(config),
    signature: signatureOf(bundle, config.sequence.seenLimit),
    ...source.facts,
  };
}

export interface BackfillVerifyOptions extends BackfillCommon {
  readonly stored: StoredEmbeddings;
  readonly everyVersion: boolean;
}

/** Recomputes from the source what is stored, and compares. @throws PipelineError as `backfill` */
export async function verifyStored(options: BackfillVerifyOptions): Promise<Verification> {
  const { config, bundle, source, stored, everyVersion, signal, onProgress } = options;
  requireBulk(bundle);
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
        tolerance: toleranceOf16Bits(config),
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

/** 16 hexadecimal digits over all that the outputs depend on. */
function runIdOf({ config, bundle, mode, asOfMs, ranks = false }: BackfillOptions, fingerprint: string): string {
  const settings = [mode, asOfMs ?? null, ranks, ranks ? listingOf(config) : null, config.sequence, config.time, bundle.digest];
  if (ranks && bundle.catalogue !== undefined) settings.push(bundle.catalogue.digest);
  const hash = createHash('sha256').update(JSON.stringify([settings, fingerprint]));
  return `${mode}-${hash.digest('hex').slice(0, 16)}`;
}

/** Says when the last has been read. */
function* untilEnd<T>(items: Iterable<T>, onEnd: () => void): Generator<T> {
  yield* items;
  onEnd();
}
