/** Questions to a local broker on its internal port: whether it serves, what it holds; and the grants of a secured one. */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Admin, Kafka, logLevel } from 'kafkajs';
import { PIPELINE_USER } from './users.ts';

// What Node's loader does not see among the exports of this CommonJS package.
const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = kafkajs;

const HOST = '127.0.0.1';
const POLL_MS = 150;

/**
 * Waits until the broker answers a metadata request that names every broker of the cluster.
 *
 * @param isRunning asked between attempts: a process that has ended will never be ready
 * @returns whether it is ready; false when its process ended or `withinMs` passed
 */
export async function waitUntilReady(
  port: number,
  brokers: number,
  isRunning: () => boolean,
  withinMs: number,
): Promise<boolean> {
  const deadline = Date.now() + withinMs;
  while (isRunning() && Date.now() < deadline) {
    try {
      if ((await administer(port, (admin) => admin.describeCluster())).brokers.length >= brokers) return true;
    } catch {
      // Not yet.
    }
    await sleep(POLL_MS);
  }
  return false;
}

/** Topics of people's making: not those that Kafka keeps for itself. */
export async function countTopics(port: number): Promise<number> {
  const topics = await administer(port, (admin) => admin.listTopics());
  return topics.filter((name) => !name.startsWith('__')).length;
}

/** Grants the pipeline's user every topic, group and transactional id; granting twice changes nothing. */
export async function grantPipeline(port: number): Promise<void> {
  const resources = [
    [AclResourceTypes.TOPIC, '*'],
    [AclResourceTypes.GROUP, '*'],
    [AclResourceTypes.TRANSACTIONAL_ID, '*'],
    [AclResourceTypes.CLUSTER, 'kafka-cluster'],
  ] as const;
  await administer(port, (admin) =>
    admin.createAcls({
      acl: resources.map(([resourceType, resourceName]) => ({
        resourceType,
        resourceName,
        resourcePatternType: ResourcePatternTypes.LITERAL,
        principal: `User:${PIPELINE_USER}`,
        host: '*',
        operation: AclOperationTypes.ALL,
        permissionType: AclPermissionTypes.ALLOW,
      })),
    }),
  );
}

async function administer<T>(port: number, ask: (admin: Admin) => Promise<T>): Promise<T> {
  const kafka = new Kafka({
    clientId: 'hstu-streams-up',
    brokers: [`${HOST}:${port}`],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2_000,
    requestTimeout: 5_000,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    return await ask(admin);
  } finally {
    await admin.disconnect().catch(() => undefined);
  }
}
