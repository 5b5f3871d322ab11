/** Any record of ours, for the laws of the codec. */
import fc from 'fast-check';
import type { RecordTypes } from '../../schemas/avro/record-shapes.ts';
import type { RecordName, SchemaDirectory, WriterSchema } from '../../schemas/avro/schemas.ts';
import { fixedSchemas } from '../../schemas/avro/schemas.ts';
import { ERROR_CODES, type ErrorCode } from '../../schemas/errors.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 60 });
const bytes = fc.uint8Array({ maxLength: 3_000 }).map((given) => Buffer.from(given));
const int = fc.nat();
/** As far as avsc writes longs. */
const long = fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 });
/** Optional fields are there or absent, never undefined. */
const withOptional = <T, K extends string & keyof T>(
  arbitraries: { [P in keyof T]-?: fc.Arbitrary<Exclude<T[P], undefined>> },
  optional: K[],
) =>
  fc.record(arbitraries, {
    requiredKeys: Object.keys(arbitraries).filter((key) => !optional.includes(key as K)) as never[],
  }) as unknown as fc.Arbitrary<T>;

const lineage = fc.record({ topic: text, partition: int, offset: long, sequenceDigest: text, modelDigest: text });
const name = text.filter((key) => key !== '__proto__');
const context = fc.dictionary(name, text, { maxKeys: 4 });
const floats = fc.float32Array({ maxLength: 600 });

export const RECORDS: { readonly [N in RecordName]: fc.Arbitrary<RecordTypes[N]> } = {
  UserAction: withOptional<RecordTypes['UserAction'], 'value' | 'context'>(
    { eventId: text, userId: text, action: text, entity: text, value: fc.double(), eventTimeMs: long, context },
    ['value', 'context'],
  ),
  CandidateRequest: withOptional<RecordTypes['CandidateRequest'], 'deadlineMs' | 'topK' | 'deny' | 'filter'>(
    {
      requestId: text,
      userId: text,
      entities: fc.array(text),
      queryTimeMs: long,
      deadlineMs: long,
      topK: int,
      deny: fc.array(text, { minLength: 1, maxLength: 5 }),
      filter: fc.constantFrom({ inStock: true }, { price: { max: 20 }, region: { not: ['us', 'uk'] } }),
    },
    ['deadlineMs', 'topK', 'deny', 'filter'],
  ),
  Erasure: withOptional<RecordTypes['Erasure'], 'requestedAtMs' | 'reason'>({ userId: text, requestedAtMs: long, reason: text }, [
    'requestedAtMs',
    'reason',
  ]),
  UserEmbedding: fc.record({
    userId: text,
    version: long,
    embedding: floats,
    sequenceLength: int,
    lastEventTimeMs: long,
    queryTimeMs: long,
    lineage,
    computedAtMs: long,
    latencyMs: fc.double(),
    rowsComputed: int,
    outcome: fc.constantFrom('hit', 'cold', 'window', 'diverged', 'uncached'),
  }),
  CandidateScores: withOptional<
    RecordTypes['CandidateScores'],
    'requestId' | 'tasks' | 'leftOut' | 'coldStart' | 'queryTimeMs' | 'ageMs'
  >(
    {
      userId: text,
      version: long,
      requestId: text,
      candidates: fc.array(fc.record({ entity: text, score: fc.double() })),
      lineage,
      computedAtMs: long,
      tasks: fc.dictionary(name, floats, { minKeys: 1, maxKeys: 3 }),
      leftOut: fc.array(fc.record({ entity: text, reason: fc.constantFrom('unknown-entity', 'denied') }), {
        minLength: 1,
        maxLength: 4,
      }),
      coldStart: fc.constant(true),
      queryTimeMs: long,
      ageMs: long,
    },
    ['requestId', 'tasks', 'leftOut', 'coldStart', 'queryTimeMs', 'ageMs'],
  ),
  DeadLetter: withOptional<RecordTypes['DeadLetter'], 'originalKey' | 'timestampMs' | 'originalCut' | 'keyCut'>(
    {
      position: fc.record({ topic: text, partition: int, offset: long }),
      code: fc.constantFrom(...(Object.keys(ERROR_CODES) as ErrorCode[])),
      step: text,
      message: text,
      original: fc.option(bytes),
      originalKey: bytes,
      timestampMs: long,
      originalCut: fc.record({ bytes: long, sha256: text }),
      keyCut: fc.record({ bytes: long, sha256: text }),
    },
    ['originalKey', 'timestampMs', 'originalCut', 'keyCut'],
  ),
  ActionOutcome: withOptional<RecordTypes['ActionOutcome'], 'ranked'>(
    {
      userId: text,
      eventId: text,
      action: text,
      entity: text,
      eventTimeMs: long,
      disposition: fc.constantFrom('appended', 'inserted', 'kept', 'duplicate', 'late'),
      position: fc.record({ topic: text, partition: int, offset: long }),
      ranked: fc.record({ rank: int, priorEvents: long, sequenceDigest: text, modelDigest: text }),
    },
    ['ranked'],
  ),
  Entity: withOptional<RecordTypes['Entity'], 'content' | 'popularity' | 'fields' | 'retired'>(
    {
      entity: text,
      content: fc.float32Array({ minLength: 1, maxLength: 600 }),
      popularity: fc.double(),
      fields: fc.dictionary(name, fc.oneof(fc.boolean(), fc.double(), text, fc.array(text, { maxLength: 3 })), {
        minKeys: 1,
        maxKeys: 4,
      }),
      retired: fc.constant(true),
    },
    ['content', 'popularity', 'fields', 'retired'],
  ),
};

/** Our fixed ids, and these schemas under theirs. */
export function directory(schemas: Readonly<Record<number, unknown>>): SchemaDirectory {
  const find = (id: number): WriterSchema | undefined =>
    id in schemas ? { text: JSON.stringify(schemas[id]) } : fixedSchemas.find(id);
  return { find, idOf: fixedSchemas.idOf };
}

/** The wire format: a header of this id before a body. */
export function framed(id: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(5);
  header.writeInt32BE(id, 1);
  return Buffer.concat([header, body]);
}
