/** First step: what the source read becomes actions or requests, or dead letters. */
import { map, type OperatorFunction } from 'rxjs';
import type { DeadLetter, PositionedAction, SourceRecord } from '../schemas/action.ts';
import type { PositionedRequest } from '../schemas/avro/requests.ts';
import type { DecodedBatch, LeftOut, SourceBatch } from '../schemas/batch.ts';
import type { DecodeResult } from '../schemas/decoded.ts';
import { type ErrorCode, messageOf } from '../schemas/errors.ts';
import { deadLetter } from './dead-letter.ts';

interface Refused {
  readonly ok: false;
  readonly code: ErrorCode;
  readonly message: string;
}

export type { DecodeResult };
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
 *   requests), in `deadLetters` or counted as ignored, in record order; a record of several actions may be in the first two
 * - **data faults** never end the stream: a record the decoder refuses, or throws at (`RECORD_MALFORMED`), is a dead letter
 * - **state** none
 *
 * @example batches$.pipe(decode({ decoder }))
 */
export function decode({ decoder, requests }: DecodeOptions): OperatorFunction<SourceBatch, DecodedBatch> {
  return map((source) =>
    source.topic === requests?.topic ? decodeRequests(source, requests.decoder) : decodeActions(source, decoder),
  );
}

function decodeActions(source: SourceBatch, decoder: Decoder): DecodedBatch {
  const actions: PositionedAction[] = [];
  const deadLetters: DeadLetter[] = [];
  let ignored = 0;
  const invalid = new Map<string, { count: number; readonly example: string }>();
  for (const record of source.records) {
    const result = safely((one) => decoder.decode(one), record);
    if (!result.ok) {
      deadLetters.push(deadLetter(record, 'decode', result.code, result.message));
      continue;
    }
    for (const action of result.actions) actions.push(action);
    if (result.partly !== undefined) deadLetters.push(deadLetter(record, 'decode', result.partly.code, result.partly.message));
    if (result.ignored === true) ignored += 1;
    for (const { field, message } of result.invalid ?? []) {
      const known = invalid.get(field);
      if (known === undefined) invalid.set(field, { count: 1, example: message });
      else known.count += 1;
    }
  }
  if (ignored === 0 && invalid.size === 0) return { source, actions, deadLetters };
  const leftOut: LeftOut = { ignored, invalid };
  return { source, actions, deadLetters, leftOut };
}

function decodeRequests(source: SourceBatch, decoder: RequestDecoder): DecodedBatch {
  const requests: PositionedRequest[] = [];
  const deadLetters: DeadLetter[] = [];
  for (const record of source.records) {
    const result = safely((one) => decoder.decodeRequest(one), record);
    if (result.ok) requests.push(result.request);
    else deadLetters.push(deadLetter(record, 'decode', result.code, result.message));
  }
  return { source, actions: [], deadLetters, requests };
}

function safely<T extends { readonly ok: true }>(
  decodeOne: (record: SourceRecord) => T | Refused,
  record: SourceRecord,
): T | Refused {
  try {
    return decodeOne(record);
  } catch (thrown) {
    return { ok: false, code: 'RECORD_MALFORMED', message: messageOf(thrown) };
  }
}
