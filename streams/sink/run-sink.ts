/** A sink with its telemetry, from opening to closing: as a process of its own, or beside a stream in the stream's. */
import { setTimeout as sleep } from 'node:timers/promises';
import { kafkajsLogCreator } from '../../infra/telemetry/kafkajs-log.ts';
import type { Logger } from '../../infra/telemetry/log.ts';
import { isStopped } from '../patience.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { openSink } from '../sink.ts';
import { SinkTelemetry } from './observe-sink.ts';

/** Before a sink that has failed beside a stream is opened again, ms: an operator must make room on a disk, or mend a setting. */
const REOPEN_MS = 30_000;

/**
 * Runs until aborted.
 *
 * @param onFailed told at once of what ends it, before anything is closed
 * @throws PipelineError that trying again does not mend; `DOMException` `AbortError` when stopped while it opens
 */
export async function runSink(
  config: LiveConfig,
  logger: Logger,
  signal: AbortSignal,
  onFailed?: (error: unknown) => void,
): Promise<void> {
  const told = new SinkTelemetry(config, logger);
  try {
    const port = await told.listen();
    const observer = { ...told.observer, onFailed: (error: unknown) => (told.observer.onFailed?.(error), onFailed?.(error)) };
    const sink = await openSink({ config, observer, logCreator: kafkajsLogCreator(logger), signal });
    logger.info({ port, clickhouse: sink.where }, `healthz, readyz, metrics on ${port}`);
    told.attach(sink);
    try {
      await sink.run(signal);
    } finally {
      await sink.close();
    }
  } catch (error) {
    if (!isStopped(error, signal)) logger.error({ err: error }, 'the sink has failed');
    throw error;
  } finally {
    await told.close();
  }
}

/** The same beside a stream, which its faults do not touch: they are told, and the sink is opened again after a while. */
export async function runSinkInside(config: LiveConfig, logger: Logger, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      return await runSink(config, logger, signal);
    } catch {
      if (signal.aborted) return;
      logger.warn({ againInMs: REOPEN_MS }, 'the stream goes on without its sink; what is not stored waits in Kafka');
      await sleep(REOPEN_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
