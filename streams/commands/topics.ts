/** `hstu-streams topics`: makes and shows the topics of a deployment. */
import type { Command } from 'commander';
import { count } from '../../infra/console/format.ts';
import { table } from '../../infra/console/table.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { checkTopics, createTopics, readTopics } from '../../infra/kafka/topics.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { collect } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
}

export function addTopics(program: Command): void {
  const topics = program.command('topics').description('the topics of a deployment: create, list');
  const add = (name: string, description: string, action: (options: Options) => Promise<void>) =>
    topics
      .command(name)
      .description(description)
      .requiredOption('-c, --config <file>', 'configuration, YAML')
      .option('--set <key=value>', 'override a setting, such as kafka.partitions=8 (repeatable)', collect, [])
      .action(action);

  add(
    'create',
    'make the topics that are missing, with equal partition counts and the right clean-up policies',
    async (options) => {
      const { kafka: config } = await configOf(options);
      const kafka = kafkaClient(config);
      const made = await createTopics(kafka, config);
      console.log(made.length === 0 ? 'all topics are there already' : `made ${made.join(', ')}`);
      checkTopics(await readTopics(kafka, config), config);
    },
  );

  add('list', 'the topics as they are, and whether they are fit', async (options) => {
    const { kafka: config } = await configOf(options);
    const states = await readTopics(kafkaClient(config), config);
    console.log(
      table(
        states.map(({ name, role, partitions, replicas, cleanupPolicy }) => ({
          topic: name,
          role,
          partitions: partitions ?? '-',
          replicas: replicas ?? '-',
          'clean-up': cleanupPolicy ?? '-',
        })),
      ),
    );
    console.log(`fit: ${count(checkTopics(states, config))} partitions`);
  });
}

async function configOf({ config: file, set }: Options) {
  const config = requireKafka(await loadConfig({ file, environment: process.env, assignments: set }), file);
  await requireLogin(config.kafka);
  return config;
}
