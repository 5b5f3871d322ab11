/** One input partition in this instance's hands: its producer, its state, its records, from taking over to handing over. */
import type { ChangelogReader } from '../../infra/kafka/changelog-reader.ts';
import type { KafkaClient } from '../../infra/kafka/kafka-client.ts';
import type { PartitionFetcher } from '../../infra/kafka/partition-fetcher.ts';
import { type OutgoingRecords, PartitionProducer } from '../../infra/kafka/partition-producer.ts';
import { hasAnythingAfter } from '../../infra/kafka/records-after.ts';
import { changelogOf } from '../../infra/kafka/topics.ts';
import { PersistentSequenceStore } from '../../operators/index.ts';
import type { SourceRecord } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { Config, KafkaConfig } from '../../schemas/config.ts';
import { decodePlace, PLACE_KEYS } from '../../schemas/erasure-place.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import { encodePosition, POSITION_KEY } from '../../schemas/position-record.ts';
import {
  epochOfReset,
  type InputPositions,
  RESET_KEY,
  type StateChange,
  type StatePosition,
  type StateSignature,
  type TopicIds,
} from '../../schemas/state.ts';
import { ErasurePlaces } from './erasure-places.ts';
import { PartitionCommits } from './partition-commits.ts';
import { PartitionSource } from './partition-source.ts';
import { ClockCheck } from './require-clock.ts';
import { type RestoredState, restoreState, type StateMeta } from './restore-state.ts';
import { startPositions } from './start-positions.ts';

/** What all partitions of an instance share. */
export interface TaskParts {
  readonly kafka: KafkaClient;
  readonly config: Config & { readonly kafka: KafkaConfig };
  readonly fetcher: PartitionFetcher;
  readonly changelog: ChangelogReader;
  readonly signature: StateSignature;
  /** @throws PipelineError `STATE_INCOMPATIBLE` */
  readonly requireCompatible: (found: StateSignature, where: string) => void;
  readonly window: { readonly maxLength: number; readonly blockLength: number };
  readonly hotUsersPerPartition: number;
  readonly topics: readonly string[];
  /** Of `topics`, as found when the instance was opened: where one becomes another, the instance ends. */
  readonly topicIds: TopicIds;
  /** Of each of `topics`. */
  readonly partitions: number;
  /** Largest batch that each topic takes, bytes. */
  readonly maxBytes: ReadonlyMap<string, number>;
  readonly prepare?: ((records: readonly SourceRecord[]) => Promise<void>) | undefined;
  /** What of the batch belongs into the commit's transaction beside the state, by topic. */
  readonly outputs: (batch: OutputBatch) => OutgoingRecords;
  /** Next offset that the group has committed, by topic; absent for none. */
  readonly committedOffsets: (partition: number) => Promise<InputPositions>;
  readonly now: () => number;
  readonly observer: TaskObserver;
}

export interface TaskObserver {
  readonly onRestore?: (partition: number, done: number, total: number) => void;
  /** What an operator may want to know. */
  readonly onFact?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
  /** Something that an operator should look at, and that did not stop the stream. */
  readonly onNotice?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
  readonly onCommit?: (partition: number, seconds: number) => void;
  /** A commit that failed: its transaction is aborted, now or by the next owner. */
  readonly onAborted?: (partition: number) => void;
  /** A commit whose answer did not come: it is looked for, and done again where it was not done. */
  readonly onCommitAgain?: (partition: number, error: PipelineError) => void;
  /** Records `from` to `to` were deleted by retention before they were read. */
  readonly onLost?: (at: { readonly topic: string; readonly partition: number }, from: number, to: number) => void;
}

