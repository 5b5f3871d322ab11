/** A run of a backfill as the place of its outputs records it: what it is made of, and how far it has come. */
export interface RunRecord {
  readonly runId: string;
  /** Events of whole histories that are stored: where the run goes on. */
  readonly position: number;
  /** Batches of the history at `position` that are stored already. @default 0 */
  readonly batchesDone?: number;
  /** Events of the source; undefined where that is not known. */
  readonly total: number | undefined;
  readonly finished: boolean;
  readonly updatedAtMs: number;
  readonly facts: Readonly<Record<string, unknown>>;
}

/** Records `from … to-1` of an input partition that a run was made of. */
export interface RunRange {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  /** Of the topic; absent where the brokers did not tell, and in runs of before they were asked. */
  readonly topicId?: string;
}

/** The input ranges of a run; empty where it was made of files. */
export const rangesOf = ({ facts }: RunRecord): readonly RunRange[] => (facts['ranges'] as readonly RunRange[] | undefined) ?? [];
