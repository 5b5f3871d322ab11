/** Makes a run's outputs those of the deployment: a cut-over, partition by partition, each in one transaction. */
import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import type { SourceRecord } from '../../schemas/action.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import { placedOffset } from '../../schemas/erasure-place.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { epochIn } from '../../schemas/position-record.ts';
import type { RunRange } from '../../schemas/run-record.ts';
import type { InputPositions, StatePosition } from '../../schemas/state.ts';
import { MAX_EPOCH } from '../../schemas/version.ts';
import { PartitionProducer } from './partition-producer.ts';
import { readRanges, resolveRanges } from './range-reader.ts';
import { runTopicsOf } from './run-topics.ts';
import { readTopicMetadata } from './topic-metadata.ts';
import { changelogOf, inputTopics, withAdmin } from './topics.ts';

/** Of a state that is gigabytes, all of it is one transaction: the longest that brokers allow unless told. */
const TRANSACTION_MS = 900_000;

export interface CutOver {
  readonly runId: string;
  /** Where live goes on, by partition and input topic. */
  readonly cut: readonly RunRange[];
  /** The record of the changelog that says where the state stands. */
  readonly position: (at: Pick<StatePosition, 'stateId' | 'inputs' | 'topicIds' | 'partitions' | 'records' | 'epoch'>) => {
    readonly key: Uint8Array;
    readonly value: Uint8Array;
  };
  /** A published record of the run with its version in that epoch. */
  readonly current: (name: 'UserEmbedding' | 'CandidateScores', value: Uint8Array, epoch: number) => Uint8Array;
  readonly onPartition?: (partition: number, counts: Promoted) => void;
}

export interface Promoted {
  /** Embeddings published. */
  readonly embeddings: number;
  /** Lists published, of a run that made them (`--ranks`). */
  readonly lists: number;
  /** Users of whom live had an embedding and the run has none: tombstones. */
  readonly withdrawn: number;
  /** Records of state. */
  readonly state: number;
}

/**
 * A partition's embeddings, lists, state and committed offsets change together or not at all; after a crash between two partitions,
 * doing it again finishes it. Whoever runs the deployment is fenced.
 *
 * @throws PipelineError Kafka's
 */
export async function promoteRun(kafka: Kafka, config: KafkaConfig, options: CutOver): Promise<Promoted> {
  const partitions = [...new Set(options.cut.map(({ partition }) => partition))].sort((a, b) => a - b);
  const found = await readTopicMetadata(kafka, inputTopics(config));
  const topicIds = Object.fromEntries([...found].flatMap(([topic, { id }]) => (id === undefined ? [] : [[topic, id]])));
  const sum = { embeddings: 0, lists: 0, withdrawn: 0, state: 0 };
  for (const partition of partitions) {
    const done = await promotePartition(kafka, config, options, partition, { topicIds, partitions: partitions.length });
    options.onPartition?.(partition, done);
    sum.embeddings += done.embeddings;
    sum.lists += done.lists;
    sum.withdrawn += done.withdrawn;
    sum.state += done.state;
  }
  return sum;
}

async function promotePartition(
  kafka: Kafka,
  config: KafkaConfig,
  { runId, cut, position, current }: CutOver,
  partition: number,
  { topicIds, partitions }: Required<Pick<StatePosition, 'topicIds' | 'partitions'>>,
): Promise<Promoted> {
  const { userEmbeddings, candidateScores } = config.topics;
  const changelog = changelogOf(config);
  const topics = runTopicsOf(config, runId);
  const inputs = {
    ...(await committedElsewhere(kafka, config, partition)),
    ...Object.fromEntries(cut.filter((one) => one.partition === partition).map(({ topic, to }) => [topic, to])),
  };
  const producer = new PartitionProducer(kafka, { ...config, transactionTimeoutMs: TRANSACTION_MS }, partition);
  const counts = { embeddings: 0, lists: 0, withdrawn: 0, state: 0 };
  const read = (topic: string) => recordsOf(kafka, config, topic, partition);
  try {
    // Ends what an instance left open, so that what is read next is all there is.
    await producer.open();
    // Versions go on above all that was published before.
    let before: number | undefined;
    const pages = await keysOf(read(changelog), (key, value) => {
      before = epochIn(key, value) ?? before;
    });
    const epoch = before === undefined ? 0 : Math.min(MAX_EPOCH, before + 1);
    const copied =
      (name: 'UserEmbedding' | 'CandidateScores') =>
      ({ key, value }: SourceRecord) => ({ key: key!, value: current(name, value as Uint8Array, epoch) });
    await producer.commitParts(async (send) => {
      const users = await keysOf(read(userEmbeddings));
      for await (const records of read(topics.embeddings)) {
        counts.embeddings += records.length;
        await send(userEmbeddings, records.map(copied('UserEmbedding')));
        for (const { key } of records) users.delete(textOf(key));
      }
      counts.withdrawn = users.size;
      await send(userEmbeddings, [...users].map(tombstone));
      for await (const records of read(topics.scores)) {
        counts.lists += records.length;
        await send(candidateScores, records.map(copied('CandidateScores')));
      }
      await send(candidateScores, [...users].map(tombstone));

      // Where erasures stand is decided, by whom ever: the run went by it.
      // Counted as whoever restores finds them: the last of a key.
      const stays = new Set<string>();
      for (const key of pages) if (placedOffset(Buffer.from(key, 'latin1')) !== undefined && pages.delete(key)) stays.add(key);
      for await (const records of read(topics.state)) {
        counts.state += records.length;
        await send(
          changelog,
          records.map(({ key, value }) => ({ key: key!, value: value as Uint8Array })),
        );
        for (const { key, value } of records) {
          pages.delete(textOf(key));
          if (value === null) stays.delete(textOf(key));
          else stays.add(textOf(key));
        }
      }
      const at = { stateId: randomUUID(), inputs, topicIds, partitions, records: stays.size, ...(epoch > 0 && { epoch }) };
      const positioned = position(at);
      pages.delete(textOf(positioned.key));
      await send(changelog, [...pages].map(tombstone));
      // Last: whoever restores takes what comes before it for that state.
      await send(changelog, [positioned]);
    }, inputs);
  } finally {
    await producer.close();
  }
  return counts;
}

