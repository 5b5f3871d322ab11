/** `hstu-streams reset`: begin anew from a chosen place, in the manner of Kafka Streams' reset tool: a dry run unless told. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { table } from '../../infra/console/table.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { executeReset, planReset, type ResetTarget } from '../../infra/kafka/reset.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { collect } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
  readonly to: 'earliest' | 'latest';
  readonly toDatetime?: number;
  readonly execute?: true;
}

export function addReset(program: Command): void {
  program
    .command('reset')
    .description('forget the state and go back to a place in the input topics; shows what it would do, unless --execute')
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .addOption(new Option('--to <place>', 'where the inputs are read from').choices(['earliest', 'latest']).default('earliest'))
    .option('--to-datetime <time>', 'from the first records at or after an ISO 8601 time', isoTime)
    .option('--execute', 'do it')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (options: Options) => {
      const config = requireKafka(
        await loadConfig({ file: options.config, environment: process.env, assignments: options.set }),
        options.config,
      );
      await requireLogin(config.kafka);
      const kafka = kafkaClient(config.kafka);
      const target: ResetTarget = options.toDatetime === undefined ? options.to : { timeMs: options.toDatetime };
      const plan = await planReset(kafka, config, target);
      console.log(`group ${plan.group}`);
      console.log(
        table(plan.offsets.map(({ topic, partition, from, to }) => ({ topic, partition, committed: from ?? '-', to }))),
      );
      console.log(`changelog: ${plan.changelog === undefined ? 'none' : `${plan.changelog}, deleted and made again`}`);
      console.log(`local state: ${plan.stateFolder === undefined ? 'none here' : `${plan.stateFolder}, removed`}`);
      console.log('outputs that were published stay; state folders on other machines are found outdated there and restored');
      if (options.execute === true) {
        await executeReset(kafka, config, plan);
        console.log('done');
      } else console.log('nothing was done: this was a dry run; repeat with --execute');
    });
}

function isoTime(text: string): number {
  const timeMs = Date.parse(text);
  if (Number.isNaN(timeMs)) throw new InvalidArgumentError(`'${text}' is not a time such as 2026-11-24T10:00:00Z.`);
  return timeMs;
}