export class PartitionTask {
  readonly partition: number;
  /** Of what is published of the partition's state. */
  readonly epoch: number;
  readonly sequences: PersistentSequenceStore;
  readonly #parts: TaskParts;
  readonly #producer: PartitionProducer;
  readonly #state: RestoredState;
  readonly #source: PartitionSource;
  readonly #places: ErasurePlaces;
  readonly #commits: PartitionCommits;
  readonly #clock: ClockCheck;
  /** The local store's last write: behind the transaction, and repaired from the changelog where it is lost. */
  #storing: Promise<void> = Promise.resolve();
  #committing: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  /**
   * Takes the partition over: fences the owner before, brings the state up to date, finds where to go on.
   *
   * @throws PipelineError; `DOMException` `AbortError` when stopped
   */
  static async open(partition: number, parts: TaskParts, signal: AbortSignal): Promise<PartitionTask> {
    const producer = new PartitionProducer(parts.kafka, parts.config.kafka, partition, parts.maxBytes);
    let state: RestoredState | undefined;
    try {
      await producer.open();
      signal.throwIfAborted();
      state = await restoreState(partition, parts, signal, { alone: true });
      const inputs = await startPositions(partition, parts, state);
      if (state.position === undefined && parts.config.kafka.startFrom === 'latest')
        await commitStart(inputs, parts, producer, state);
      const places = await placesOf(partition, parts, state, inputs);
      const { changelogOffset = (await parts.changelog.offsets(partition)).first } = (state.store.meta() ??
        {}) as Partial<StateMeta>;
      return new PartitionTask(partition, parts, producer, state, inputs, places, changelogOffset);
    } catch (error) {
      await state?.store.close();
      await producer.close();
      throw error;
    }
  }

  private constructor(
    partition: number,
    parts: TaskParts,
    producer: PartitionProducer,
    state: RestoredState,
    inputs: InputPositions,
    places: ErasurePlaces,
    changelogEnd: number,
  ) {
    this.partition = partition;
    this.epoch = epochIn(state);
    this.#places = places;
    this.#parts = parts;
    this.#producer = producer;
    this.#state = state;
    const topic = changelogOf(parts.config.kafka);
    this.#commits = new PartitionCommits({
      partition,
      producer,
      changelog: parts.changelog,
      topic,
      stateId: state.stateId,
      made: () => ({
        topicIds: parts.topicIds,
        partitions: parts.partitions,
        signature: parts.signature,
        ...(this.epoch > 0 && { epoch: this.epoch }),
      }),
      inputs,
      end: changelogEnd,
      onAgain: (error) => parts.observer.onCommitAgain?.(partition, error),
    });
    this.#clock = new ClockCheck({
      now: parts.now,
      hasAnythingAfter: (timeMs) => hasAnythingAfter(parts.kafka, topic, partition, timeMs),
      commitNothing: () => this.#commits.mark(() => state.store.count),
    });
    const { batchEvents, maxInFlightBatches } = parts.config.kafka;
    this.sequences = new PersistentSequenceStore({
      reader: state.store,
      window: parts.window,
      seenLimit: parts.config.sequence.seenLimit,
      hotUsers: parts.hotUsersPerPartition,
    });
    const { userActions, erasures } = parts.config.kafka.topics;
    this.#source = new PartitionSource({
      partition,
      topics: parts.topics,
      merged: { actions: userActions, erasures, placeOf: places.placeOf },
      fetched: parts.fetcher,
      batchEvents,
      maxInFlightBatches,
      prepare: parts.prepare,
      now: parts.now,
    });
    for (const topic of parts.topics) parts.fetcher.assign({ topic, partition }, inputs[topic]!);
  }

  get source(): PartitionSource {
    return this.#source;
  }

  /** Of the local store on disk. */
  get storeBytes(): number {
    return this.#state.store.bytes;
  }

  /** Next offset to be committed, by input topic. */
  get inputs(): InputPositions {
    return this.#commits.inputs;
  }

  /**
   * Commits state, offsets and, where they belong into the transaction, outputs. One at a time.
   *
   * @throws PipelineError Kafka's; `CLOCK_OFF`; the state's own
   */
  commit(batch: OutputBatch): Promise<void> {
    this.#committing = this.requireClock(batch).then(() => this.#commit(batch));
    this.#committing.catch(() => this.#parts.observer.onAborted?.(this.partition));
    return this.#committing;
  }

  /** Before anything of a batch is published. @throws PipelineError `CLOCK_OFF` */
  requireClock(batch: OutputBatch): Promise<void> {
    return this.#clock.require(batch);
  }

  async #commit(batch: OutputBatch): Promise<void> {
    const { outputs, now, observer, config } = this.#parts;
    const { userActions, erasures } = config.kafka.topics;
    const began = performance.now();
    // Whose fault is met here: what is counted next stands on it.
    await this.#storing;
    const moved = { [batch.source.topic]: batch.source.nextOffset };
    const erased = batch.source.topic === erasures ? batch.source.records : [];
    const changes: readonly StateChange[] = [
      ...(batch.state?.changes ?? []),
      ...(erased.length === 0 ? [] : this.#places.changesOf(erased, this.inputs[userActions]!)),
    ];
    const records = this.#state.store.countAfter(changes);
    const { position, end } = await this.#commits.write(outputs(batch), changes, moved, () => records);
    this.#places.committed(erased);
    const meta = { position, changelogOffset: end, savedAtMs: now() };
    this.#storing = this.#state.store.write(changes, meta).then(() => {
      if (batch.state !== undefined) this.sequences.committed(batch.state.mark);
    });
    // Its fault is met by the next commit, or by the close.
    this.#storing.catch(() => undefined);
    observer.onCommit?.(this.partition, (performance.now() - began) / 1000);
  }

  /** Empties the local store, so that the next to open it restores it from the changelog. Before `close`. */
  async discardStore(): Promise<void> {
    await this.#settled();
    await this.#state.store.clear();
  }

  /** Hands the partition over, once, whoever asks for it. What was not committed is as if it had not been. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#commits.close();
    for (const topic of this.#parts.topics) this.#parts.fetcher.unassign({ topic, partition: this.partition });
    await this.#settled();
    await this.#state.store.close();
    await this.#producer.close();
  }

  /** A commit under way is left to end, well or not: its transaction is settled by the next owner's producer. */
  async #settled(): Promise<void> {
    await this.#committing.catch(() => undefined);
    await this.#storing.catch(() => undefined);
  }
}

