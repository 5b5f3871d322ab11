/** The numbers of a micro-batch: every user's segments through the model. */
import { defer, map, type OperatorFunction, of } from 'rxjs';
import type { EncodedUnit, UpdateUnit } from '../schemas/batch.ts';
import type { CallTerms, EncodeRequest, EncodeResult } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import { mapInOrder } from './map-in-order.ts';
import { requireInteger } from './require-option.ts';
import { type RetryOptions, retryRetriable } from './retry-retriable.ts';
import { termsOf } from './terms-of.ts';

export interface Encoder {
  /**
   * One result a request, in the order of the requests. A user may appear in several requests, of one call or of calls
   * that overlap: for each user, requests are encoded in the order in which they were made.
   */
  encode(requests: readonly EncodeRequest[], terms?: CallTerms): Promise<readonly EncodeResult[]>;
}

export interface EncodeOptions extends RetryOptions {
  readonly encoder: Encoder;
  /** Micro-batches in the encoder at once. @default 4 */
  readonly maxInFlight?: number;
}

/**
 * Encodes micro-batches, several at once, and gives them back in order.
 *
 * - **in** `UpdateUnit[]` · **out** `EncodedUnit[]`, the same units in the same order; units of `null` pass through
 * - **order** calls are issued in the order of arrival, and the encoder is first-in first-out per user, so no user's
 *   newer segment is encoded before an older one
 * - **retry** a call that failed with a retriable error (`WORKER_CRASHED`) is made again, as a whole, up to `maxRetries` times.
 *   Requests carry all their tokens, so a repeated call is exact even when it comes after a later one: the encoder finds
 *   its cache diverged and computes more
 * - **error** any other failure, at once; `ENCODER_FAILED` where results do not match the requests
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a bound out of range.
 * @example microBatches$.pipe(encode({ encoder, maxInFlight: 4 }))
 */
export function encode(options: EncodeOptions): OperatorFunction<readonly UpdateUnit[], readonly EncodedUnit[]> {
  const { encoder } = options;
  const maxInFlight = requireInteger('maxInFlight', options.maxInFlight ?? 4, 1);
  const retried = retryRetriable<readonly EncodeResult[]>(options);

  return mapInOrder((units) => {
    const requests = units.flatMap(({ update }) => (update === null ? [] : [update.request]));
    const results$ = requests.length === 0 ? of([]) : defer(() => encoder.encode(requests, termsOf(units))).pipe(retried);
    return results$.pipe(map((results) => withResults(units, requests, results)));
  }, maxInFlight);
}

function withResults(
  units: readonly UpdateUnit[],
  requests: readonly EncodeRequest[],
  results: readonly EncodeResult[],
): EncodedUnit[] {
  const matches = requests.length === results.length && requests.every((request, i) => answers(results[i]!, request));
  if (!matches)
    throw new PipelineError(
      'ENCODER_FAILED',
      `the encoder's ${results.length} results are not those of its ${requests.length} requests`,
    );
  let next = 0;
  return units.map(({ batch, update }) => ({
    batch,
    update: update === null ? null : { update, segments: results[next++]!.segments },
  }));
}

const answers = (result: EncodeResult, request: EncodeRequest): boolean =>
  result.userId === request.userId && result.segments.length === request.segments.length;
