/** Whether a partition holds anything of after a moment, by the brokers' index of timestamps: nothing is fetched. */
import type { Kafka } from 'kafkajs';
import { withAdmin } from './topics.ts';

/** Records and markers of transactions, which the brokers write by their own clock. @throws PipelineError as `kafkaError` says */
export async function hasAnythingAfter(kafka: Kafka, topic: string, partition: number, timeMs: number): Promise<boolean> {
  return withAdmin(kafka, `looking at the times of ${topic}/${partition}`, async (admin) => {
    const offsetIn = (list: readonly { readonly partition: number; readonly offset: string }[]) =>
      Number(list.find((one) => one.partition === partition)?.offset ?? -1);
    // For none, kafkajs says the end.
    const found = offsetIn(await admin.fetchTopicOffsetsByTimestamp(topic, timeMs));
    return found >= 0 && found < offsetIn(await admin.fetchTopicOffsets(topic));
  });
}
