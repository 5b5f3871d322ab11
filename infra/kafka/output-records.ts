/** What a batch gives to the world, as records of the output topics. */
import type { SourcePosition } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import type { OutgoingRecord, OutgoingRecords } from './partition-producer.ts';

/**
 * Embeddings and scores by user id, dead letters by the key that their record had. A user who was erased has a tombstone
 * before anything newer.
 */
export function outputRecords(codec: AvroCodec, topics: KafkaConfig['topics'], batch: OutputBatch): OutgoingRecords {
  const records = new Map<string, readonly OutgoingRecord[]>();
  const add = (topic: string, list: readonly OutgoingRecord[]) => {
    if (list.length > 0) records.set(topic, list);
  };
  add(topics.userEmbeddings, [
    ...(batch.erased ?? []).map((userId): OutgoingRecord => ({ key: userId, value: null })),
    ...batch.embeddings.map(
      (embedding): OutgoingRecord => ({
        key: embedding.userId,
        value: codec.encode('UserEmbedding', embedding),
      }),
    ),
  ]);
  add(
    topics.candidateScores,
    batch.scores.map((scores) => ({ key: scores.userId, value: codec.encode('CandidateScores', scores) })),
  );
  const timestamps = batch.deadLetters.length === 0 ? undefined : timestampsOf(batch);
  add(
    topics.deadLetters,
    batch.deadLetters.map((letter) => {
      const timestampMs = timestamps!(letter.position);
      const dated = { ...letter, ...(timestampMs !== undefined && { timestampMs }) };
      return { key: letter.originalKey ?? null, value: codec.encode('DeadLetter', dated) };
    }),
  );
  return records;
}

function timestampsOf({ source }: OutputBatch): (position: SourcePosition) => number | undefined {
  const byOffset = new Map(source.records.map(({ position, timestampMs }) => [position.offset, timestampMs]));
  return ({ offset }) => byOffset.get(offset);
}
