/** What a batch gives to the world, as records of the output topics. */
import type { SourcePosition } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import type { ActionOutcome } from '../../schemas/output.ts';
import type { OutgoingRecord, OutgoingRecords } from './partition-producer.ts';

/**
 * Embeddings and scores by user id; dead letters too, where their record could be read, else by the key that it had. A user who
 * was erased has a tombstone before anything newer, of embeddings and of scores.
 *
 * @param publishedAtMs timestamp of all of them, ms since the epoch: greater than that of the partition's batch before, so
 *   that whoever reads the tombstone knows what it ends, in every topic
 */
export function outputRecords(
  codec: AvroCodec,
  topics: KafkaConfig['topics'],
  batch: OutputBatch,
  publishedAtMs: number,
): OutgoingRecords {
  const records = new Map<string, readonly OutgoingRecord[]>();
  const add = (topic: string, list: readonly OutgoingRecord[]) => {
    if (list.length > 0)
      records.set(
        topic,
        list.map((record) => ({ ...record, timestampMs: publishedAtMs })),
      );
  };
  const tombstones = (batch.erased ?? []).map((userId): OutgoingRecord => ({ key: userId, value: null }));
  add(topics.userEmbeddings, [
    ...tombstones,
    ...batch.embeddings.map(
      (embedding): OutgoingRecord => ({
        key: embedding.userId,
        value: codec.encode('UserEmbedding', embedding),
      }),
    ),
  ]);
  add(topics.candidateScores, [
    ...tombstones,
    ...batch.scores.map((scores): OutgoingRecord => ({ key: scores.userId, value: codec.encode('CandidateScores', scores) })),
  ]);
  const timestamps = batch.deadLetters.length === 0 ? undefined : timestampsOf(batch);
  add(
    topics.deadLetters,
    batch.deadLetters.map((letter) => {
      const timestampMs = timestamps!(letter.position);
      const dated = { ...letter, ...(timestampMs !== undefined && { timestampMs }) };
      return { key: letter.userId ?? letter.originalKey ?? null, value: codec.encode('DeadLetter', dated) };
    }),
  );
  if (topics.actionOutcomes !== undefined)
    add(
      topics.actionOutcomes,
      outcomesOf(batch).map((outcome) => ({ key: outcome.userId, value: codec.encode('ActionOutcome', outcome) })),
    );
  return records;
}

function outcomesOf({ processed, quality }: OutputBatch): ActionOutcome[] {
  // A batch is of one topic partition: the offset names the action.
  const ranks = new Map(quality.map((rank) => [rank.lineage.offset, rank]));
  const actions = processed.filter(({ action }) => action.derived === undefined);
  return actions.map(({ action, disposition }) => {
    const { userId, eventId, entity, eventTimeMs, position } = action;
    const found = ranks.get(position.offset);
    const outcome = { userId, eventId, action: action.action, entity, eventTimeMs, disposition, position };
    if (found === undefined) return outcome;
    const { rank, priorEvents, lineage } = found;
    const { sequenceDigest, modelDigest } = lineage;
    return { ...outcome, ranked: { rank, priorEvents, sequenceDigest, modelDigest } };
  });
}

function timestampsOf({ source }: OutputBatch): (position: SourcePosition) => number | undefined {
  const byOffset = new Map(source.records.map(({ position, timestampMs }) => [position.offset, timestampMs]));
  return ({ offset }) => byOffset.get(offset);
}
