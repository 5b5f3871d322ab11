import type { Config, KafkaConfig } from '../schemas/config.ts';
import { PipelineError } from '../schemas/errors.ts';

/** A configuration with a `kafka` section. */
export type LiveConfig = Config & { readonly kafka: KafkaConfig };

/** @throws PipelineError `CONFIG_INVALID` where `config` has no `kafka` section */
export function requireKafka(config: Config, origin: string): LiveConfig {
  if (config.kafka === undefined)
    throw new PipelineError('CONFIG_INVALID', `${origin}: kafka: missing; at least kafka.brokers: [host:port] is needed`);
  return config as LiveConfig;
}
