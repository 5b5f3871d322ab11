/** The head of a backfill as a stream: batches of histories, no more of them under way, and no faster, than was allowed. */
import { Observable } from 'rxjs';
import type { DecodedHistories } from './bulk-flow.ts';
import type { UserBatch } from './user-batches.ts';

export interface HistorySourceOptions {
  readonly batches: Iterable<UserBatch>;
  /** Batches between being read and being committed. */
  readonly maxInFlightBatches: number;
  /** Events a second, over the whole; none is read before its time. @default unbounded */
  readonly maxRate?: number | undefined;
  /** When aborted, no further batch is read: what is under way is finished, then the stream completes. */
  readonly signal?: AbortSignal | undefined;
  /** Clock, ms since the epoch. */
  readonly now: () => number;
}

/** Back-pressure has its home here: the next batch is read when an earlier one was committed. */
export function historySource(options: HistorySourceOptions): Observable<DecodedHistories> {
  const { maxInFlightBatches, maxRate = Number.POSITIVE_INFINITY, signal, now } = options;
  return new Observable((subscriber) => {
    const batches = options.batches[Symbol.iterator]();
    const beganMs = performance.now();
    let events = 0;
    let inFlight = 0;
    let ended = false;
    let wake: NodeJS.Timeout | NodeJS.Immediate | undefined;

    const pump = () => {
      wake = undefined;
      while (!subscriber.closed && !ended && inFlight < maxInFlightBatches) {
        const earlyMs = (1000 * events) / maxRate - (performance.now() - beganMs);
        if (earlyMs > 0 && signal?.aborted !== true) {
          wake = setTimeout(pump, Math.min(earlyMs, 200));
          return;
        }
        try {
          const step = signal?.aborted === true ? undefined : batches.next();
          if (step === undefined || step.done === true) {
            ended = true;
            break;
          }
          events += step.value.actions.length;
          inFlight += 1;
          subscriber.next(decoded(step.value));
        } catch (error) {
          subscriber.error(error);
          return;
        }
      }
      if (ended && inFlight === 0) subscriber.complete();
    };
    const ack = () => {
      inFlight -= 1;
      // Not at once: an acknowledgement arrives from within the last operator of the batch before.
      wake ??= setImmediate(pump);
    };
    const decoded = ({ actions, continues, nextPosition }: UserBatch): DecodedHistories => ({
      source: { topic: 'backfill', partition: 0, records: [], nextOffset: nextPosition, readAtMs: now(), ack, continues },
      actions,
    });
    pump();
    return () => {
      ended = true;
      clearTimeout(wake as NodeJS.Timeout);
      batches.return?.();
    };
  });
}
