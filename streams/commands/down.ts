/** `hstu-streams down`: stops the local Kafka; with --wipe, deletes it. */
import type { Command } from 'commander';
import { openKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { clusterFolder, clusterName } from './local-kafka-options.ts';

export function addDown(program: Command): void {
  program
    .command('down')
    .description('stop the Kafka that `up` started; its data stays')
    .addOption(clusterName())
    .option('--wipe', 'delete its topics, offsets, users and logs too', false)
    .action(async ({ name, wipe }: { name: string; wipe: boolean }) => {
      const kafka = await openKafka(clusterFolder(name));
      if (kafka === undefined) {
        console.log(`There is no cluster '${name}' here.`);
        return;
      }
      const running = kafka.pids.size;
      if (wipe) {
        await kafka.destroy();
        console.log(`Stopped ${running} broker(s) and deleted ${kafka.folder}.`);
        return;
      }
      const killed = await kafka.stop();
      const forced = killed.length === 0 ? '' : `, ${killed.length} of them by force: it did not end in time`;
      console.log(
        running === 0 ? 'Kafka is not running.' : `Stopped ${running} broker(s)${forced}; the data stays in ${kafka.folder}.`,
      );
    });
}
