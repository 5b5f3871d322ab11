/** Asks a deployment to erase a user. */
import type { Kafka } from 'kafkajs';
import { kafkaError } from './kafka-errors.ts';
import { withAdmin } from './topics.ts';
import { statedPartition } from './transactions.ts';

export interface RequestedErasure {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/**
 * Writes an erasure into every partition: a user may lie on any, by records that do not lie where they belong.
 *
 * @param reason for the audit; it stays in the topic
 * @returns where they stand, by partition, once all replicas in sync have them
 * @throws PipelineError Kafka's; some may have been written, and asking again does no harm
 */
export async function requestErasure(
  kafka: Kafka,
  { topic, partitions }: { readonly topic: string; readonly partitions: number },
  { userId, reason }: { readonly userId: string; readonly reason?: string | undefined },
): Promise<readonly RequestedErasure[]> {
  const now = Date.now();
  // JSON is read whatever schemas the deployment goes by.
  const value = reason === undefined ? null : JSON.stringify({ userId, requestedAtMs: now, reason });
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: statedPartition });
  try {
    await producer.connect();
    const asked: RequestedErasure[] = [];
    // One `send` a topic partition: see `PartitionProducer`.
    for (let partition = 0; partition < partitions; partition++) {
      const message = { key: userId, value, partition, timestamp: String(now) };
      const [answer] = await producer.send({ topic, acks: -1, messages: [message] });
      asked.push({ topic, partition, offset: Number(answer?.baseOffset) });
    }
    return asked;
  } catch (thrown) {
    throw kafkaError(thrown, `writing an erasure to ${topic}`);
  } finally {
    await producer.disconnect().catch(() => undefined);
  }
}

/** Next offsets that a group has committed, by `partition/topic`; what it has not committed is left out. */
export async function committedBy(
  kafka: Kafka,
  groupId: string,
  topics: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  return withAdmin(kafka, `reading the offsets of group ${groupId}`, async (admin) => {
    const answers = await admin.fetchOffsets({ groupId, topics: [...topics] });
    return new Map(
      answers.flatMap(({ topic, partitions }) =>
        partitions
          .filter(({ offset }) => Number(offset) >= 0)
          .map(({ partition, offset }) => [`${partition}/${topic}`, Number(offset)]),
      ),
    );
  });
}
