/** What others look at of an instance's partitions: a user's window, how far they are done. */
import type { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { toSeconds } from '../../operators/index.ts';
import type { Position } from '../watch.ts';
import type { PartitionTask } from './partition-task.ts';

/** Of sequences in memory only: a store that is being handed over may be closed. */
export function windowOf(tasks: readonly PartitionTask[], userId: string) {
  for (const { sequences } of tasks) {
    const sequence = sequences.peek(userId);
    if (sequence !== undefined && sequence.length > 0)
      return { ...sequence.snapshot(), queryTimeS: toSeconds(sequence.newestTimeMs) };
  }
  return undefined;
}

/** Of sequences in flight the first record is not known: their age is how long nothing was committed. */
export const positionsOf = (tasks: readonly PartitionTask[], fetcher: PartitionFetcher): Position[] =>
  tasks.flatMap(({ partition, inputs }) =>
    Object.entries(inputs).map(([topic, nextOffset]) => {
      const waitingMs = fetcher.waiting({ topic, partition })?.records[0]?.timestampMs;
      return { topic, partition, nextOffset, waitingMs };
    }),
  );
