/** What an instance tells of itself: metrics, health, log, traces and the shadow check, all fed from the stream's own events. */
import { BatchSpans } from '../../infra/telemetry/batch-spans.ts';
import { type HealthServer, startHealthServer } from '../../infra/telemetry/health-server.ts';
import type { Logger } from '../../infra/telemetry/log.ts';
import { StreamMetrics } from '../../infra/telemetry/metrics.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { PipelineObserver } from '../instrument.ts';
import type { LifecycleState } from '../lifecycle.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { ShadowSampler } from '../shadow-sampler.ts';
import type { LiveObserver } from './live-stream.ts';
import type { OpenLive } from './open-live.ts';

/** How often a restore says how far it is, ms. */
const RESTORE_LOG_MS = 2_000;

export interface ObserveOptions {
  readonly config: LiveConfig;
  readonly bundle: Bundle;
  readonly logger: Logger;
  readonly version: string;
}

/** Made before the stream, attached to it when it is open. */
export class LiveTelemetry {
  readonly #config: LiveConfig;
  readonly #log: Logger;
  readonly #metrics: StreamMetrics;
  readonly #spans = new BatchSpans();
  readonly #sampler: ShadowSampler;
  readonly #restoring = new Map<number, { loggedMs: number; from: number }>();
  #state: { state: LifecycleState; sinceMs: number } = { state: 'STARTING', sinceMs: Date.now() };
  #server: HealthServer | undefined;
  #live: OpenLive | undefined;

  constructor({ config, bundle, logger, version }: ObserveOptions) {
    const { actions } = bundle.config;
    this.#config = config;
    this.#log = logger;
    this.#metrics = new StreamMetrics({
      version,
      modelDigest: bundle.digest,
      delivery: config.kafka.delivery,
      actions: [...actions.encoded, ...actions.skipped],
      maxInFlightBatches: config.kafka.maxInFlightBatches,
      maxBufferedBytes: config.kafka.maxBufferedBytes,
    });
    this.#sampler = new ShadowSampler(bundle, {
      rate: config.telemetry.shadowSampleRate,
      report: this.#metrics,
      log: logger,
    });
  }

  /** @returns the port on which /healthz, /readyz and /metrics are answered */
  async listen(): Promise<number> {
    const { host, port } = this.#config.telemetry;
    this.#server = await startHealthServer({
      host,
      port,
      health: () => this.#state,
      progress: () => this.#oldestInFlightMs(),
      metrics: this.#metrics,
    });
    return this.#server.port;
  }

  attach(live: OpenLive): void {
    this.#live = live;
    this.#metrics.watchEncoder(live.encoder);
    this.#metrics.onScrape(() => this.#scrape(live));
  }

  readonly pipelineObserver: PipelineObserver = {
    step: (id, seconds, events, batches) => {
      this.#metrics.step(id, seconds);
      this.#spans.step(id, seconds, events, batches);
    },
    failed: (id, error) => this.#spans.failed(id, error),
    gathered: (batch) => this.#sampler.gathered(batch),
  };

  readonly observer: LiveObserver = {
    onState: (state) => {
      this.#state = { state, sinceMs: Date.now() };
      this.#metrics.state(state);
      this.#log.info({ state }, `stream is ${state}`);
    },
    onAssigned: (partitions) => {
      this.#metrics.assigned(partitions);
      this.#log.info({ partitions }, `owns ${partitions.length} partition(s)`);
    },
    onRebalance: () => {
      this.#metrics.rebalanced();
      this.#log.info('the group rebalances: committing what is in flight');
    },
    onRestore: (partition, done, total) => this.#onRestore(partition, done, total),
    onNotice: (message, facts) => this.#log.warn(facts, message),
    onLost: (at, from, to) => {
      this.#metrics.recordsLost(to - from);
      this.#log.error({ ...at, from, to, lost: to - from }, 'records were deleted by retention before they were read');
    },
    onCommit: (_partition, seconds) => this.#metrics.committed(seconds),
    onAborted: () => this.#metrics.transactionAborted(),
    onRecovering: (error, delayMs) => {
      this.#metrics.recovering(error.code);
      this.#log.warn({ err: error, delayMs }, 'going on from the last commit');
    },
    onCommitted: (batch) => {
      this.#metrics.observeOutput(batch, Date.now());
      this.#sampler.published(batch);
      for (const { position, code, step, message } of batch.deadLetters.slice(0, 3))
        this.#log.warn({ ...position, code, step, reason: message }, 'dead letter');
    },
  };

  async close(): Promise<void> {
    await this.#server?.close();
    await this.#sampler.close();
  }

  #onRestore(partition: number, done: number, total: number): void {
    this.#metrics.restore(partition, done, total);
    if (total === 0) return;
    const now = performance.now();
    const before = this.#restoring.get(partition) ?? { loggedMs: Number.NEGATIVE_INFINITY, from: now };
    const ended = done >= total;
    if (ended || now - before.loggedMs >= RESTORE_LOG_MS) {
      const perSecond = Math.round((1000 * done) / Math.max(1, now - before.from));
      this.#log.info({ partition, done, total, perSecond }, `restored ${done} of ${total} changelog records`);
      before.loggedMs = now;
    }
    if (ended) this.#restoring.delete(partition);
    else this.#restoring.set(partition, before);
  }

  #oldestInFlightMs(): number | undefined {
    let oldest: number | undefined;
    for (const { source } of this.#live?.stream.tasks.values() ?? []) {
      const at = source.oldestInFlightMs;
      if (at !== undefined && (oldest === undefined || at < oldest)) oldest = at;
    }
    return oldest;
  }

  #scrape({ stream, fetcher, topics }: OpenLive): void {
    let hotUsers = 0;
    let bytes = 0;
    for (const [partition, task] of stream.tasks) {
      hotUsers += task.sequences.hotSize;
      bytes += task.storeBytes;
      for (const topic of topics) {
        const progress = fetcher.progress({ topic, partition });
        if (progress === undefined) continue;
        this.#metrics.lag({ topic, partition }, progress.lag);
        this.#metrics.buffered({ topic, partition }, progress.bytes);
      }
      this.#metrics.inFlight(partition, task.source.inFlight);
    }
    this.#metrics.store({ bytes, hotUsers });
  }
}
