/** What an instance tells of itself: metrics, health, log, traces and the shadow check, all fed from the stream's own events. */
import { BatchSpans } from '../../infra/telemetry/batch-spans.ts';
import { type HealthServer, isReady, startHealthServer } from '../../infra/telemetry/health-server.ts';
import type { Logger } from '../../infra/telemetry/log.ts';
import { StreamMetrics } from '../../infra/telemetry/metrics.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { PipelineObserver } from '../instrument.ts';
import type { ModelObserver } from '../model-change/model-status.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { toleranceOf16Bits } from '../shadow-check.ts';
import { ShadowSampler } from '../shadow-sampler.ts';
import { Trouble } from '../trouble.ts';
import type { CatalogueObserver } from './live-catalogue.ts';
import type { LiveObserver } from './live-stream.ts';
import type { OpenLive } from './open-live.ts';
import { openModelDoor } from './open-model-door.ts';

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
  #sampler: ShadowSampler;
  /** Of models that are served no more: each finishes what it began. */
  readonly #retired = new Set<Promise<void>>();
  #model: Bundle;
  /** The model that is loaded beside it. */
  #next: { readonly digest: string; readonly name: string } | undefined;
  readonly #restoring = new Map<number, { loggedMs: number; from: number }>();
  readonly #trouble: Trouble;
  #server: HealthServer | undefined;
  #live: OpenLive | undefined;

  constructor({ config, bundle, logger, version }: ObserveOptions) {
    this.#config = config;
    this.#log = logger;
    this.#trouble = new Trouble(logger);
    this.#model = bundle;
    this.#metrics = new StreamMetrics({
      version,
      modelDigest: bundle.digest,
      delivery: config.kafka.delivery,
      actions: actionsOf(bundle),
      maxInFlightBatches: config.kafka.maxInFlightBatches,
      maxBufferedBytes: config.kafka.maxBufferedBytes,
    });
    this.#metrics.modelServed({ digest: bundle.digest, name: bundle.config.name, actions: actionsOf(bundle) });
    this.#sampler = this.#samplerOf(bundle);
  }

  /** @returns the port on which /healthz, /readyz and /metrics are answered */
  async listen(): Promise<number> {
    const { host, port, maxConnections } = this.#config.telemetry;
    const modelDoor = await openModelDoor(this.#config);
    this.#server = await startHealthServer({
      host,
      port,
      maxConnections,
      modelDoor,
      health: () => this.#trouble.health,
      progress: () => this.#oldestInFlightMs(),
      metrics: this.#metrics,
      model: () => this.#live?.models,
    });
    return this.#server.port;
  }

  attach(live: OpenLive): void {
    this.#live = live;
    this.#metrics.watchEncoder({
      stats: () => live.encoder.stats(),
      get load() {
        return live.encoder.load;
      },
    });
    this.#metrics.onScrape(() => this.#scrape(live));
  }

  readonly pipelineObserver: PipelineObserver = {
    step: (id, seconds, events, batches) => {
      this.#metrics.step(id, seconds);
      this.#spans.step(id, seconds, events, batches);
    },
    failed: (id, error) => this.#spans.failed(id, error),
    leftOut: ({ ignored, invalid }) => {
      this.#metrics.ignored(ignored);
      for (const [field, { count, example }] of invalid) {
        this.#metrics.valuesInvalid(field, count);
        this.#log.warn({ field, values: count, example }, 'a value that cannot be used is left out of its action');
      }
    },
    gathered: (batch) => this.#sampler.gathered(batch),
    run: (run) => this.#metrics.encoderRun(run),
  };

  readonly observer: LiveObserver = {
    onState: (state) => {
      this.#trouble.become(state);
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
    onFact: (message, facts) => this.#log.info(facts, message),
    onNotice: (message, facts) => this.#log.warn(facts, message),
    onLost: (at, from, to) => {
      this.#metrics.recordsLost(to - from);
      this.#log.error({ ...at, from, to, lost: to - from }, 'records were deleted by retention before they were read');
    },
    onMisplaced: ({ position, userId, belongs }) => {
      this.#metrics.misplaced(position.topic);
      this.#log.warn(
        { ...position, user: userId, belongs, policy: this.#config.kafka.misplaced },
        "a record does not lie on its user's partition: its key is not the user's id, or another partitioner chose",
      );
    },
    onCommit: (_partition, seconds) => this.#metrics.committed(seconds),
    onAborted: () => this.#metrics.transactionAborted(),
    onCommitAgain: (partition, error) => {
      this.#metrics.commitAgain();
      this.#log.warn({ partition, err: error }, 'a commit had no answer: looking whether it was done, and doing it again');
    },
    onWaiting: (error, delayMs) => {
      this.#trouble.waits(error);
      this.#log.warn({ err: error, delayMs }, 'the start waits for the brokers');
    },
    onWatched: (unready) => this.#trouble.sees(unready),
    onFailed: (error) => this.#trouble.failed(error),
    onRecovering: (error, delayMs) => {
      this.#trouble.recovers(error);
      this.#metrics.recovering(error.code);
      this.#log.warn({ err: error, delayMs }, 'going on from the last commit');
    },
    onCommitted: (batch) => {
      this.#trouble.progressed();
      this.#metrics.observeOutput(batch, Date.now());
      this.#sampler.published(batch);
      for (const { position, code, step, message } of batch.deadLetters.slice(0, 3))
        this.#log.warn({ ...position, code, step, reason: message }, 'dead letter');
    },
  };

  readonly catalogueObserver: CatalogueObserver = {
    onApplied: (catalogue) => {
      this.#metrics.catalogueApplied(catalogue);
      if (catalogue.allowed === 0 && catalogue.offered > 0)
        this.#log.warn(catalogue, 'scores.filter allows no entity of the catalogue: lists are empty');
      else this.#log.info(catalogue, 'lists are made of another catalogue');
    },
    onRejected: (at, reason, message) => {
      this.#metrics.entityRejected(reason);
      this.#log.warn({ ...at, reason, problem: message }, 'a record of the entities topic changes nothing');
    },
    onTrouble: (error) => this.#log.warn({ err: error }, 'the entities topic cannot be read; it is tried again'),
  };

  readonly modelObserver: ModelObserver = {
    onServing: ({ bundle, path }) => {
      // With another catalogue beside it, it is the same model.
      if (bundle.tensors !== this.#model.tensors) this.#serve(bundle);
      this.#log.info({ bundle: path, model: bundle.config.name, digest: bundle.digest }, 'this model is served');
    },
    onChangeBegun: ({ bundle, path }, noticed) => {
      this.#next = { digest: bundle.digest, name: bundle.config.name };
      this.#metrics.modelLoading(this.#next, { done: 0, total: 0 }, 0);
      this.#log.info(
        { bundle: path, model: bundle.config.name, digest: bundle.digest, differs: noticed },
        'a model is loaded beside the one that is served',
      );
    },
    onChangeProgress: ({ digest, name, phase, users, usersPerSecond }) => {
      this.#metrics.modelLoading({ digest, name }, users, usersPerSecond);
      if (phase !== 'prefilling') this.#log.info({ digest, phase, ...users, usersPerSecond }, `change of the model: ${phase}`);
    },
    onChangeEnded: ({ bundle, outcome, problem, switchMs }) => {
      // What was refused was never loaded; another may be.
      const loaded = outcome === 'refused' ? undefined : this.#next;
      if (outcome !== 'refused') this.#next = undefined;
      this.#metrics.modelChanged(outcome, loaded, switchMs === undefined ? undefined : switchMs / 1000);
      const facts = { bundle, outcome, switchMs, reason: problem, served: this.#model.digest };
      if (problem === undefined) this.#log.info(facts, `change of the model: ${outcome}`);
      else this.#log.error(facts, `change of the model: ${outcome}; the model that was served goes on`);
    },
  };

  async close(): Promise<void> {
    await this.#server?.close();
    await Promise.all([...this.#retired, this.#sampler.close()]);
  }

  #samplerOf(bundle: Bundle): ShadowSampler {
    return new ShadowSampler(bundle, {
      rate: this.#config.telemetry.shadowSampleRate,
      report: this.#metrics,
      log: this.#log,
      tolerance: toleranceOf16Bits(this.#config),
    });
  }

  /** Called between two flows: no batch has samples of both. */
  #serve(bundle: Bundle): void {
    this.#model = bundle;
    this.#metrics.modelServed({ digest: bundle.digest, name: bundle.config.name, actions: actionsOf(bundle) });
    const before = this.#sampler;
    this.#sampler = this.#samplerOf(bundle);
    const retired = before
      .idle()
      .then(() => before.close())
      .finally(() => this.#retired.delete(retired));
    this.#retired.add(retired);
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

  #scrape({ stream, fetcher, topics, catalogue, watch, ends }: OpenLive): void {
    this.#metrics.watch({ ...watch.report(), ready: isReady(this.#trouble.health) });
    const { entities } = this.#config.kafka.topics;
    for (const [partition, position] of catalogue?.positions ?? []) {
      const end = ends.endsOf(entities!).get(partition);
      if (end !== undefined) this.#metrics.catalogueLag(partition, Math.max(0, end - position));
    }
    let hotUsers = 0;
    let bytes = 0;
    for (const [partition, task] of stream.tasks) {
      hotUsers += task.sequences.hotSize;
      bytes += task.storeBytes;
      for (const topic of topics) {
        const progress = fetcher.progress({ topic, partition });
        if (progress === undefined) continue;
        this.#metrics.buffered({ topic, partition }, progress.bytes);
      }
      this.#metrics.inFlight(partition, task.source.inFlight);
    }
    this.#metrics.store({ bytes, hotUsers });
  }
}

const actionsOf = ({ config: { actions } }: Bundle): string[] => [...actions.encoded, ...actions.skipped];
