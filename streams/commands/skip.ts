/** `hstu-streams skip`: passes over one record batch that nobody can read. A dry run unless told. */
import type { Command } from 'commander';
import { count } from '../../infra/console/format.ts';
import { facts } from '../../infra/console/table.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { SchemaRegistry } from '../../infra/kafka/schema-registry.ts';
import { actionSourceOf } from '../../infra/kafka/topics.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { loadConfig } from '../load-config.ts';
import { requireKafka } from '../require-kafka.ts';
import { executeSkip, planSkip } from '../skip-batch.ts';
import { collect, wholeNumber } from './options.ts';

interface Options {
  readonly config: string;
  readonly set: string[];
  readonly partition: number;
  readonly offset: number;
  readonly topic?: string;
  readonly execute?: true;
}

export function addSkip(program: Command): void {
  program
    .command('skip')
    .description('pass over a record batch that cannot be read, into the dead letters; shows what it would do, unless --execute')
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .requiredOption('--partition <number>', 'the partition that stands', wholeNumber)
    .requiredOption('--offset <number>', 'where it stands, as the log and /readyz say', wholeNumber)
    .option('--topic <name>', 'an input topic (default: that of the actions)')
    .option('--execute', 'do it')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (options: Options) => {
      const config = requireKafka(
        await loadConfig({ file: options.config, environment: process.env, assignments: options.set }),
        options.config,
      );
      await requireLogin(config.kafka);
      const kafka = kafkaClient(config.kafka);
      const { partition, offset, topic = actionSourceOf(config.kafka) } = options;
      const plan = await planSkip(kafka, config, { topic, partition, offset });
      console.log(
        facts([
          ['batch', `${topic}/${partition}, offsets ${offset} to ${plan.nextOffset - 1}`],
          ['bytes', `${count(plan.bytes.length)}, SHA-256 ${plan.digest}`],
          ['why', plan.reason],
          ['goes to', `${config.kafka.topics.deadLetters}/${partition}, cut to what that takes`],
          ['goes on at', String(plan.nextOffset)],
        ]),
      );
      if (options.execute === true) {
        const { schemaRegistry, topics, maxRecordBytes } = config.kafka;
        const registry = schemaRegistry && new SchemaRegistry(schemaRegistry);
        await registry?.register({ DeadLetter: topics.deadLetters });
        await executeSkip(kafka, config, new AvroCodec({ schemas: registry ?? fixedSchemas, maxRecordBytes }), plan);
        console.log('done');
      } else console.log('nothing was done: this was a dry run; repeat with --execute');
    });
}
