/** What a stream would have published of made-up events: the records of every committed topic, the same for the same events. */
import type { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import type { LiveConfig } from '../../streams/require-kafka.ts';
import type { OutRecord } from './sink-world.ts';

const DIMENSION = 8;
/** Yesterday: history is not yet expired. */
export const BASE_MS = Math.floor(Date.now() / 1_000) * 1_000 - 86_400_000;

export interface PublishedOptions {
  readonly config: LiveConfig;
  readonly codec: AvroCodec;
  readonly events: number;
  readonly users: number;
  /** First event's number. @default 0 */
  readonly from?: number;
}

/** Each event: an action, its outcome with a rank, an embedding, scores; every 50th a dead letter as well. */
export function publishedRecords({ config, codec, events, users, from = 0 }: PublishedOptions): OutRecord[] {
  const { topics } = config.kafka;
  return Array.from({ length: events }, (_, i) => recordsOf(from + i)).flat();

  function recordsOf(n: number): OutRecord[] {
    const userId = `user-${n % users}`;
    const version = Math.floor(n / users) + 1;
    const position = { topic: topics.userActions, partition: 0, offset: n };
    const lineage = { ...position, sequenceDigest: '0123456789abcdef', modelDigest: 'model-1' };
    const event = { userId, eventId: `e${n}`, action: 'view', entity: `item:${n % 100}`, eventTimeMs: BASE_MS + n * 1_000 };
    const publishedAtMs = event.eventTimeMs + 50 + (n % 100);
    const embedding = {
      userId,
      version,
      embedding: Float32Array.from({ length: DIMENSION }, (_, d) => Math.sin(n * 31 + d)),
      sequenceLength: version,
      lastEventTimeMs: event.eventTimeMs,
      queryTimeMs: event.eventTimeMs,
      lineage,
      computedAtMs: publishedAtMs - 10,
      latencyMs: 5 + (n % 20),
      rowsComputed: 2,
      outcome: n % 10 === 0 ? ('cold' as const) : ('hit' as const),
    };
    const candidates = Array.from({ length: 5 }, (_, k) => ({ entity: `item:${(n + k) % 100}`, score: 1 - k / 8 }));
    const outcome = {
      ...event,
      position,
      disposition: n % 20 === 7 ? ('duplicate' as const) : n % 25 === 3 ? ('late' as const) : ('appended' as const),
      ranked: {
        rank: 1 + ((n * 17) % 80),
        priorEvents: version - 1,
        sequenceDigest: lineage.sequenceDigest,
        modelDigest: 'model-1',
      },
    };
    const letter = { position, code: 'FIELD_MISSING' as const, step: 'decode', message: 'm', original: Buffer.from('{}') };
    const at = (topic: string, value: Buffer, timestampMs: number): OutRecord => ({ topic, key: userId, value, timestampMs });
    return [
      at(topics.userActions, codec.encode('UserAction', event), event.eventTimeMs + 20),
      at(topics.actionOutcomes!, codec.encode('ActionOutcome', outcome), publishedAtMs),
      at(topics.userEmbeddings, codec.encode('UserEmbedding', embedding), publishedAtMs),
      at(
        topics.candidateScores,
        codec.encode('CandidateScores', { userId, version, candidates, lineage, computedAtMs: publishedAtMs }),
        publishedAtMs,
      ),
      ...(n % 50 === 0
        ? [at(topics.deadLetters, codec.encode('DeadLetter', { ...letter, originalKey: Buffer.from(userId) }), publishedAtMs)]
        : []),
    ];
  }
}
