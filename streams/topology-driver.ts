/**
 * A topology without a world, in the manner of Kafka's TopologyTestDriver: records in, outputs out, everything between real
 * (operators, model, KV cache), nothing outside (no threads, files or database). For tests of a user's own configuration.
 */
import { firstValueFrom, from, of } from 'rxjs';
import type { Bundle } from '../models/hstu/bundle.ts';
import { Tokenizer } from '../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import { eraseUser, InMemorySequenceStore } from '../operators/index.ts';
import type { SourceRecord } from '../schemas/action.ts';
import type { OutputBatch, SourceBatch } from '../schemas/batch.ts';
import { type ConfigInput, parseConfig, type RecordMapping } from '../schemas/config.ts';
import { compileMapping } from '../schemas/record-mapping.ts';
import { type PipelineParts, pipeline, toSequences } from './pipeline.ts';

export interface TopologyDriverOptions {
  readonly bundle: Bundle;
  readonly mapping: RecordMapping;
  /** Settings as in the configuration file. @default {} */
  readonly settings?: Omit<Partial<ConfigInput>, 'bundle' | 'source' | 'clickhouse'>;
  /** Clock, ms since the epoch. @default a clock that stands at 2020-01-01 */
  readonly now?: () => number;
}

const TOPIC = 'driver';

export class TopologyDriver {
  readonly #options: TopologyDriverOptions;
  readonly #now: () => number;
  readonly #committed: SourceRecord[] = [];
  #engine: EncoderEngine;
  #store = new InMemorySequenceStore();

  constructor(options: TopologyDriverOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => Date.UTC(2020, 0, 1));
    this.#engine = this.#newEngine();
  }

  get store(): InMemorySequenceStore {
    return this.#store;
  }

  get engine(): EncoderEngine {
    return this.#engine;
  }

  /** One batch through the topology; what it gives, once it is committed. */
  async pipe(values: readonly SourceRecord['value'][]): Promise<OutputBatch> {
    const first = this.#committed.length;
    const records = values.map((value, i) => ({ position: { topic: TOPIC, partition: 0, offset: first + i }, value }));
    const output = await firstValueFrom(of(this.#batch(records)).pipe(pipeline(this.#parts())));
    this.#committed.push(...records);
    for (const userId of output.erased ?? []) this.#engine.forget(userId);
    return output;
  }

  /** What a killed process leaves: nothing in memory. Then what a restart does: sequences rebuilt from committed records. */
  async crash(): Promise<void> {
    await this.#engine.release();
    this.#engine = this.#newEngine();
    this.#store = new InMemorySequenceStore();
    if (this.#committed.length > 0)
      from([this.#batch(this.#committed)])
        .pipe(toSequences(this.#parts()))
        .subscribe();
  }

  /** Erases a user from sequences and cache. Returns whether there was one. */
  erase(userId: string): boolean {
    this.#engine.forget(userId);
    return eraseUser(this.#store, userId);
  }

  close(): Promise<void> {
    return this.#engine.release();
  }

  #newEngine(): EncoderEngine {
    const { kvBudgetBytes, pageLength } = this.#config().encoder;
    return new EncoderEngine(this.#options.bundle, { kvBudgetBytes, ...(pageLength !== undefined && { pageLength }) });
  }

  #config() {
    return parseConfig({ ...this.#options.settings, bundle: '(given)' }, 'topology driver settings');
  }

  #parts(): PipelineParts {
    const { bundle, mapping } = this.#options;
    const now = this.#now;
    const settings = this.#config();
    return {
      settings,
      model: { digest: bundle.digest, window: bundle.config.window, tokenizer: new Tokenizer(bundle) },
      decoder: compileMapping(mapping, { ...settings.time, now }),
      store: this.#store,
      encoder: this.#engine,
      publisher: { publish: () => Promise.resolve() },
      committer: { commit: () => Promise.resolve() },
      now,
    };
  }

  #batch(records: readonly SourceRecord[]): SourceBatch {
    const nextOffset = (records.at(-1)?.position.offset ?? -1) + 1;
    return { topic: TOPIC, partition: 0, records, nextOffset, readAtMs: this.#now(), ack: () => undefined };
  }
}
