/** What the group of a deployment has committed: how far its inputs are done, as others see it. */
import type { Kafka } from 'kafkajs';
import { withAdmin } from './topics.ts';

/** @returns by topic, the next offset of the partition; absent where none was committed. @throws PipelineError as `kafkaError` says */
export async function committedOffsets(kafka: Kafka, groupId: string, topics: readonly string[], partition: number) {
  return withAdmin(kafka, 'reading the committed offsets', async (admin) => {
    const answers = await admin.fetchOffsets({ groupId, topics: [...topics] });
    const known = answers.flatMap(({ topic, partitions }) => {
      const offset = Number(partitions.find((entry) => entry.partition === partition)?.offset ?? -1);
      return offset >= 0 ? [[topic, offset] as const] : [];
    });
    return Object.fromEntries(known);
  });
}
