/** `hstu-streams sink`: the committed topics into ClickHouse. */
import type { Command } from 'commander';
import { loginInClearText } from '../../infra/kafka/sasl/sasl-options.ts';
import { createLogger } from '../../infra/telemetry/log.ts';
import { secretsOf } from '../../schemas/config.ts';
import { loadConfig } from '../load-config.ts';
import { isStopped } from '../patience.ts';
import { requireKafka } from '../require-kafka.ts';
import { runSink } from '../sink/run-sink.ts';
import { sinkGroup } from '../sink.ts';
import { instanceEnds } from './instance.ts';
import { collect } from './options.ts';

export function addSink(program: Command): void {
  program
    .command('sink')
    .description(
      'store what the stream reads and publishes in ClickHouse, from its committed topics; SIGTERM stores what was read',
    )
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--set <key=value>', 'override a setting, such as clickhouse.url=http://host:8123 (repeatable)', collect, [])
    .action(async (options: { config: string; set: string[] }) => {
      const config = requireKafka(
        await loadConfig({ file: options.config, environment: process.env, assignments: options.set }),
        options.config,
      );
      const { kafka, telemetry } = config;
      const logger = createLogger({
        level: telemetry.logLevel,
        name: sinkGroup(kafka.applicationId),
        secrets: secretsOf(config),
      });
      const exposed = loginInClearText(kafka);
      if (exposed !== undefined) logger.warn(exposed);
      const ends = instanceEnds({
        logger,
        drainTimeoutMs: kafka.drainTimeoutMs,
        stopping: 'stopping: storing what was read',
        late: 'not stopped in time: ending; what was not stored is read again',
      });
      try {
        await runSink(config, logger, ends.signal, ends.onFailed);
      } catch (error) {
        if (!isStopped(error, ends.signal)) throw error;
      } finally {
        ends.over();
      }
    });
}
