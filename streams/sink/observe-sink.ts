/** What an instance of the sink tells of itself: metrics, health and log, all fed from its own events. */
import { type Health, type HealthServer, isReady, startHealthServer } from '../../infra/telemetry/health-server.ts';
import type { Logger } from '../../infra/telemetry/log.ts';
import { SinkMetrics } from '../../infra/telemetry/sink-metrics.ts';
import { messageOf } from '../../schemas/errors.ts';
import type { LiveConfig } from '../require-kafka.ts';
import type { OpenSink, OpenSinkOptions } from '../sink.ts';
import { Trouble } from '../trouble.ts';

/** How often the log says how far the sink is, ms. */
const LOG_EVERY_MS = 10_000;

export class SinkTelemetry {
  readonly #config: LiveConfig;
  readonly #log: Logger;
  readonly #metrics: SinkMetrics;
  readonly #trouble: Trouble;
  /** Why ClickHouse is away, and since when. */
  #away: { readonly sinceMs: number; readonly reason: string } | undefined;
  #server: HealthServer | undefined;
  #loggedMs = Number.NEGATIVE_INFINITY;
  #since = { records: 0, rows: 0 };

  constructor(config: LiveConfig, logger: Logger) {
    this.#config = config;
    this.#log = logger;
    this.#trouble = new Trouble(logger);
    this.#metrics = new SinkMetrics({ maxBufferedBytes: config.sink.maxBufferedBytes });
  }

  /**
   * Serves /healthz, /readyz and /metrics. A sink whose ClickHouse is away is alive and not ready.
   *
   * @returns the port
   */
  async listen(): Promise<number> {
    const { telemetry, sink } = this.#config;
    this.#server = await startHealthServer({
      maxConnections: telemetry.maxConnections,
      host: telemetry.host,
      port: sink.port,
      health: () => this.#health(),
      metrics: this.#metrics,
    });
    return this.#server.port;
  }

  attach(sink: OpenSink): void {
    this.#metrics.onScrape(() => {
      const progress = sink.progress();
      for (const at of progress) this.#metrics.stored(at, at.nextOffset);
      this.#metrics.watch({ ...sink.watch.report(), ready: isReady(this.#health()) });
      this.#metrics.buffered(progress.reduce((sum, { bytes }) => sum + bytes, 0));
    });
  }

  readonly observer: NonNullable<OpenSinkOptions['observer']> = {
    onState: (state) => {
      this.#trouble.become(state);
      this.#log.info({ state }, `sink is ${state}`);
    },
    onAssigned: (partitions) => {
      this.#metrics.assigned(partitions);
      this.#log.info({ partitions }, `stores ${partitions.length} partition(s)`);
    },
    onWaiting: (error, delayMs) => {
      this.#trouble.waits(error);
      this.#log.warn({ err: error, delayMs }, 'the start waits for the brokers');
    },
    onWatched: (unready) => this.#trouble.sees(unready),
    onFailed: (error) => this.#trouble.failed(error),
    onCommitted: (taken, commit) => {
      this.#trouble.progressed();
      const records = taken.reduce((sum, entry) => sum + entry.records.length, 0);
      this.#metrics.committed({ ...commit, records });
      if (commit.unreadable > 0) this.#log.warn({ records: commit.unreadable }, 'records that cannot be read were left out');
      this.#since.records += records;
      this.#since.rows += commit.rows;
      const now = performance.now();
      if (now - this.#loggedMs < LOG_EVERY_MS) return;
      this.#loggedMs = now;
      this.#log.info(this.#since, 'stored');
      this.#since = { records: 0, rows: 0 };
    },
    onAway: (error, attempt) => {
      this.#metrics.retried();
      this.#away ??= { sinceMs: Date.now(), reason: `ClickHouse is away: ${messageOf(error)}` };
      this.#log.warn({ err: error, attempt }, 'ClickHouse is away: holding what was read, reading no further');
    },
    onBack: (afterMs) => {
      this.#metrics.back();
      this.#away = undefined;
      this.#log.info({ afterMs: Math.round(afterMs) }, 'ClickHouse is back: nothing was lost');
    },
    onRecovering: (error, delayMs) => {
      this.#trouble.recovers(error);
      this.#metrics.recovering();
      this.#log.warn({ err: error, delayMs }, 'going on from what is stored');
    },
    onNotice: (message, facts) => this.#log.warn(facts, message),
  };

  #health(): Health {
    const { health } = this.#trouble;
    return this.#away === undefined ? health : { ...health, ...this.#away, state: 'RETRYING' };
  }

  async close(): Promise<void> {
    await this.#server?.close();
  }
}
