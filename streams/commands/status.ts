/** `hstu-streams status`: whether the local Kafka runs, and where. */
import type { Command } from 'commander';
import { openKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { clusterFolder, clusterName, describeCluster } from './local-kafka-options.ts';

/** Exit code when it does not run, or not whole: for scripts. */
const NOT_RUNNING = 1;

export function addStatus(program: Command): void {
  program
    .command('status')
    .description('show the local Kafka: brokers, ports, process ids, uptime, topics; exit code 1 when it does not run')
    .addOption(clusterName())
    .action(async ({ name }: { name: string }) => {
      const kafka = await openKafka(clusterFolder(name));
      if (kafka === undefined) console.log(`There is no cluster '${name}' here; \`hstu-streams up\` starts one.`);
      else console.log(await describeCluster(kafka));
      if (kafka === undefined || kafka.pids.size < kafka.bootstrapServers.length) process.exitCode = NOT_RUNNING;
    });
}
