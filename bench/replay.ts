/**
 * A backfill of every event's state: the bulk path (sorted by user, one causal pass a window) against stepping every event through
 * the KV cache as live does when it publishes every event. The same model, events of the same distribution, one encoder thread
 * each, neither scored nor stored; the bulk path's time includes sorting.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lastValueFrom, map, tap } from 'rxjs';
import { synthetic } from '../examples/synthetic/generate.ts';
import { watchMemory } from '../infra/console/memory.ts';
import { UserSort } from '../infra/files/user-sort.ts';
import { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { Tokenizer } from '../models/hstu/tokenizer.ts';
import { assemble, decode, encode, gather, microBatch, orderedCommit, sequence, spread } from '../operators/index.ts';
import type { PositionedAction, SourceRecord } from '../schemas/action.ts';
import { type Config, parseConfig } from '../schemas/config.ts';
import { batchSource } from '../streams/batch-source.ts';
import { pipelineModel } from '../streams/pipeline-model.ts';
import { bulkFlow, unscored } from '../streams/replay/bulk-flow.ts';
import { historySource } from '../streams/replay/history-source.ts';
import { userBatches } from '../streams/replay/user-batches.ts';
import { median, noteKvBytes } from './measure.ts';

export interface ReplayFigure {
  readonly L: number;
  readonly bulkEventsPerSecond: number;
  readonly stepEventsPerSecond: number;
  readonly ratio: number;
  /** Of this process over the largest backfill. */
  readonly peakRssBytes: number;
}

/** And what shows that memory does not grow with the events. */
export interface ReplayFigureWithMemory extends ReplayFigure {
  /** Of this process over the smallest of them. */
  readonly peakRssBytesSmall: number;
  /** Events of each backfill and the peak over it. */
  readonly peaks: readonly { readonly events: number; readonly peakRssBytes: number }[];
}

const LAYERS = [2, 8] as const;
const D = 64;
/** Events of a window. */
const WINDOW = 512;
const ITEMS = 5_000;
/** Median and spread of the histories; one in 20,000 users has a tenth of all events. */
const HISTORIES = { medianEvents: 120, spread: 1 };
/** Of the backfills whose memory is compared. */
const SIZES = [100_000, 2_000_000] as const;
/** Of the comparison: the two ways take turns, so that whatever else the machine does falls on both. */
const ROUND = { bulk: 100_000, step: 20_000 };
const ROUNDS = 3;
export const REPLAY_FIGURES = LAYERS.length * (ROUNDS + SIZES.length);

const settings: Config = parseConfig({ bundle: 'none', publish: 'every-event', scores: { topK: 0 } }, 'the benchmark');

export async function benchReplay(onProgress: (done: number, label: string) => void): Promise<ReplayFigureWithMemory[]> {
  const figures: ReplayFigureWithMemory[] = [];
  let done = 0;
  for (const L of LAYERS) {
    const bundle = benchBundle(L);
    const [bulk, step]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      onProgress(done++, `${L} layers, round ${round + 1}`);
      // Made before the clock starts: neither way is to be judged by the generator.
      bulk.push(await bulkRate(bundle, [...actionsOf(ROUND.bulk, round, activeOf(ROUND.bulk))], ROUND.bulk));
      step.push(await stepRate(bundle, [...actionsOf(ROUND.step, round, activeOf(ROUND.step))]));
    }
    const peaks: { events: number; peakRssBytes: number }[] = [];
    for (const events of SIZES) {
      onProgress(done++, `${L} layers, ${events} events`);
      const memory = watchMemory();
      await bulkRate(bundle, actionsOf(events, 0, activeOf(ROUND.bulk)), events);
      memory.stop();
      peaks.push({ events, peakRssBytes: memory.peakRssBytes });
    }
    const [bulkEventsPerSecond, stepEventsPerSecond] = [median(bulk), median(step)];
    figures.push({
      L,
      bulkEventsPerSecond,
      stepEventsPerSecond,
      ratio: bulkEventsPerSecond / stepEventsPerSecond,
      peakRssBytes: peaks.at(-1)!.peakRssBytes,
      peakRssBytesSmall: peaks[0]!.peakRssBytes,
      peaks,
    });
  }
  return figures;
}

