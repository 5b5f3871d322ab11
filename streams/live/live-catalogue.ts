/** The catalogue of an instance, as the entities topic changes it: read whole at the start, followed, applied between two batches. */
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { Standing } from '../../infra/kafka/partition-buffer.ts';
import { TopicFollower } from '../../infra/kafka/topic-follower.ts';
import type { Bundle } from '../../models/hstu/bundle.ts';
import type { SourcePosition, SourceRecord } from '../../schemas/action.ts';
import { createEntityDecoder, type EntityRecordReject } from '../../schemas/avro/entity-decoder.ts';
import type { SchemaDirectory } from '../../schemas/avro/schemas.ts';
import type { EntityUpdate } from '../../schemas/catalogue.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import type { ModelSlot } from '../model-change/model-slot.ts';
import { type ServedModel, withCatalogueOf } from '../model-change/served-model.ts';
import type { LiveConfig } from '../require-kafka.ts';
import { EntityCatalogue } from './entity-catalogue.ts';

/** A catalogue that lists are made of from now on. */
export interface AppliedCatalogue {
  readonly digest: string;
  /** Entities that may be listed: of the vocabulary, and new ones. */
  readonly offered: number;
  readonly added: number;
  readonly retired: number;
  /** Of those offered, what lists may hold by `scores.filter`. */
  readonly allowed: number;
}

export interface CatalogueObserver {
  readonly onApplied?: (catalogue: AppliedCatalogue) => void;
  /** A record of the topic that changes nothing. */
  readonly onRejected?: (at: SourcePosition, reason: EntityRecordReject, message: string) => void;
  /** The topic cannot be read just now; it is tried again. */
  readonly onTrouble?: (error: PipelineError) => void;
}

export interface LiveCatalogueOptions {
  readonly kafka: KafkaClient;
  readonly topic: string;
  readonly config: Pick<LiveConfig, 'kafka' | 'scores'>;
  readonly schemas: SchemaDirectory;
  /** Awaited with records before they are decoded: the schemas they need. */
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  readonly slot: ModelSlot<ServedModel>;
  readonly observer: CatalogueObserver;
  /** A fault that waiting does not mend. */
  readonly onFailed: (error: PipelineError) => void;
}

/** How long more records are waited for, ms: an import is a few updates, not thousands. */
const GATHER_MS = 100;
/** Between two updates, at least, ms: each is a pause of the flow. */
const INTERVAL_MS = 1_000;
/** Making a catalogue takes this share of the time at most: it holds the event loop. */
const TIME_SHARE = 0.05;

export class LiveCatalogue {
  readonly #options: LiveCatalogueOptions;
  readonly #entities: EntityCatalogue;
  readonly #follower: TopicFollower;
  #opened = false;
  #timer: NodeJS.Timeout | undefined;
  #notBeforeMs = 0;

  constructor(options: LiveCatalogueOptions) {
    const { kafka, topic, config, schemas, prepare, slot, observer, onFailed } = options;
    const { maxRecordBytes, maxBufferedBytes } = config.kafka;
    this.#options = options;
    this.#entities = new EntityCatalogue({
      decode: createEntityDecoder({ schemas, maxRecordBytes }),
      onRejected: (at, reason, message) => observer.onRejected?.(at, reason, message),
    });
    this.#follower = new TopicFollower(kafka, {
      topic,
      maxBufferedBytes,
      onRecords: async (records) => {
        await prepare?.(records);
        this.#entities.take(records, slot.current.bundle);
        if (this.#opened) this.#schedule();
      },
      onTrouble: (error) => observer.onTrouble?.(error),
      onFailed,
    });
  }

  /** Resolves when the topic is read to its end of now, and its catalogue is the one that is served. @throws PipelineError Kafka's */
  async open(file: readonly EntityUpdate[]): Promise<void> {
    this.#entities.useFile(file);
    await this.#follower.open();
    this.#opened = true;
    this.#apply();
  }

  /** What a catalogue's file says now, for a model that is loaded from now on. */
  useFile(updates: readonly EntityUpdate[]): void {
    this.#entities.useFile(updates);
  }

  /** A bundle with the catalogue of this moment. */
  over(bundle: Bundle): Bundle {
    return this.#entities.over(bundle);
  }

  /** Where each partition's next record to be taken is to be found. */
  get positions(): ReadonlyMap<number, number> {
    return this.#follower.positions;
  }

  /** Partitions of the topic that cannot be read on now. */
  get standing(): readonly Standing[] {
    return this.#follower.standing;
  }

  /** Tells the encoder which catalogue is meant by what it is asked from now on: when the model before is worked with no more. */
  serve({ bundle, encoder }: ServedModel): void {
    if (bundle.catalogue === undefined) return;
    encoder.useCatalogue(bundle.catalogue).catch((error: PipelineError) => {
      if (error.code !== 'ENCODER_CLOSED') this.#options.onFailed(error);
    });
  }

  close(): Promise<void> {
    this.#opened = false;
    clearTimeout(this.#timer);
    return this.#follower.close();
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => this.#apply(), Math.max(GATHER_MS, this.#notBeforeMs - performance.now()));
  }

  #apply(): void {
    this.#timer = undefined;
    const { slot, observer } = this.#options;
    const began = performance.now();
    const { current } = slot;
    const bundle = this.over(current.bundle);
    const { catalogue } = bundle;
    if (catalogue !== undefined && catalogue.digest !== current.bundle.catalogue?.digest) {
      const next = withCatalogueOf(current, bundle);
      void slot.replace(next);
      const { digest, order, entities, retired } = catalogue;
      const { filter } = this.#options.config.scores;
      const allowed = filter === undefined ? order.length : next.pipeline.model.fields.allowed(filter).count;
      observer.onApplied?.({ digest, offered: order.length, added: entities.length, retired: retired.length, allowed });
    }
    const now = performance.now();
    this.#notBeforeMs = now + Math.max(INTERVAL_MS, (now - began) / TIME_SHARE);
  }
}
