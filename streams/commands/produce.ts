/** `hstu-streams produce`: the events of files, or a catalogue's file, into the topics that `run` reads. */
import type { Command } from 'commander';
import { count, duration } from '../../infra/console/format.ts';
import { startProgress } from '../../infra/console/progress.ts';
import { openFileSource } from '../../infra/files/merge-by-time.ts';
import { kafkaClient, requireLogin } from '../../infra/kafka/kafka-client.ts';
import { KeyedProducer, type KeyedRecord } from '../../infra/kafka/keyed-producer.ts';
import { actionSourceOf } from '../../infra/kafka/topics.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { loadConfig } from '../load-config.ts';
import { producedValues } from '../produced-record.ts';
import { rowInputs } from '../replay/row-inputs.ts';
import { deploymentDecoder } from '../replay/source.ts';
import { requireKafka } from '../require-kafka.ts';
import { onInterrupt } from './interrupt.ts';
import { collect, positiveInteger } from './options.ts';
import { produceEntities } from './produce-entities.ts';

/** Actions sent together. */
const BATCH = 1_000;

export function addProduce(program: Command): void {
  program
    .command('produce')
    .description('write the events of source.files, in event-time order, to the user-actions topic; or a catalogue to its topic')
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--entities <file>', 'instead: this catalogue file (JSON lines or CSV) to the entities topic')
    .option('--limit <events>', 'stop after this many events', positiveInteger)
    .option('--rate <events>', 'events a second, at most', positiveInteger)
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (options: { config: string; entities?: string; limit?: number; rate?: number; set: string[] }) => {
      const config = requireKafka(
        await loadConfig({ file: options.config, environment: process.env, assignments: options.set }),
        options.config,
      );
      if (options.entities !== undefined) return produceEntities(config, options.config, options.entities);
      if (config.source === undefined) throw new PipelineError('CONFIG_INVALID', `${options.config}: source: missing`);
      const files = await openFileSource(await rowInputs(config), { ...config.time, ...config.source });
      const mappings = new Map(files.topics.map((topic, i) => [topic, files.mappings[i]!]));
      await requireLogin(config.kafka);
      const codec = new AvroCodec({ schemas: fixedSchemas, maxRecordBytes: config.kafka.maxRecordBytes });
      const parts = { config, codec, decoder: deploymentDecoder(config, undefined) };
      const producer = await KeyedProducer.open(kafkaClient(config.kafka), config.kafka, actionSourceOf(config.kafka));
      const interrupt = onInterrupt(() => undefined);
      const end = Math.min(options.limit ?? files.total, files.total);
      const bar = startProgress('producing', end);
      const began = performance.now();
      let sent = 0;
      let refused = 0;
      let ignored = 0;
      let batch: KeyedRecord[] = [];
      const flush = async () => {
        await producer.send(batch);
        sent += batch.length;
        bar.update(Math.min(end, sent + refused + ignored), '');
        const dueMs = options.rate === undefined ? 0 : (1000 * sent) / options.rate - (performance.now() - began);
        if (dueMs > 0) await new Promise((resolve) => setTimeout(resolve, dueMs));
        batch = [];
      };
      const batchSize = Math.min(BATCH, options.rate ?? BATCH);
      try {
        for (const { record } of files.records(0, end)) {
          if (interrupt.signal.aborted) break;
          const decoded = mappings.get(record.position.topic)!.decode(record);
          if (!decoded.ok) {
            refused += 1;
            continue;
          }
          const [first] = decoded.actions;
          if (first === undefined) ignored += 1;
          else for (const value of producedValues(record, decoded.actions, parts)) batch.push({ key: first.userId, value });
          if (batch.length >= batchSize) await flush();
        }
        if (batch.length > 0) await flush();
      } finally {
        bar.stop();
        interrupt.dispose();
        await producer.close();
      }
      const elapsedMs = performance.now() - began;
      const left = refused === 0 ? '' : `; ${count(refused)} rows of the files are no actions and were left out`;
      const rest = `${left}${ignored === 0 ? '' : `; ${count(ignored)} are of kinds that the mapping ignores`}`;
      console.log(`produced ${count(sent)} events in ${duration(elapsedMs)} (${count((1000 * sent) / elapsedMs)}/s)${rest}`);
    });
}
