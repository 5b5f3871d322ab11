/** What the stream measures of itself: one registry, fed by batch and by the project's own records, read at `/metrics`. */
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { EncoderLoad, EncoderRun, EncoderStats } from '../../schemas/encoding.ts';
import type { ErrorCode } from '../../schemas/errors.ts';
import { type Instruments, instruments } from './instruments.ts';
import { setWatch, type WatchFacts } from './watch-metrics.ts';

const LIFECYCLE_STATES = ['STARTING', 'RESTORING', 'RUNNING', 'DRAINING', 'STOPPED', 'FAILED'] as const;
const SCRAPE_WAIT_MS = 1_000;

export interface StreamMetricsOptions {
  readonly version: string;
  readonly modelDigest: string;
  /** `exactly-once`, `at-least-once`; `none` without Kafka. */
  readonly delivery: string;
  /** Kinds of action that may be a label; any other is counted as `other`. */
  readonly actions: readonly string[];
  readonly maxInFlightBatches: number;
  readonly maxBufferedBytes: number;
  /** Of this process too: memory, CPU, event-loop delay, garbage collection, as `hstu_process_…` and `hstu_nodejs_…`. @default true */
  readonly processMetrics?: boolean;
}

interface NamedModel {
  readonly digest: string;
  readonly name: string;
}

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export class StreamMetrics {
  readonly #registry = new Registry();
  readonly #i: Instruments;
  readonly #build: { readonly version: string; readonly delivery: string };
  #actions: ReadonlySet<string>;
  readonly #scrapes: (() => Promise<void> | void)[] = [];
  /** Topics that have series, by partition. */
  readonly #known = new Map<number, Set<string>>();
  #maxDelta = 0;

  constructor({ version, modelDigest, delivery, actions, ...options }: StreamMetricsOptions) {
    this.#i = instruments(this.#registry);
    this.#actions = new Set(actions);
    this.#build = { version, delivery };
    for (const name of Object.keys(this.#ofEncoder)) this.#registry.removeSingleMetric(name);
    this.#setBuild(modelDigest);
    this.#i.inFlightBound.set(options.maxInFlightBatches);
    this.#i.bufferedBound.set(options.maxBufferedBytes);
    this.state('STARTING');
    if (options.processMetrics !== false) collectDefaultMetrics({ register: this.#registry, prefix: 'hstu_' });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The Prometheus text. What is asked for at a scrape and does not answer within a second keeps its last value. */
  async text(): Promise<string> {
    let timer: NodeJS.Timeout | undefined;
    const waited = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, SCRAPE_WAIT_MS);
    });
    await Promise.race([waited, Promise.allSettled(this.#scrapes.map(async (scrape) => scrape()))]);
    clearTimeout(timer);
    return this.#registry.metrics();
  }

  /** Calls `scrape` before every text: the place to set gauges that nobody needs between scrapes. */
  onScrape(scrape: () => Promise<void> | void): void {
    this.#scrapes.push(scrape);
  }

  /** Asks the encoder at every scrape. */
  watchEncoder(encoder: { stats(): Promise<EncoderStats>; readonly load: EncoderLoad }): void {
    this.onScrape(() => {
      this.#i.refused.reset();
      for (const [workClass, { waiting, busy, late }] of Object.entries(encoder.load)) {
        this.#i.waitingUsers.set({ class: workClass }, waiting);
        this.#i.refused.inc({ class: workClass, reason: 'busy' }, busy);
        this.#i.refused.inc({ class: workClass, reason: 'deadline' }, late);
      }
    });
    this.onScrape(async () => {
      const { kvBytesUsed, kvBytesBudget, users, evictions, restarts, disk, index } = await encoder.stats();
      this.#showEncoder();
      this.#i.kvUsed.set(kvBytesUsed);
      this.#i.kvBudget.set(kvBytesBudget);
      this.#i.kvUsers.set(users);
      // A restarted worker counts from nothing; Prometheus takes that for what it is, the reset of a counter.
      this.#i.evictions.reset();
      this.#i.evictions.inc(evictions);
      this.#i.restarts.reset();
      this.#i.restarts.inc(restarts);
      if (disk !== undefined) {
        this.#i.diskUsed.set(disk.bytesUsed);
        this.#i.diskUsers.set(disk.users);
        this.#i.diskRecords.reset();
        const { spills, restores, skipped, corrupt } = disk;
        for (const [event, users] of Object.entries({ spilled: spills, restored: restores, skipped, corrupt }))
          this.#i.diskRecords.inc({ event }, users);
      }
      if (index === undefined) return;
      this.#i.indexLists.reset();
      this.#i.indexLists.inc({ by: 'index' }, index.lists);
      this.#i.indexLists.inc({ by: 'scan' }, index.fellBack);
      if (index.wanted > 0) this.#i.indexRecall.set({ index: 'hnsw' }, index.found / index.wanted);
    });
  }

  /** What an encoder thread was given. */
  encoderRun({ workClass, users, waitedMs }: EncoderRun): void {
    this.#i.runUsers.observe({ class: workClass }, users);
    for (const ms of waitedMs) this.#i.waitSeconds.observe({ class: workClass }, ms / 1000);
  }

  /** Another model is served from now on. @param actions as at the start */
  modelServed({ digest, name, actions }: NamedModel & { readonly actions: readonly string[] }): void {
    this.#actions = new Set(actions);
    this.#setBuild(digest);
    this.#i.model.reset();
    this.#i.model.set({ digest, name, role: 'serving' }, 1);
  }

  /** A model is loaded beside the one that is served, so many users of it done. */
  modelLoading({ digest, name }: NamedModel, users: { readonly done: number; readonly total: number }, perSecond: number): void {
    this.#i.model.set({ digest, name, role: 'loading' }, 1);
    this.#i.prefillDone.set(users.done);
    this.#i.prefillTotal.set(users.total);
    this.#i.prefillRate.set(perSecond);
  }

  /** @param switchSeconds where it was switched to */
  modelChanged(outcome: string, loaded: NamedModel | undefined, switchSeconds: number | undefined): void {
    this.#i.modelChanges.inc({ outcome });
    if (loaded !== undefined) this.#i.model.remove({ digest: loaded.digest, name: loaded.name, role: 'loading' });
    this.#i.prefillRate.set(0);
    if (switchSeconds !== undefined) this.#i.modelSwitch.set(switchSeconds);
  }

  /** Another catalogue is served. */
  catalogueApplied({
    offered,
    added,
    retired,
    allowed,
  }: Readonly<Record<'offered' | 'added' | 'retired' | 'allowed', number>>): void {
    this.#i.catalogueUpdates.inc();
    for (const [state, entities] of Object.entries({ offered, added, retired, allowed }))
      this.#i.catalogue.set({ state }, entities);
  }

  entityRejected(reason: string): void {
    this.#i.catalogueRejects.inc({ reason });
  }

  catalogueLag(partition: number, records: number): void {
    this.#i.catalogueLag.set({ partition }, records);
  }

  state(state: (typeof LIFECYCLE_STATES)[number]): void {
    for (const each of LIFECYCLE_STATES) this.#i.state.set({ state: each }, each === state ? 1 : 0);
  }

  /** One batch, or one micro-batch, through one step; seconds. */
  step(step: string, seconds: number): void {
    this.#i.stepSeconds.observe({ step }, seconds);
  }

  /** What a batch held and gave, once it is committed. @param publishedAtMs ms since the epoch */
  observeOutput(batch: OutputBatch, publishedAtMs: number): void {
    const { topic, partition, nextOffset } = batch.source;
    this.#topicsOf(partition).add(topic);
    this.#i.committedOffset.set({ topic, partition }, nextOffset);
    this.#i.batchEvents.observe(batch.source.records.length);
    for (const { timestampMs } of batch.source.records)
      if (timestampMs !== undefined) this.#i.endToEnd.observe(Math.max(0, publishedAtMs - timestampMs) / 1000);
    this.#countEvents(batch);
    for (const [key, letters] of tally(batch.deadLetters, ({ code, step }) => `${code} ${step}`)) {
      const [code, step] = key.split(' ') as [string, string];
      this.#i.deadLetters.inc({ code, step }, letters);
    }
    const rejected = batch.deadLetters.flatMap(({ action, code }) =>
      action === undefined ? [] : this.#kindsOf(action).map((kind) => `${code} ${kind}`),
    );
    for (const [key, actions] of tally(rejected, (rejectedKey) => rejectedKey)) {
      const space = key.indexOf(' ');
      this.#i.rejects.inc({ code: key.slice(0, space), action: key.slice(space + 1) }, actions);
    }
    for (const [feature, values] of batch.unknownFeatures ?? []) this.#i.unknownFeatures.inc({ feature }, values);
    this.#countRequests(batch);
    this.#i.erasures.inc(batch.erased?.length ?? 0);
    this.#i.rows.inc(batch.embeddings.reduce((sum, { rowsComputed }) => sum + rowsComputed, 0));
    for (const [outcome, embeddings] of tally(batch.embeddings, (embedding) => embedding.outcome))
      this.#i.outcomes.inc({ outcome }, embeddings);
    this.#i.embeddings.inc(batch.embeddings.length);
    this.#i.scores.inc(batch.scores.length);
  }

  #countEvents({ processed }: OutputBatch): void {
    const unknown = processed.flatMap(({ action, unknownEntity }) =>
      unknownEntity === true ? this.#kindsOf(action.action) : [],
    );
    for (const [action, events] of tally(unknown, (kind) => kind)) this.#i.unknownEntities.inc({ action }, events);
    let tokens = 0;
    const kinds = processed.flatMap(({ action, disposition }) => {
      if (disposition === 'appended' || disposition === 'inserted') tokens += 1;
      return this.#kindsOf(action.action).map((kind) => `${disposition} ${kind}`);
    });
    for (const [key, events] of tally(kinds, (kind) => kind)) {
      const space = key.indexOf(' ');
      this.#i.events.inc({ disposition: key.slice(0, space), action: key.slice(space + 1) }, events);
    }
    this.#i.tokens.inc(tokens);
  }

  #countRequests({ requests = [], scores }: OutputBatch): void {
    for (const [disposition, count] of tally(requests, (each) => each.disposition)) this.#i.requests.inc({ disposition }, count);
    const answers = scores.filter(({ requestId }) => requestId !== undefined);
    this.#i.candidates.inc(answers.reduce((sum, { candidates }) => sum + candidates.length, 0));
    const leftOut = answers.flatMap((answer) => answer.leftOut ?? []);
    for (const [reason, count] of tally(leftOut, (each) => each.reason)) this.#i.leftOut.inc({ reason }, count);
  }

  /** The label of an action; one of several kinds at once (`click+like`) counts as each of them. */
  #kindsOf(action: string): readonly string[] {
    if (this.#actions.has(action)) return [action];
    const kinds = action.split('+');
    return kinds.length > 1 && kinds.every((kind) => this.#actions.has(kind)) ? [...new Set(kinds)] : ['other'];
  }

  /** Readiness, and where the partitions of this instance stand: all of it at once. */
  watch(facts: WatchFacts): void {
    setWatch(this.#i.watch, facts);
    for (const { topic, partition, lag } of facts.progress) {
      this.#topicsOf(partition).add(topic);
      this.#i.lag.set({ topic, partition }, lag);
    }
  }

  buffered({ topic, partition }: TopicPartition, bytes: number): void {
    this.#topicsOf(partition).add(topic);
    this.#i.buffered.set({ topic, partition }, bytes);
  }

  inFlight(partition: number, batches: number): void {
    this.#topicsOf(partition);
    this.#i.inFlight.set({ partition }, batches);
  }

  /** One commit, seconds. */
  committed(seconds: number): void {
    this.#i.commits.inc();
    this.#i.commitSeconds.observe(seconds);
  }

  commitAgain(): void {
    this.#i.commitRetries.inc();
  }

  transactionAborted(): void {
    this.#i.aborted.inc();
  }

  /** After a fault the stream goes on from its last commit. */
  recovering(code: ErrorCode): void {
    this.#i.recoveries.inc({ code });
  }

  recordsLost(records: number): void {
    this.#i.lost.inc(records);
  }

  /** Records of kinds that the mapping ignores. */
  ignored(records: number): void {
    this.#i.ignored.inc(records);
  }

  /** Optional values that could not be used. @param field `value`, `context.city` */
  valuesInvalid(field: string, values: number): void {
    this.#i.valuesInvalid.inc({ field }, values);
  }

  /** A record that does not lie on its user's partition. */
  misplaced(topic: string): void {
    this.#i.misplaced.inc({ topic });
  }

  rebalanced(): void {
    this.#i.rebalances.inc();
  }

  /** All partitions that are ours now. The series of others end here, lest two instances report one partition. */
  assigned(partitions: readonly number[]): void {
    this.#i.assigned.set(partitions.length);
    const { watch, lag, buffered, committedOffset, inFlight, restoring, restored, restoreTotal } = this.#i;
    for (const [partition, topics] of this.#known) {
      if (partitions.includes(partition)) continue;
      for (const gauge of [inFlight, restoring, restored, restoreTotal]) gauge.remove({ partition });
      for (const topic of topics)
        for (const gauge of [lag, buffered, committedOffset, watch.stalled, watch.oldest]) gauge.remove({ topic, partition });
      this.#known.delete(partition);
    }
  }

  /** Of the state of a partition, in changelog records: it is restoring until `done` reaches `total`. */
  restore(partition: number, done: number, total: number): void {
    this.#topicsOf(partition);
    this.#i.restored.set({ partition }, done);
    this.#i.restoreTotal.set({ partition }, total);
    this.#i.restoring.set({ partition }, done < total ? 1 : 0);
  }

  store({ bytes, hotUsers }: { readonly bytes: number; readonly hotUsers: number }): void {
    this.#i.storeBytes.set(bytes);
    this.#i.hotUsers.set(hotUsers);
  }

  /** @param maxDelta largest absolute deviation of one embedding; NaN counts as a mismatch and as infinite */
  shadowChecked(maxDelta: number, mismatch: boolean): void {
    this.#i.shadowChecks.inc();
    if (mismatch) this.#i.shadowMismatches.inc();
    this.#maxDelta = Math.max(this.#maxDelta, Number.isNaN(maxDelta) ? Number.POSITIVE_INFINITY : maxDelta);
    this.#i.shadowMaxDelta.set(this.#maxDelta);
  }

  shadowDropped(samples: number): void {
    this.#i.shadowDropped.inc(samples);
  }

  /** What the encoder alone knows is not there before it has said it: a cache of 0 bytes would be one that is empty. */
  get #ofEncoder() {
    const { kvUsed, kvBudget, kvUsers, evictions } = this.#i;
    return {
      hstu_kv_cache_used_bytes: kvUsed,
      hstu_kv_cache_budget_bytes: kvBudget,
      hstu_kv_cache_users: kvUsers,
      hstu_kv_cache_evictions_total: evictions,
    };
  }

  #showEncoder(): void {
    for (const [name, metric] of Object.entries(this.#ofEncoder))
      if (this.#registry.getSingleMetric(name) === undefined) this.#registry.registerMetric(metric as Metric);
  }

  #setBuild(model_digest: string): void {
    const { version, delivery } = this.#build;
    this.#i.buildInfo.reset();
    this.#i.buildInfo.set({ version, model_digest, delivery }, 1);
  }

  #topicsOf(partition: number): Set<string> {
    const topics = this.#known.get(partition) ?? new Set();
    this.#known.set(partition, topics);
    return topics;
  }
}

/** How many items have each key: one update of a counter a batch, not an event. */
function tally<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) {
    const key = keyOf(item);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}
