/**
 * A topology without a world, in the manner of Kafka's TopologyTestDriver: records in, outputs out, everything between real
 * (operators, model, KV cache), nothing outside (no threads, files or database). For tests of a user's own configuration.
 */
import { firstValueFrom, from, of } from 'rxjs';
import type { Bundle } from '../models/hstu/bundle.ts';
import { EncoderEngine } from '../models/worker/engine.ts';
import { eraseUser, InMemorySequenceStore } from '../operators/index.ts';
import type { SourceRecord } from '../schemas/action.ts';
import { createRecordDecoder } from '../schemas/avro/record-decoder.ts';
import type { OutputBatch, SourceBatch } from '../schemas/batch.ts';
import { type ConfigInput, parseConfig } from '../schemas/config.ts';
import type { RecordMapping } from '../schemas/mapping-config.ts';
import { compileMapping } from '../schemas/record-mapping.ts';
import { type PipelineParts, pipeline, toSequences } from './pipeline.ts';
import { pipelineModel } from './pipeline-model.ts';

export interface TopologyDriverOptions {
  readonly bundle: Bundle;
  readonly mapping: RecordMapping;
  /** Settings as in the configuration file. @default {} */
  readonly settings?: Omit<Partial<ConfigInput>, 'bundle' | 'source' | 'clickhouse'>;
  /** Clock, ms since the epoch. @default a clock that stands at 2020-01-01 */
  readonly now?: () => number;
}

const TOPIC = 'driver';
const REQUESTS = 'driver-requests';

export class TopologyDriver {
  readonly #options: TopologyDriverOptions;
  readonly #now: () => number;
  readonly #committed: SourceRecord[] = [];
  #asked = 0;
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
    const records = recordsOf(TOPIC, this.#committed.length, values);
    const output = await this.#run(records);
    this.#committed.push(...records);
    for (const userId of output.erased ?? []) this.#engine.forget(userId);
    return output;
  }

  /** One batch of requests for candidates, each a `CandidateRequest` in Avro or JSON; the answers are in `scores`. */
  async ask(values: readonly SourceRecord['value'][]): Promise<OutputBatch> {
    const output = await this.#run(recordsOf(REQUESTS, this.#asked, values));
    this.#asked += values.length;
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

  #run(records: readonly SourceRecord[]): Promise<OutputBatch> {
    return firstValueFrom(of(this.#batch(records)).pipe(pipeline(this.#parts())));
  }

  #newEngine(): EncoderEngine {
    const { kvBudgetBytes, pageLength } = this.#config().encoder;
    return new EncoderEngine(this.#options.bundle, { kvBudgetBytes, ...(pageLength !== undefined && { pageLength }) });
  }

  #config() {
    const { bundle, settings } = this.#options;
    const catalogue = bundle.catalogue === undefined ? {} : { catalogue: { file: '(given)' } };
    return parseConfig({ ...settings, ...catalogue, bundle: '(given)' }, 'topology driver settings');
  }

  #parts(): PipelineParts {
    const { bundle, mapping } = this.#options;
    const now = this.#now;
    const settings = this.#config();
    return {
      settings,
      model: pipelineModel(bundle),
      decoder: compileMapping(mapping, { ...settings.time, now }),
      requests: {
        topic: REQUESTS,
        decoder: createRecordDecoder({
          topics: { userActions: TOPIC, erasures: '', candidateRequests: REQUESTS },
          ...settings.time,
          now,
        }),
      },
      store: this.#store,
      encoder: this.#engine,
      publisher: { publish: () => Promise.resolve() },
      committer: { commit: () => Promise.resolve() },
      now,
    };
  }

  #batch(records: readonly SourceRecord[]): SourceBatch {
    const nextOffset = (records.at(-1)?.position.offset ?? -1) + 1;
    const topic = records[0]?.position.topic ?? TOPIC;
    return { topic, partition: 0, records, nextOffset, readAtMs: this.#now(), ack: () => undefined };
  }
}

const recordsOf = (topic: string, first: number, values: readonly SourceRecord['value'][]): SourceRecord[] =>
  values.map((value, i) => ({ position: { topic, partition: 0, offset: first + i }, value }));
