/** Partitions without a broker: real sources, sequences and encoders, the commits kept in memory. */
import { NEVER } from 'rxjs';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import { PersistentSequenceStore, toSeconds } from '../../../operators/index.ts';
import type { SourceRecord } from '../../../schemas/action.ts';
import type { OutputBatch, ScoredBatch } from '../../../schemas/batch.ts';
import { type Config, type ConfigInput, parseConfig } from '../../../schemas/config.ts';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import type { UserEmbedding } from '../../../schemas/output.ts';
import { compileMapping } from '../../../schemas/record-mapping.ts';
import { PartitionSource } from '../../../streams/live/partition-source.ts';
import type { PartitionTask } from '../../../streams/live/partition-task.ts';
import { flow } from '../../../streams/live.ts';
import { ModelChanges } from '../../../streams/model-change/model-changes.ts';
import { ModelSlot } from '../../../streams/model-change/model-slot.ts';
import type { EndedChange } from '../../../streams/model-change/model-status.ts';
import { type ServedModel, serveModel } from '../../../streams/model-change/served-model.ts';

const TOPIC = 'actions';
const PARTITIONS = 2;
const now = () => Date.UTC(2026, 0, 1);
const mapping = {
  eventId: '{id}',
  userId: '{user}',
  action: 'view',
  entity: 'item:{item}',
  eventTime: { field: 'time', unit: 's' as const },
};

export interface FlowingOptions {
  /** By folder; the first is served. */
  readonly bundles: Readonly<Record<string, Bundle>>;
  readonly settings?: Partial<ConfigInput>;
  readonly availableBytes?: number;
  /** Told of a model, or of the same with another catalogue, before the first batch that it flows with. */
  readonly onServing?: (model: ServedModel) => void;
  /** As `ModelChangesOptions`. */
  readonly upToDate?: (model: ServedModel) => ServedModel;
}

export class FlowingPartitions {
  readonly committed: OutputBatch[] = [];
  readonly ended: EndedChange[] = [];
  /** Digests, in order. */
  readonly served: string[] = [];
  readonly changes: ModelChanges;
  readonly slot: ModelSlot<ServedModel>;
  readonly #bundles: ReadonlyMap<string, Bundle>;
  readonly #windows = new Map<string, EncodeSegment>();
  readonly #waiting: SourceRecord[][] = Array.from({ length: PARTITIONS }, () => []);
  readonly #tasks = new Map<number, PartitionTask>();
  #newest: ServedModel | undefined;
  #produced = 0;
  #underWay = 0;
  #drain = new AbortController();
  #flow: Promise<void> = Promise.resolve();

  constructor({ bundles, settings = {}, availableBytes, onServing, upToDate }: FlowingOptions) {
    const [folder, bundle] = Object.entries(bundles)[0]!;
    this.#bundles = new Map(Object.values(bundles).map((each) => [each.digest, each]));
    const config = parseConfig({ publish: 'every-event', ...settings, bundle: folder }, 'test');
    const wiring = {
      decoder: compileMapping(mapping, { ...config.time, now }),
      publisher: { publish: () => Promise.resolve() },
      now,
      observer: { gathered: (batch: ScoredBatch) => this.#remember(batch) },
    };
    const serve = (next: Bundle, path: string) => {
      this.#newest = serveModel(next, path, { config, wiring, onProvider: () => undefined, onIndex: () => undefined });
      return this.#newest;
    };
    this.slot = new ModelSlot<ServedModel>(serve(bundle, folder), (model) => {
      this.served.push(model.bundle.digest);
      onServing?.(model);
    });
    this.changes = new ModelChanges({
      slot: this.slot,
      config,
      load: async (path) => {
        const found = bundles[path];
        if (found === undefined) throw new PipelineError('BUNDLE_INVALID', `bundle ${path} is not a folder`);
        return found;
      },
      serve,
      ...(upToDate !== undefined && { upToDate }),
      configured: async () => folder,
      windowOf: (userId) => this.#windowOf(userId),
      busy: () => [...this.#tasks.values()].some(({ source }) => source.inFlight > 0),
      availableBytes: () => availableBytes,
      observer: { onChangeEnded: (ended) => this.ended.push(ended) },
    });
    for (let partition = 0; partition < PARTITIONS; partition++)
      this.#tasks.set(partition, this.#task(partition, config, bundle));
    this.start();
  }

  start(): void {
    this.#drain = new AbortController();
    this.#flow = flow({
      tasks: this.#tasks,
      parts: this.slot,
      drain: this.#drain.signal,
      failure$: NEVER,
      onCommitted: (batch) => {
        this.committed.push(batch);
        this.#underWay -= batch.source.records.length;
      },
    });
  }