/**
 * Where the latest was when the partition was first taken over. Asked again after a fault, or by the next owner, the latest
 * would be later, and what came between lost.
 */
async function commitStart(
  inputs: InputPositions,
  { config, signature, topicIds, partitions, now }: TaskParts,
  producer: PartitionProducer,
  state: RestoredState,
): Promise<void> {
  const { store, stateId } = state;
  const changelog = changelogOf(config.kafka);
  const epoch = epochIn(state);
  const made = { topicIds, partitions, signature, ...(epoch > 0 && { epoch }) };
  const position: StatePosition = { stateId, inputs, records: store.count, ...made };
  const records = new Map([[changelog, [{ key: POSITION_KEY, value: encodePosition(position) }]]]);
  const ends = await producer.commit({ records, inputs });
  await store.write([], { position, changelogOffset: ends.get(changelog)!, savedAtMs: now() });
}

/** By its position; before there is one, as the reset said that began it. */
const epochIn = ({ position, store }: RestoredState): number =>
  position?.epoch ?? epochOfReset(position === undefined ? store.get(RESET_KEY) : undefined);

async function placesOf(
  partition: number,
  { config, fetcher }: TaskParts,
  { store }: RestoredState,
  inputs: InputPositions,
): Promise<ErasurePlaces> {
  const { erasures: topic } = config.kafka.topics;
  const places = store.range(PLACE_KEYS.first, PLACE_KEYS.last).flatMap(({ key, value }) => decodePlace(key, value) ?? []);
  const { first } = places.length === 0 ? { first: 0 } : await fetcher.offsets({ topic, partition });
  return new ErasurePlaces(places, inputs[topic]!, first);
}
