/** The offsets of a consumer group that has nobody in it: set without joining it, which would wait for others to come. */
import type { Kafka } from 'kafkajs';
import { type Cluster, openCluster } from './kafkajs-internals.ts';

interface CoordinatedCluster extends Cluster {
  findGroupCoordinator(query: { readonly groupId: string }): Promise<{
    offsetCommit(request: {
      readonly groupId: string;
      readonly groupGenerationId: number;
      readonly memberId: string;
      readonly topics: readonly {
        readonly topic: string;
        readonly partitions: readonly { readonly partition: number; readonly offset: string }[];
      }[];
    }): Promise<unknown>;
  }>;
}

/** Of a commit from outside the group: refused while it has members. */
const NOBODY = { groupGenerationId: -1, memberId: '' } as const;

/** @throws kafkajs' errors */
export async function setGroupOffsets(
  kafka: Kafka,
  groupId: string,
  offsets: readonly { readonly topic: string; readonly partition: number; readonly to: number }[],
): Promise<void> {
  if (offsets.length === 0) return;
  const cluster = openCluster(kafka) as CoordinatedCluster;
  try {
    await cluster.connect();
    const coordinator = await cluster.findGroupCoordinator({ groupId });
    const topics = [...new Set(offsets.map(({ topic }) => topic))].map((topic) => ({
      topic,
      partitions: offsets.filter((one) => one.topic === topic).map(({ partition, to }) => ({ partition, offset: String(to) })),
    }));
    await coordinator.offsetCommit({ groupId, ...NOBODY, topics });
  } finally {
    await cluster.disconnect().catch(() => undefined);
  }
}
