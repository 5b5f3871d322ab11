/** Where a backfill's outputs go: a place that holds runs, each with how far it has come, so that a run is gone on with, listed or dropped. */
import type { DeadLetter } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { RunRecord } from '../../schemas/run-record.ts';
import type { HistoryBatch, PartitionedChange } from './shape-updates.ts';

export type RunPlace = 'clickhouse' | 'kafka' | 'parquet' | 'jsonl';

/** What a run is begun with. */
export interface RunStart {
  readonly runId: string;
  /** Events of the source. */
  readonly total: number;
  /** What the run is made of: ranges, model, settings. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Of the whole source. */
  readonly letters: readonly DeadLetter[];
  /** State that is no user's, for a place that keeps state. @default none */
  readonly places?: readonly PartitionedChange[] | undefined;
}

/** One run, while it is written. */
export interface RunWriter {
  /** Where it goes on: events of whole histories that are stored. */
  readonly position: number;
  /** Batches of the history at `position` that are stored already: computed again, and not to be written again. */
  readonly batchesDone: number;
  /** Stores a batch, and then where the run goes on; in order, without waiting for the one before. */
  write(batch: OutputBatch): Promise<void>;
  /** All is written: the run is finished. */
  finish(position: number): Promise<void>;
  /** Stores what was taken, and lets go; after a failure it only lets go. */
  close(): Promise<void>;
}

export interface BackfillOutput {
  readonly place: RunPlace;
  /** For messages. */
  readonly where: string;
  /** Whether it keeps the state that each history ends with, for a cut-over. */
  readonly keepsState: boolean;
  /** Goes on with a run, or begins it. */
  open(run: RunStart): Promise<RunWriter>;
  /** Every run here. */
  runs(): Promise<readonly RunRecord[]>;
  /** Removes all of a run; of one that is not here, nothing. */
  drop(runId: string): Promise<void>;
  /** Rows of a run, by kind; undefined where counting them is reading them. */
  count(runId: string): Promise<Readonly<Record<string, number>> | undefined>;
  close(): Promise<void>;
}

/** Where a run goes on after each of its batches, given in order. */
export function checkpoints(from: Pick<RunRecord, 'position' | 'batchesDone'>) {
  let done = from.batchesDone ?? 0;
  return ({ source }: OutputBatch): Pick<RunRecord, 'position' | 'batchesDone'> => {
    // What goes on in the next batch is begun again at its first.
    done = (source as HistoryBatch).continues === undefined ? 0 : done + 1;
    return { position: source.nextOffset, batchesDone: done };
  };
}

/** The source's dead letters, as a batch before the first. */
export const lettersBatch = (deadLetters: readonly DeadLetter[]): OutputBatch => ({
  source: { topic: 'backfill', partition: 0, records: [], nextOffset: 0, readAtMs: 0, ack: () => undefined },
  processed: [],
  deadLetters,
  embeddings: [],
  scores: [],
  quality: [],
});
