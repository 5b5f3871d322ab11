/** `hstu-streams topics`: makes, shows and deletes the topics of a deployment. */
import type { Command } from 'commander';
import { count } from '../../infra/console/format.ts';
import { table } from '../../infra/console/table.ts';
import { createTopics, executeDeletion, planDeletion } from '../../infra/kafka/change-topics.ts';
import { checkTopics, judgeTopics } from '../../infra/kafka/check-topics.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { readTopics } from '../../infra/kafka/topics.ts';
import { repartitionGroup } from '../../schemas/config.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { sinkGroup } from '../sink.ts';
import { collect } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
}

interface DeleteOptions extends Options {
  readonly inputs?: boolean;
  readonly execute?: boolean;
}

export function addTopics(program: Command): void {
  const topics = program.command('topics').description('the topics of a deployment: create, list, delete');
  const add = <T extends Options>(name: string, description: string, action: (options: T) => Promise<void>) =>
    topics
      .command(name)
      .description(description)
      .requiredOption('-c, --config <file>', 'configuration, YAML')
      .option('--set <key=value>', 'override a setting, such as kafka.partitions=8 (repeatable)', collect, [])
      .action(action);

  add(
    'create',
    'make the topics that are missing, with as many partitions as those that are there; nothing, where those do not fit',
    async (options) => {
      const { kafka: config } = await configOf(options);
      const kafka = kafkaClient(config);
      const made = await createTopics(kafka, config);
      console.log(made.length === 0 ? 'all topics are there already' : `made ${made.join(', ')}`);
      checkTopics(await readTopics(kafka, config), config, (problem) => console.log(`to be told: ${problem}`));
    },
  );

  add('list', 'the topics as they are, and whether they are fit', async (options) => {
    const { kafka: config } = await configOf(options);
    const states = await readTopics(kafkaClient(config), config);
    const problems = judgeTopics(states, config);
    const verdict = (name: string) => {
      const own = problems.filter(({ topics: names }) => names.includes(name));
      if (own.some(({ stops }) => stops)) return 'no';
      return own.length > 0 ? 'yes, but' : 'yes';
    };
    console.log(
      table(
        states.map(({ name, role, partitions, replicas, cleanupPolicy, maxMessageBytes, timestampType }) => ({
          topic: name,
          role,
          partitions: partitions ?? '-',
          replicas: replicas ?? '-',
          'clean-up': cleanupPolicy ?? '-',
          'max bytes': maxMessageBytes ?? '-',
          timestamps: timestampType ?? '-',
          fit: verdict(name),
        })),
      ),
    );
    const partitions = checkTopics(states, config, (problem) => console.log(`yes, but: ${problem}`));
    console.log(`fit: ${count(partitions)} partitions`);
  });

  add<DeleteOptions>(
    'delete',
    'delete what only this deployment writes: its output topics and its changelog (a dry run, unless --execute)',
    async (options) => {
      const { kafka: config } = await configOf(options);
      const kafka = kafkaClient(config);
      const groups = [config.applicationId, sinkGroup(config.applicationId), repartitionGroup(config.applicationId)];
      const plan = await planDeletion(kafka, config, groups, { inputs: options.inputs === true });
      console.log(plan.topics.length === 0 ? 'there is nothing to delete' : `to be deleted: ${plan.topics.join(', ')}`);
      if (plan.kept.length > 0) console.log(`stay: ${plan.kept.join(', ')} (others write them; --inputs deletes them too)`);
      if (options.execute !== true) {
        console.log('nothing was done: this was a dry run; repeat with --execute');
        return;
      }
      await executeDeletion(kafka, groups, plan);
      console.log('done; before the deployment is used again: hstu-streams topics create, hstu-streams reset');
    },
  )
    .option('--inputs', 'delete the input topics too, with all that others wrote into them')
    .option('--execute', 'do it');
}

async function configOf({ config: file, set }: Options) {
  const config = requireKafka(await loadConfig({ file, environment: process.env, assignments: set }), file);
  await requireLogin(config.kafka);
  return config;
}
