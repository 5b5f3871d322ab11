/** First step: what the source read becomes actions or requests, or dead letters. */
import { map, type OperatorFunction } from 'rxjs';
import type { DeadLetter, PositionedAction, SourceRecord } from '../schemas/action.ts';
import type { PositionedRequest } from '../schemas/avro/requests.ts';
import type { DecodedBatch, SourceBatch } from '../schemas/batch.ts';
import { type ErrorCode, messageOf } from '../schemas/errors.ts';
import { deadLetter } from './dead-letter.ts';

interface Refused {
  readonly ok: false;
  readonly code: ErrorCode;
  readonly message: string;
}

export type DecodeResult = { readonly ok: true; readonly action: PositionedAction } | Refused;
export type DecodeRequestResult = { readonly ok: true; readonly request: PositionedRequest } | Refused;

export interface Decoder {
  decode(record: SourceRecord): DecodeResult;
}

export interface RequestDecoder {
  decodeRequest(record: SourceRecord): DecodeRequestResult;
}

export interface DecodeOptions {
  readonly decoder: Decoder;
  /** Batches of this topic hold requests for candidates. @default every batch holds actions */
  readonly requests?: { readonly topic: string; readonly decoder: RequestDecoder };
}

/**
 * Decodes every record of a batch.
 *
 * - **in** `SourceBatch` · **out** `DecodedBatch`, one for one; every record is in `actions` (in `requests`, of a batch of
 *   requests) or in `deadLetters`, in record order
 * - **data faults** never end the stream: a record the decoder refuses, or throws at (`RECORD_MALFORMED`), is a dead letter
 * - **state** none
 *
 * @example batches$.pipe(decode({ decoder }))
 */
export function decode({ decoder, requests }: DecodeOptions): OperatorFunction<SourceBatch, DecodedBatch> {
  return map((source) => {
    if (source.topic === requests?.topic) {
      const { good, deadLetters } = decodeAll(source, (record) => requests.decoder.decodeRequest(record));
      return { source, actions: [], deadLetters, requests: good.map(({ request }) => request) };
    }
    const { good, deadLetters } = decodeAll(source, (record) => decoder.decode(record));
    return { source, actions: good.map(({ action }) => action), deadLetters };
  });
}

function decodeAll<T extends { readonly ok: true }>(source: SourceBatch, decodeOne: (record: SourceRecord) => T | Refused) {
  const good: T[] = [];
  const deadLetters: DeadLetter[] = [];
  for (const record of source.records) {
    const result = decodeSafely(decodeOne, record);
    if (result.ok) good.push(result);
    else deadLetters.push(deadLetter(record, 'decode', result.code, result.message));
  }
  return { good, deadLetters };
}

function decodeSafely<T extends { readonly ok: true }>(
  decodeOne: (record: SourceRecord) => T | Refused,
  record: SourceRecord,
): T | Refused {
  try {
    return decodeOne(record);
  } catch (thrown) {
    return { ok: false, code: 'RECORD_MALFORMED', message: messageOf(thrown) };
  }
}
