/** Real Kafka for integration tests: one cluster that a whole run shares, and private ones for tests that break things. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { inject } from 'vitest';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { type StartKafkaOptions, startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { type KafkaConfig, parseConfig } from '../../schemas/config.ts';

/**
 * False where there is no Java: `describe.skipIf(!kafkaIsPossible)`. In CI nothing is skipped, so that a machine without
 * Java fails there rather than passes unseen.
 */
export const kafkaIsPossible: boolean = process.env['CI'] !== undefined || hasJava();

/** The run's own single broker, started by the first test that asks; use topics and groups with `randomName`. Never stop it. */
export const sharedKafka = (): Promise<LocalKafka> =>
  startKafka({ folder: `${inject('kafkaFolder')}shared`, jars: jars(), basePort: 0 });

/** A cluster of the caller's own, on free ports; `destroy()` it afterwards (the end of the run does it otherwise). */
export const privateKafka = (options: Omit<StartKafkaOptions, 'folder' | 'jars' | 'basePort'> = {}): Promise<LocalKafka> =>
  startKafka({ ...options, folder: `${inject('kafkaFolder')}${randomBytes(4).toString('hex')}`, jars: jars(), basePort: 0 });

/** `prefix-1a2b3c4d`: topics, groups and application ids that no other test has. */
export const randomName = (prefix: string): string => `${prefix}-${randomBytes(4).toString('hex')}`;

/** The whole `kafka` section for a connection, defaults filled in. */
export function kafkaConfigOf(connection: ReturnType<LocalKafka['connection']>, more: Record<string, unknown> = {}): KafkaConfig {
  return parseConfig({ bundle: 'none', kafka: { ...connection, ...more } }, 'this test').kafka!;
}

const jars = (): string => join(dirname(inject('kafkaFolder')), 'libs');

function hasJava(): boolean {
  try {
    execFileSync('java', ['-version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
