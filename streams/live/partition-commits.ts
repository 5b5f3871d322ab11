/** The transactions of one partition, one after the other: its position in the changelog moves with each. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChangelogReader } from '../../infra/kafka/changelog-reader.ts';
import type { OutgoingRecords, PartitionProducer } from '../../infra/kafka/partition-producer.ts';
import type { PipelineError } from '../../schemas/errors.ts';
import { encodePosition, POSITION_KEY } from '../../schemas/position-record.ts';
import type { InputPositions, StateChange, StatePosition } from '../../schemas/state.ts';
import { commitAgain, outcomeOf } from './commit-again.ts';

const MARKER_LOOKS = 100;
const MARKER_LOOK_MS = 20;

export interface PartitionCommitsParts {
  readonly partition: number;
  readonly producer: PartitionProducer;
  readonly changelog: ChangelogReader;
  /** The changelog's topic. */
  readonly topic: string;
  readonly stateId: string;
  /** Of the position, beside where the inputs and the records stand. */
  readonly made: () => Pick<StatePosition, 'signature' | 'topicIds' | 'partitions' | 'epoch'>;
  /** Next offset of every input topic. */
  readonly inputs: InputPositions;
  /** Where the changelog's record after the newest committed one is to be found. */
  readonly end: number;
  readonly onAgain: (error: PipelineError) => void;
}

export interface Written {
  readonly position: StatePosition;
  /** Offset of the changelog after the position's record. */
  readonly end: number;
}

export class PartitionCommits {
  readonly #parts: PartitionCommitsParts;
  readonly #writer = randomBytes(4).toString('hex');
  readonly #closing = new AbortController();
  #inputs: InputPositions;
  #end: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(parts: PartitionCommitsParts) {
    this.#parts = parts;
    this.#inputs = parts.inputs;
    this.#end = parts.end;
  }

  /** Next offset to be committed, by input topic. */
  get inputs(): InputPositions {
    return this.#inputs;
  }

  /**
   * Commits `changes` of the state, other records, and the inputs that `moved`.
   *
   * @param count of the state's records after these changes, asked when all commits before are done
   * @throws PipelineError as `commitAgain`
   */
  write(others: OutgoingRecords, changes: readonly StateChange[], moved: InputPositions, count: () => number): Promise<Written> {
    const written = this.#last.then(() => this.#write(others, changes, moved, count));
    this.#last = written.catch(() => undefined);
    return written;
  }

  /** Commits the position as it is, and waits for the brokers' marker of that: they write it a moment after they have answered. */
  async mark(count: () => number): Promise<void> {
    const { end } = await this.write(new Map(), [], {}, count);
    const { changelog, partition } = this.#parts;
    for (let look = 0; look < MARKER_LOOKS && (await changelog.offsets(partition)).end <= end; look++)
      await sleep(MARKER_LOOK_MS);
  }

  /** Nothing is tried again any more. */
  close(): void {
    this.#closing.abort();
  }

  async #write(
    others: OutgoingRecords,
    changes: readonly StateChange[],
    moved: InputPositions,
    count: () => number,
  ): Promise<Written> {
    const { partition, producer, changelog, topic, stateId, made, onAgain } = this.#parts;
    const { signal } = this.#closing;
    const position: StatePosition = {
      stateId,
      inputs: { ...this.#inputs, ...moved },
      ...made(),
      records: count(),
      writer: this.#writer,
    };
    const logged = [...changes, { key: POSITION_KEY, value: encodePosition(position) }];
    const at = { changelog, topic, partition, from: this.#end, signal };
    const ends = await commitAgain({
      producer,
      commit: { records: new Map([...others, [topic, logged]]), inputs: moved },
      outcome: () => outcomeOf(logged, at),
      signal,
      onAgain,
    });
    this.#inputs = position.inputs;
    this.#end = ends.get(topic)!;
    return { position, end: this.#end };
  }
}
