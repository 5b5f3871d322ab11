/** Records that do not lie on their user's partition: told, or refused, where they are decoded. */
import { partitioner } from '../infra/kafka/keyed-producer.ts';
import type { SourcePosition, SourceRecord } from '../schemas/action.ts';
import type { RecordDecoder } from '../schemas/avro/record-decoder.ts';
import type { KafkaConfig } from '../schemas/config.ts';
import { refuse } from '../schemas/decoded.ts';
import { Fault } from '../schemas/record-fields.ts';

/** A record, and where its user belongs. */
export interface Misplaced {
  readonly position: SourcePosition;
  readonly userId: string;
  /** Partition of the user's id. */
  readonly belongs: number;
}

export interface PlaceOptions {
  readonly kafka: Pick<KafkaConfig, 'misplaced' | 'topics'>;
  /** Of every topic of users. */
  readonly partitions: number;
  /** Told of each, whatever becomes of it. @default nobody */
  readonly onMisplaced?: (misplaced: Misplaced) => void;
}

/**
 * Judges what `decoder` reads by `kafka.misplaced`: a refused record is `RECORD_MISPLACED`. Erasures are for whoever holds the user, on any
 * partition. Actions that were repartitioned lie where they belong; requests are not repartitioned, and refused.
 */
export function judgePlaces(decoder: RecordDecoder, { kafka, partitions, onMisplaced }: PlaceOptions): RecordDecoder {
  const partitionOf = partitioner(partitions);
  const refused = kafka.misplaced !== 'warn';
  const faultOf = (userId: string, { position }: SourceRecord): Fault | undefined => {
    const belongs = partitionOf(userId);
    if (belongs === position.partition) return undefined;
    onMisplaced?.({ position, userId, belongs });
    return refused ? misplaced(userId, position, belongs, partitions) : undefined;
  };
  return {
    decode: (record) => {
      const result = decoder.decode(record);
      if (!result.ok || record.position.topic !== kafka.topics.userActions) return result;
      // A record's actions are one user's.
      const [first] = result.actions;
      const fault = first && faultOf(first.userId, record);
      return fault === undefined ? result : refuse(fault);
    },
    decodeRequest: (record) => {
      const result = decoder.decodeRequest(record);
      const fault = result.ok ? faultOf(result.request.userId, record) : undefined;
      return fault === undefined ? result : refuse(fault);
    },
  };
}

const misplaced = (userId: string, { topic, partition }: SourcePosition, belongs: number, partitions: number): Fault =>
  new Fault(
    'RECORD_MISPLACED',
    `user '${userId}' belongs on partition ${belongs} of ${partitions} (murmur2 of the id), and this record lies on ${topic}/${partition}: ` +
      'write records with the user id as their key (librdkafka: partitioner=murmur2_random), or set kafka.misplaced: repartition',
  );
