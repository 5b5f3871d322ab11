/** What `up`, `down` and `status` share: which cluster, and how it is shown. */
import { join } from 'node:path';
import { InvalidArgumentError, Option } from 'commander';
import { duration } from '../../infra/console/format.ts';
import { facts } from '../../infra/console/table.ts';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';

/** Under the folder a command is run in. */
const CLUSTERS = join('.hstu', 'kafka');
/** Shared by all of them; see `StartKafkaOptions.jars`. */
export const JARS = join(CLUSTERS, 'libs');

export const clusterName = (): Option =>
  new Option('--name <name>', 'which cluster of this folder').default('local').argParser((text: string) => {
    // `libs` holds the jars.
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(text) || text === 'libs')
      throw new InvalidArgumentError(`'${text}': letters, digits, dashes and underscores, at most 64, and not libs.`);
    return text;
  });

export const clusterFolder = (name: string): string => join(CLUSTERS, name);

/** Brokers, ports, process ids, uptime, topics. */
export async function describeCluster(kafka: LocalKafka): Promise<string> {
  const topics = await kafka.countTopics();
  const brokers = kafka.brokers().map(({ id, address, pid, uptimeMs }) => {
    const state = pid === undefined || uptimeMs === undefined ? 'stopped' : `pid ${pid}, up ${duration(uptimeMs)}`;
    return [`broker ${id}`, `${address}  ${state}`] as const;
  });
  return facts([
    ...brokers,
    ['security', kafka.security],
    ['topics', topics === undefined ? 'unknown: no broker answers' : String(topics)],
    ['folder', `${kafka.folder} (logs: broker-*.log)`],
  ]);
}