const benchBundle = (layers: number): Bundle =>
  randomBundle({
    dimension: D,
    layers,
    heads: 2,
    maxSequenceLength: WINDOW,
    vocabularySize: ITEMS,
    actions: { encoded: ['view', 'like', 'rate', 'follow', 'search', 'buy'], skipped: ['tag'] },
  });

/** In order of arrival; every entity is an item of the bench's vocabulary. */
function* actionsOf(events: number, round: number, active: number): Generator<PositionedAction> {
  let offset = 0;
  for (const { entity, ...event } of synthetic({ events, seed: 1 + round, items: ITEMS, active, ...HISTORIES })) {
    const number = Number(entity.slice(entity.indexOf(':') + 1)) || 1;
    yield { ...event, entity: `item:${number}`, position: { topic: 'synthetic', partition: 0, offset: offset++ } };
  }
}

/** Active users for so many events: what keeps the lengths of the histories alike. */
const activeOf = (events: number): number => Math.max(20, Math.round(events / 200));

async function bulkRate(bundle: Bundle, actions: Iterable<PositionedAction>, events: number): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-bench-'));
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes: 16 * 1024 * 1024 });
  await encoder.stats();
  const sort = new UserSort({ folder, memoryBytes: 64 * 1024 * 1024 });
  const began = performance.now();
  try {
    for (const action of actions) sort.add(action, 0);
    let embeddings = 0;
    await lastValueFrom(
      historySource({ batches: userBatches(sort.sorted(), 8_192), maxInFlightBatches: 3, now: Date.now }).pipe(
        bulkFlow({
          settings,
          model: pipelineModel(bundle),
          encoder,
          everyEvent: true,
          ranks: false,
          maxInFlight: 2,
          publisher: { publish: () => Promise.resolve() },
          committer: { commit: () => Promise.resolve() },
          now: Date.now,
        }),
        tap((batch) => {
          embeddings += batch.embeddings.length;
        }),
      ),
    );
    const seconds = (performance.now() - began) / 1000;
    if (embeddings < 0.9 * events) throw new Error(`${embeddings} embeddings of ${events} events`);
    return events / seconds;
  } finally {
    sort.close();
    await encoder.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Live's own steps without scoring: decode → sequence → micro-batch → encode → assemble → commit. */
async function stepRate(bundle: Bundle, actions: readonly PositionedAction[]): Promise<number> {
  const kvBudgetBytes = 512 * 1024 * 1024;
  noteKvBytes(kvBudgetBytes);
  const encoder = new HstuEncoder(bundle, { kvBudgetBytes });
  await encoder.stats();
  const { maxBatchUsers, maxDelayMs, maxInFlight } = settings.encoder;
  const tokenizer = new Tokenizer(bundle);
  const began = performance.now();
  const batches$ = batchSource({
    topic: 'synthetic',
    partition: 0,
    from: 0,
    records: recordsOf(actions),
    // As the Kafka consumer's defaults.
    batchEvents: 512,
    maxInFlightBatches: 2,
    now: Date.now,
  });
  const units$ = batches$.pipe(
    decode({ decoder: { decode: ({ value }) => ({ ok: true, actions: [value as unknown as PositionedAction] }) } }),
    sequence({ tokenizer, window: bundle.config.window, ...settings.sequence, publish: 'every-event' }),
    spread(),
    microBatch({ maxRows: maxBatchUsers, maxDelayMs }),
    encode({ encoder, maxInFlight }),
  );
  let embeddings = 0;
  try {
    await lastValueFrom(
      units$.pipe(
        map(unscored),
        gather(),
        assemble({ modelDigest: bundle.digest, entityOf: (row) => tokenizer.entityOf(row), now: Date.now }),
        orderedCommit({ committer: { commit: () => Promise.resolve() } }),
        tap((batch) => {
          embeddings += batch.embeddings.length;
          for (const userId of batch.erased ?? []) void encoder.forget(userId);
        }),
      ),
    );
    const seconds = (performance.now() - began) / 1000;
    if (embeddings < 0.9 * actions.length) throw new Error(`${embeddings} embeddings of ${actions.length} events`);
    return actions.length / seconds;
  } finally {
    await encoder.close();
  }
}

function* recordsOf(actions: Iterable<PositionedAction>): Generator<SourceRecord> {
  for (const action of actions)
    yield { position: action.position, value: action as unknown as Readonly<Record<string, unknown>> };
}
