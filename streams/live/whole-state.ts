/** Whether a partition's state is all that was committed, and its inputs the topics that it was made of: else nothing goes on. */
import { changelogOf } from '../../infra/kafka/topics.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { InputPositions, StatePosition } from '../../schemas/state.ts';

/** Group offsets are kept for longer than this by every broker that keeps them at all (`offsets.retention.minutes`), ms. */
const OFFSETS_KEPT_MS = 86_400_000;

/** Why a store of so many records is not the position's state; undefined where it is, or where that is not known. */
export function whatIsMissing({ records }: StatePosition, found: number): string | undefined {
  if (records === undefined || records === found) return undefined;
  return `it holds ${found} records where ${records} were committed`;
}

export interface RestoredFacts {
  /** Of the changelog's partition. */
  readonly first: number;
  readonly position: StatePosition | undefined;
  /** That were restored, from the changelog's first to its last. */
  readonly records: number;
}

/** @throws PipelineError `STATE_LOST` for a changelog from which somebody has deleted what compaction keeps */
export function requireWhole(partition: number, config: KafkaConfig, { first, position, records }: RestoredFacts): void {
  const missing = position === undefined ? undefined : whatIsMissing(position, records);
  if (missing === undefined && (first === 0 || position?.records !== undefined)) return;
  const head = first === 0 ? '' : `; its first ${first} offsets were deleted, which compaction does not do`;
  const what = missing ?? `its beginning is gone, and users' state may be with it`;
  throw stateLost(`${changelogOf(config)}/${partition}: ${what}${head}`, config);
}

/** For an operator, of a partition whose local store is whole. */
export const headLost = (partition: number, first: number): Readonly<Record<string, unknown>> => ({
  partition,
  deletedOffsets: first,
  mend: 'this machine has the state, others cannot restore it: hstu-streams reset --to earliest makes the changelog anew',
});

export interface InputFacts {
  readonly partition: number;
  readonly topic: string;
  /** Of the topic; absent where the brokers do not tell. */
  readonly id: string | undefined;
  /** Of the topic's partition. */
  readonly first: number;
  /** Next offsets of the group, by topic. */
  readonly committed: InputPositions;
  readonly position: StatePosition;
  readonly positionedAtMs: number;
  readonly nowMs: number;
}

/**
 * A position belongs to a topic, not to its name.
 *
 * State of before ids were kept: the group's offset goes with a deleted topic. It goes also where the group had nobody for a week
 * (of all topics at once), and is not there where nothing of the topic was ever read (the state then stands at the log's first).
 *
 * @throws PipelineError `TOPICS_INVALID` where the topic was deleted and made again
 */
export function requireSameTopic(facts: InputFacts): void {
  const { partition, topic, id, first, committed, position, positionedAtMs, nowMs } = facts;
  const known = position.topicIds?.[topic];
  const at = position.inputs[topic];
  // Nothing was read of the one before: nothing is passed over.
  if (at === undefined || at === 0) return;
  const where = `${topic}/${partition}`;
  if (known !== undefined) {
    if (id !== undefined && id !== known) throw madeAnew(where, `topic id ${known} then, ${id} now`, at);
    return;
  }
  if (committed[topic] !== undefined || at <= first) return;
  const expired = Object.keys(committed).length === 0 && nowMs - positionedAtMs > OFFSETS_KEPT_MS;
  if (!expired) throw madeAnew(where, 'the group had an offset, which goes with the topic', at);
}

/** @throws PipelineError `TOPICS_INVALID` where partitions were added, to all topics alike: a user's key is of another one now */
export function requireSamePartitions(partition: number, config: KafkaConfig, position: StatePosition, partitions: number): void {
  if (position.partitions === undefined || position.partitions === partitions) return;
  throw new PipelineError(
    'TOPICS_INVALID',
    `the topics have ${partitions} partitions, and ${changelogOf(config)}/${partition} is the state of one of ${position.partitions}: users are in other partitions than their state. A new deployment (kafka.applicationId, topics) is filled by replay, or begin anew: hstu-streams reset --to earliest`,
  );
}

const madeAnew = (where: string, sign: string, at: number): PipelineError =>
  new PipelineError(
    'TOPICS_INVALID',
    `${where}: the topic was deleted and made again (${sign}), and this deployment stands at offset ${at} of the one before: records of the new one would be passed over. To begin anew: hstu-streams reset`,
  );

/** @throws PipelineError `STATE_LOST` where the group has read records, and no state says so, nor a reset */
export function requireKnownStart(partition: number, config: KafkaConfig, committed: InputPositions): void {
  const read = Object.entries(committed).filter(([, offset]) => offset > 0);
  if (read.length === 0) return;
  const list = read.map(([topic, offset]) => `${topic}/${partition} ${offset}`).join(', ');
  throw stateLost(
    `${changelogOf(config)}/${partition} holds no state, and the group has read up to ${list}: the changelog was deleted and made again, or the offsets were moved by hand`,
    config,
  );
}

const stateLost = (what: string, { topics }: KafkaConfig): PipelineError =>
  new PipelineError(
    'STATE_LOST',
    `${what}. Users would begin again from nothing: hstu-streams reset --to earliest rebuilds the state from what ${topics.userActions} still holds (--to latest goes on without it)`,
  );
