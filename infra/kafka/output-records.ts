/** What a batch gives to the world, as records of the output topics. */
import type { DeadLetter, SourcePosition } from '../../schemas/action.ts';
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { KafkaConfig } from '../../schemas/config.ts';
import type { ActionOutcome } from '../../schemas/output.ts';
import { versionOf } from '../../schemas/version.ts';
import { deadLetterRecord } from './dead-letter-records.ts';
import { bytesOf, type OutgoingRecord, type OutgoingRecords, roomOf } from './partition-producer.ts';

/**
 * Embeddings and scores by user id; dead letters too, where their record could be read, else by the key that it had. A user who
 * was erased has a tombstone before anything newer, of embeddings and of scores.
 *
 * An output that its topic does not take is left out, and a dead letter of the record that it was made of says so.
 *
 * @param publishedAtMs timestamp of all of them, ms since the epoch: greater than that of the partition's batch before, so
 *   that whoever reads the tombstone knows what it ends, in every topic
 * @param maxBytes largest batch that a topic takes, bytes; a topic that is not named takes all
 * @param epoch of the partition's state, above all versions
 */
export function outputRecords(
  codec: AvroCodec,
  topics: KafkaConfig['topics'],
  batch: OutputBatch,
  publishedAtMs: number,
  maxBytes: ReadonlyMap<string, number> = new Map(),
  epoch = 0,
): OutgoingRecords {
  const current = <T extends { readonly version: number }>(output: T): T =>
    epoch === 0 ? output : { ...output, version: versionOf(output.version, epoch) };
  const leftOut: DeadLetter[] = [];
  const fits = (topic: string, record: OutgoingRecord, userId: string, position: SourcePosition): OutgoingRecord[] => {
    const bytes = bytesOf(record);
    if (bytes <= roomOf(maxBytes.get(topic))) return [record];
    leftOut.push(
      tooLarge(batch, position, userId, `${bytes} bytes for ${topic}, whose max.message.bytes is ${maxBytes.get(topic)}`),
    );
    return [];
  };
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
    ...batch.embeddings.flatMap((embedding) => {
      const { userId, lineage } = embedding;
      return fits(
        topics.userEmbeddings,
        { key: userId, value: codec.encode('UserEmbedding', current(embedding)) },
        userId,
        lineage,
      );
    }),
  ]);
  add(topics.candidateScores, [
    ...tombstones,
    ...batch.scores.flatMap((scores) => {
      const { userId, lineage } = scores;
      return fits(
        topics.candidateScores,
        { key: userId, value: codec.encode('CandidateScores', current(scores)) },
        userId,
        lineage,
      );
    }),
  ]);
  if (topics.actionOutcomes !== undefined)
    add(
      topics.actionOutcomes,
      outcomesOf(batch).flatMap((outcome) => {
        const { userId, position } = outcome;
        return fits(topics.actionOutcomes!, { key: userId, value: codec.encode('ActionOutcome', outcome) }, userId, position);
      }),
    );
  const letters = [...batch.deadLetters, ...leftOut];
  const timestamps = letters.length === 0 ? undefined : timestampsOf(batch);
  add(
    topics.deadLetters,
    letters.map((letter) => {
      const timestampMs = timestamps!(letter.position);
      const dated = { ...letter, ...(timestampMs !== undefined && { timestampMs }) };
      return deadLetterRecord(codec, dated, roomOf(maxBytes.get(topics.deadLetters)));
    }),
  );
  return records;
}

/** The dead letter of the record whose output is left out. */
function tooLarge({ source }: OutputBatch, position: SourcePosition, userId: string, message: string): DeadLetter {
  const { topic, partition, offset } = position;
  const record = source.records.find((one) => one.position.offset === offset);
  const value = record?.value ?? null;
  return {
    position: { topic, partition, offset },
    code: 'RECORD_TOO_LARGE',
    step: 'publish',
    message: `what was made of it has ${message}: it is not published`,
    original: value instanceof Uint8Array || typeof value === 'string' ? value : null,
    ...(record?.key !== undefined && { originalKey: record.key }),
    userId,
  };
}

function outcomesOf({ processed, quality }: OutputBatch): ActionOutcome[] {
  // A batch is of one topic partition: offset and event id name the action.
  const ranks = new Map(quality.map((rank) => [`${rank.lineage.offset}/${rank.eventId}`, rank]));
  const actions = processed.filter(({ action }) => action.derived === undefined);
  return actions.map(({ action, disposition }) => {
    const { userId, eventId, entity, eventTimeMs, position } = action;
    const found = ranks.get(`${position.offset}/${eventId}`);
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
