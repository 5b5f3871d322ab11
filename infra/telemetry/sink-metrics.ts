/** What the sink measures of itself, read at `/metrics`. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { setWatch, type WatchFacts, watchInstruments } from './watch-metrics.ts';

const COMMIT_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const PARTITION = ['topic', 'partition'] as const;

export interface SinkPartition {
  readonly topic: string;
  readonly partition: number;
}

export class SinkMetrics {
  readonly #registry = new Registry();
  readonly #scrapes: (() => void)[] = [];
  readonly #known = new Map<string, SinkPartition>();
  readonly #watch = watchInstruments(this.#registry);
  readonly #lag = this.#gauge('hstu_sink_lag_records', 'Records of the topic that are not stored', PARTITION);
  readonly #offset = this.#gauge('hstu_sink_stored_offset', 'Next offset to be stored', PARTITION);
  readonly #buffered = this.#gauge('hstu_sink_buffered_bytes', 'Fetched and not stored');
  readonly #bufferedBound = this.#gauge('hstu_sink_buffered_limit_bytes', 'Fetching pauses above it');
  readonly #up = this.#gauge('hstu_sink_clickhouse_up', '1 while ClickHouse takes what it is given');
  readonly #rows = this.#counter('hstu_sink_rows_total', 'Rows stored');
  readonly #records = this.#counter('hstu_sink_records_total', 'Records read and stored');
  readonly #unreadable = this.#counter('hstu_sink_unreadable_records_total', 'Records that cannot be read, left out');
  readonly #erasures = this.#counter('hstu_sink_erasures_total', 'Erasures carried out');
  readonly #retries = this.#counter('hstu_sink_retries_total', 'Attempts that ClickHouse did not take');
  readonly #recoveries = this.#counter(
    'hstu_sink_recoveries_total',
    'Faults of Kafka after which the sink went on where it stood',
  );
  readonly #commitSeconds = new Histogram({
    name: 'hstu_sink_commit_duration_seconds',
    help: 'One commit: erasures, rows, offsets; waiting for ClickHouse included',
    buckets: COMMIT_SECONDS,
    registers: [this.#registry],
  });

  constructor({
    maxBufferedBytes,
    processMetrics = true,
  }: { readonly maxBufferedBytes: number; readonly processMetrics?: boolean }) {
    this.#bufferedBound.set(maxBufferedBytes);
    this.#up.set(1);
    if (processMetrics) collectDefaultMetrics({ register: this.#registry, prefix: 'hstu_' });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    for (const scrape of this.#scrapes) scrape();
    return this.#registry.metrics();
  }

  /** Calls `scrape` before every text. */
  onScrape(scrape: () => void): void {
    this.#scrapes.push(scrape);
  }

  /** One commit. @param seconds from its first attempt to its end */
  committed(commit: {
    readonly records: number;
    readonly rows: number;
    readonly unreadable: number;
    readonly erasures: number;
    readonly seconds: number;
  }): void {
    this.#records.inc(commit.records);
    this.#rows.inc(commit.rows);
    this.#unreadable.inc(commit.unreadable);
    this.#erasures.inc(commit.erasures);
    this.#commitSeconds.observe(commit.seconds);
  }

  retried(): void {
    this.#up.set(0);
    this.#retries.inc();
  }

  back(): void {
    this.#up.set(1);
  }

  recovering(): void {
    this.#recoveries.inc();
  }

  stored({ topic, partition }: SinkPartition, nextOffset: number): void {
    this.#known.set(`${partition}/${topic}`, { topic, partition });
    this.#offset.set({ topic, partition }, nextOffset);
  }

  buffered(bytes: number): void {
    this.#buffered.set(bytes);
  }

  /** Readiness, and where the partitions of this instance stand: all of it at once. */
  watch(facts: WatchFacts): void {
    setWatch(this.#watch, facts);
    for (const { topic, partition, lag } of facts.progress) {
      this.#known.set(`${partition}/${topic}`, { topic, partition });
      this.#lag.set({ topic, partition }, lag);
    }
  }

  /** The partitions that are ours now. The series of others end here, lest two instances report one. */
  assigned(partitions: readonly number[]): void {
    for (const [key, { topic, partition }] of this.#known) {
      if (partitions.includes(partition)) continue;
      this.#lag.remove({ topic, partition });
      this.#offset.remove({ topic, partition });
      this.#known.delete(key);
    }
  }

  #gauge<L extends string = never>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> {
    return new Gauge({ name, help, labelNames: [...labelNames], registers: [this.#registry] });
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.#registry] });
  }
}
