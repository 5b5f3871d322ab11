/** Where a partition's inputs are gone on with: by the state, for it holds what was done; else what the group committed; else as configured. */
import { type InputPositions, RESET_KEY } from '../../schemas/state.ts';
import type { TaskParts } from './partition-task.ts';
import type { RestoredState } from './restore-state.ts';
import { requireKnownStart, requireSamePartitions, requireSameTopic } from './whole-state.ts';

/**
 * Next offsets, by input topic.
 *
 * @throws PipelineError `TOPICS_INVALID` for a topic that was deleted and made again, `STATE_LOST` for offsets without a state behind
 *   them, Kafka's
 */
export async function startPositions(
  partition: number,
  { topics, topicIds, partitions, fetcher, config, committedOffsets, now, observer }: TaskParts,
  { position, positionedAtMs = 0, store }: RestoredState,
): Promise<InputPositions> {
  const committed = await committedOffsets(partition);
  if (position === undefined && store.get(RESET_KEY) === undefined) requireKnownStart(partition, config.kafka, committed);
  if (position !== undefined) requireSamePartitions(partition, config.kafka, position, partitions);
  const starts: Record<string, number> = {};
  for (const topic of topics) {
    const known = position?.inputs[topic];
    const group = committed[topic];
    const { first, end } =
      known !== undefined && position?.topicIds?.[topic] !== undefined
        ? { first: 0, end: known }
        : await fetcher.offsets({ topic, partition });
    if (position !== undefined)
      requireSameTopic({ partition, topic, id: topicIds[topic], first, committed, position, positionedAtMs, nowMs: now() });
    if (known !== undefined && group !== undefined && group !== known)
      observer.onNotice?.('the committed offset is not where the state stands; going on where the state stands', {
        topic,
        partition,
        committed: group,
        state: known,
        mend: 'to process again, use hstu-streams reset',
      });
    starts[topic] = known ?? group ?? (config.kafka.startFrom === 'earliest' ? first : end);
  }
  return starts;
}
