/** The head of a stream: records in batches, no more of them under way than the acknowledgements allow. */
import { Observable } from 'rxjs';
import type { SourceRecord } from '../schemas/action.ts';
import type { SourceBatch } from '../schemas/batch.ts';

export interface BatchSourceOptions {
  readonly topic: string;
  readonly partition: number;
  /** Position of the first record. */
  readonly from: number;
  readonly records: Iterable<SourceRecord>;
  readonly batchEvents: number;
  /** Batches between being read and being acknowledged. */
  readonly maxInFlightBatches: number;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
  /** When aborted, no further batch is read: what is under way is finished, then the stream completes. */
  readonly signal?: AbortSignal | undefined;
}

/** Emits `SourceBatch`es; back-pressure has its home here: the next batch is read when an earlier one was acknowledged. */
export function batchSource(options: BatchSourceOptions): Observable<SourceBatch> {
  const { topic, partition, batchEvents, maxInFlightBatches, now, signal } = options;
  return new Observable((subscriber) => {
    const records = options.records[Symbol.iterator]();
    let position = options.from;
    let inFlight = 0;
    let ended = false;
    let scheduled = false;

    const nextBatch = (): SourceBatch | undefined => {
      const batch: SourceRecord[] = [];
      while (batch.length < batchEvents) {
        const step = records.next();
        if (step.done === true) break;
        batch.push(step.value);
      }
      if (batch.length === 0) return undefined;
      position += batch.length;
      return { topic, partition, records: batch, nextOffset: position, readAtMs: now(), ack };
    };
    const pump = () => {
      scheduled = false;
      while (!subscriber.closed && !ended && inFlight < maxInFlightBatches) {
        const batch = signal?.aborted === true ? undefined : nextBatch();
        if (batch === undefined) ended = true;
        else {
          inFlight += 1;
          subscriber.next(batch);
        }
      }
      if (ended && inFlight === 0) subscriber.complete();
    };
    const ack = () => {
      inFlight -= 1;
      if (scheduled) return;
      scheduled = true;
      // Not at once: an acknowledgement arrives from within the last operator of the batch before.
      setImmediate(pump);
    };
    pump();
    return () => {
      ended = true;
      records.return?.();
    };
  });
}