  /** As a rebalance, or a shutdown. */
  async drain(): Promise<void> {
    this.#drain.abort();
    await this.#flow;
  }

  async close(): Promise<void> {
    await this.drain();
    await this.changes.close();
    await this.slot.current.encoder.close();
  }

  /** Ends the thread of the model that was loaded last, as a crash would. */
  async crashNext(): Promise<void> {
    await this.#newest!.encoder.crash();
  }

  /** One event of a user, of whom partition `user % 2` has the events. */
  produce(user: number, item: number): void {
    const partition = user % PARTITIONS;
    const offset = this.#produced++;
    this.#underWay += 1;
    const value = JSON.stringify({ id: `e${offset}`, user: `user-${user}`, item, time: 1_700_000_000 + 60 * offset });
    this.#waiting[partition]!.push({ position: { topic: TOPIC, partition, offset }, value });
    this.#tasks.get(partition)!.source.notify();
  }

  /** Events that are not committed yet. */
  get underWay(): number {
    return this.#underWay;
  }

  get embeddings(): UserEmbedding[] {
    return this.committed.flatMap(({ embeddings }) => embeddings);
  }

  /** What every output is, against a full encode of its window by the bundle that `of` names for its digest. */
  async deviations(of: (digest: string) => string = (digest) => digest): Promise<number[]> {
    const engines = new Map(
      [...this.#bundles].map(([digest, bundle]) => [digest, new EncoderEngine(bundle, { kvBudgetBytes: 0 })]),
    );
    const deviations: number[] = [];
    for (const { userId, version, embedding, lineage } of this.embeddings) {
      const window = this.#windows.get(`${userId} ${version}`)!;
      const segment = { ...window, from: window.entities.length - 1 };
      const [full] = await engines.get(of(lineage.modelDigest))!.encode([{ userId, segments: [segment] }]);
      deviations.push(Math.max(...full!.segments[0]!.rows.map((value, d) => Math.abs(value - embedding[d]!))));
    }
    for (const engine of engines.values()) await engine.release();
    return deviations;
  }

  #remember({ updates }: ScoredBatch): void {
    for (const { update } of updates)
      for (const { version, segment } of update.publish)
        this.#windows.set(`${update.userId} ${version}`, update.request.segments[segment]!);
  }

  #windowOf(userId: string) {
    for (const { sequences } of this.#tasks.values()) {
      const sequence = sequences.peek(userId);
      if (sequence !== undefined) return { ...sequence.snapshot(), queryTimeS: toSeconds(sequence.newestTimeMs) };
    }
    return undefined;
  }

  #task(partition: number, config: Config, bundle: Bundle): PartitionTask {
    const sequences = new PersistentSequenceStore({
      reader: { get: () => undefined },
      window: bundle.config.window,
      seenLimit: config.sequence.seenLimit,
      hotUsers: 1_000,
    });
    const waiting = this.#waiting[partition]!;
    const take = (_: unknown, max: number) => {
      const records = waiting.splice(0, max);
      return { records, nextOffset: (records.at(-1)?.position.offset ?? -1) + 1 };
    };
    const source = new PartitionSource({
      partition,
      topics: [TOPIC],
      fetched: { take, waiting: () => undefined },
      batchEvents: 8,
      maxInFlightBatches: 2,
      now,
    });
    const commit = async (batch: OutputBatch) => {
      await new Promise(setImmediate);
      sequences.committed(batch.state!.mark);
    };
    return { partition, sequences, source, commit } as unknown as PartitionTask;
  }
}
