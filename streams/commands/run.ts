/** `hstu-streams run`: an instance of the consumer deployment. */
import type { Command } from 'commander';
import { loginInClearText } from '../../infra/kafka/sasl/sasl-options.ts';
import { kafkajsLogCreator } from '../../infra/telemetry/kafkajs-log.ts';
import { createLogger } from '../../infra/telemetry/log.ts';
import { CatalogueFields } from '../../models/catalogue/catalogue-fields.ts';
import { secretsOf } from '../../schemas/config.ts';
import { describeCatalogue, loadModel } from '../catalogue.ts';
import { LiveTelemetry } from '../live/observe-live.ts';
import { openLive } from '../live/open-live.ts';
import { loadConfig } from '../load-config.ts';
import { isStopped } from '../patience.ts';
import { requireKafka } from '../require-kafka.ts';
import { runSinkInside } from '../sink/run-sink.ts';
import { storeServedVectors } from '../sink/served-vectors.ts';
import { instanceEnds } from './instance.ts';
import { collect } from './options.ts';

export function addRun(program: Command): void {
  program
    .command('run')
    .description('consume user actions from Kafka and keep embeddings and candidate scores current; SIGTERM drains and commits')
    .requiredOption('-c, --config <file>', 'configuration, YAML')
    .option('--set <key=value>', 'override a setting, such as kafka.delivery=at-least-once (repeatable)', collect, [])
    .action(async (options: { config: string; set: string[] }) => {
      const sources = { file: options.config, environment: process.env, assignments: options.set };
      const config = requireKafka(await loadConfig(sources), options.config);
      const { kafka, telemetry } = config;
      const logger = createLogger({ level: telemetry.logLevel, name: kafka.applicationId, secrets: secretsOf(config) });
      const exposed = loginInClearText(kafka);
      if (exposed !== undefined) logger.warn(exposed);
      const bundle = await loadModel(config, (report) => {
        const level = report.examples.length === 0 ? 'info' : 'warn';
        logger[level](report, describeCatalogue(report));
      });
      const { filter } = config.scores;
      if (filter !== undefined && kafka.topics.entities === undefined && new CatalogueFields(bundle).allowed(filter).count === 0)
        logger.warn({ filter }, `scores.filter allows no entity of ${config.catalogue?.file}: lists are empty`);
      const told = new LiveTelemetry({ config, bundle, logger, version: program.version() ?? '' });
      const ends = instanceEnds({
        logger,
        drainTimeoutMs: kafka.drainTimeoutMs,
        stopping: 'stopping: finishing and committing what was read',
        late: 'not stopped in time: ending; what was not committed will be done again',
      });
      try {
        const port = await told.listen();
        logger.info({ port, model: bundle.digest.slice(0, 16), delivery: kafka.delivery }, `healthz, readyz, metrics on ${port}`);
        const live = await openLive({
          config,
          bundle,
          observer: { ...told.observer, onFailed: (error) => (told.observer.onFailed?.(error), ends.onFailed(error)) },
          pipelineObserver: told.pipelineObserver,
          modelObserver: {
            ...told.modelObserver,
            onServing: (model) => {
              told.modelObserver.onServing?.(model);
              // With another catalogue beside it, it is the same model: what is stored is not stored again.
              if (config.sink.inside) void storeServedVectors(config, model.bundle, logger);
            },
          },
          catalogueObserver: told.catalogueObserver,
          // Read anew: what is changed there is what a restart would serve.
          configured: async () => (await loadConfig(sources)).bundle,
          logCreator: kafkajsLogCreator(logger),
          signal: ends.signal,
        });
        told.attach(live);
        const ended = new AbortController();
        const inside = config.sink.inside
          ? runSinkInside(config, logger.child({ part: 'sink' }), AbortSignal.any([ends.signal, ended.signal]))
          : undefined;
        try {
          await live.run(ends.signal);
        } finally {
          ended.abort();
          await inside;
          await live.close();
        }
      } catch (error) {
        if (isStopped(error, ends.signal)) return;
        logger.error({ err: error }, 'the stream has failed');
        throw error;
      } finally {
        await told.close();
        ends.over();
      }
    });
}
