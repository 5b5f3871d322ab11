/** First step: what the source read becomes actions, or dead letters. */
import { map, type OperatorFunction } from 'rxjs';
import type { DeadLetter, PositionedAction, SourceRecord } from '../schemas/action.ts';
import type { DecodedBatch, SourceBatch } from '../schemas/batch.ts';
import { type ErrorCode, messageOf } from '../schemas/errors.ts';
import { deadLetter } from './dead-letter.ts';

export type DecodeResult =
  | { readonly ok: true; readonly action: PositionedAction }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface Decoder {
  decode(record: SourceRecord): DecodeResult;
}

export interface DecodeOptions {
  readonly decoder: Decoder;
}

/**
 * Decodes every record of a batch.
 *
 * - **in** `SourceBatch` · **out** `DecodedBatch`, one for one; every record is in `actions` or in `deadLetters`, in record order
 * - **data faults** never end the stream: a record the decoder refuses, or throws at (`RECORD_MALFORMED`), is a dead letter
 * - **state** none
 *
 * @example batches$.pipe(decode({ decoder }))
 */
export function decode({ decoder }: DecodeOptions): OperatorFunction<SourceBatch, DecodedBatch> {
  return map((source) => {
    const actions: PositionedAction[] = [];
    const deadLetters: DeadLetter[] = [];
    for (const record of source.records) {
      const result = decodeSafely(decoder, record);
      if (result.ok) actions.push(result.action);
      else deadLetters.push(deadLetter(record, 'decode', result.code, result.message));
    }
    return { source, actions, deadLetters };
  });
}

function decodeSafely(decoder: Decoder, record: SourceRecord): DecodeResult {
  try {
    return decoder.decode(record);
  } catch (thrown) {
    return { ok: false, code: 'RECORD_MALFORMED', message: messageOf(thrown) };
  }
}