/** Of inputs that a run is not made of: requests for candidates, which live goes on with where it stood. */
async function committedElsewhere(kafka: Kafka, config: KafkaConfig, partition: number): Promise<InputPositions> {
  return withAdmin(kafka, 'reading the committed offsets', async (admin) => {
    const answers = await admin.fetchOffsets({ groupId: config.applicationId, topics: [...inputTopics(config)] });
    const known = answers.flatMap(({ topic, partitions }) => {
      const offset = Number(partitions.find((entry) => entry.partition === partition)?.offset ?? -1);
      return offset >= 0 ? [[topic, offset] as const] : [];
    });
    return Object.fromEntries(known);
  });
}

async function* recordsOf(
  kafka: Kafka,
  config: KafkaConfig,
  topic: string,
  partition: number,
): AsyncGenerator<readonly SourceRecord[]> {
  const ranges = (await resolveRanges(kafka, topic, () => ({}))).filter((range) => range.partition === partition);
  yield* readRanges(kafka, ranges, config);
}

/** Keys that have a value now. */
async function keysOf(
  parts: AsyncIterable<readonly SourceRecord[]>,
  look: (key: Uint8Array, value: Uint8Array | null) => void = () => undefined,
): Promise<Set<string>> {
  const keys = new Set<string>();
  for await (const records of parts)
    for (const { key, value } of records) {
      if (key != null) look(key, value as Uint8Array | null);
      if (value === null) keys.delete(textOf(key));
      else keys.add(textOf(key));
    }
  return keys;
}

/** Bytes, one a character: keys of the changelog are no UTF-8. */
const textOf = (key: SourceRecord['key']): string => Buffer.from(key ?? []).toString('latin1');
const tombstone = (key: string) => ({ key: Buffer.from(key, 'latin1'), value: null });

/**
 * @throws PipelineError `CONFIG_INVALID` where live could not go on at the cut: the log has lost what comes after it, or has never
 *   held it, or has other partitions, or is another by the same name
 */
export async function requireReachable(kafka: Kafka, cut: readonly RunRange[]): Promise<void> {
  const topics = [...new Set(cut.map(({ topic }) => topic))];
  const found = await readTopicMetadata(kafka, topics);
  for (const { topic, topicId } of cut) {
    const id = found.get(topic)?.id;
    if (topicId !== undefined && id !== undefined && id !== topicId)
      throw new PipelineError(
        'CONFIG_INVALID',
        `${topic} was deleted and made again since the run was made of it (topic id ${topicId} then, ${id} now): make the run again`,
      );
  }
  await withAdmin(kafka, 'reading the offsets of the inputs', async (admin) => {
    for (const topic of topics) {
      const logs = await admin.fetchTopicOffsets(topic);
      const own = cut.filter((one) => one.topic === topic);
      if (logs.length !== own.length)
        throw new PipelineError('CONFIG_INVALID', `${topic} has ${logs.length} partitions, the run was made of ${own.length}`);
      for (const { partition, to } of own) {
        const log = logs.find((one) => one.partition === partition);
        if (log === undefined || to < Number(log.low) || to > Number(log.high))
          throw new PipelineError(
            'CONFIG_INVALID',
            `${topic}/${partition}: live cannot go on at offset ${to}, the log holds ${log?.low ?? '-'} to ${log?.high ?? '-'}; make the run again`,
          );
      }
    }
  });
}
