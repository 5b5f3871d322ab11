import { asyncScheduler, type MonoTypeOperatorFunction, retry, type SchedulerLike, throwError, timer } from 'rxjs';
import { PipelineError } from '../schemas/errors.ts';
import { requireDuration, requireInteger } from './require-option.ts';

export interface RetryOptions {
  /** How often a failed call is made again. @default 3 */
  readonly maxRetries?: number;
  /** Wait before the first retry, ms; doubled for each further one. @default 100 */
  readonly retryDelayMs?: number;
  /** Clock; tests pass the TestScheduler. @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/**
 * Subscribes again after a `PipelineError` that says trying again can help; any other error passes at once.
 *
 * For calls that carry all they need: the source is made anew by each subscription (`defer`).
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, for a negative count or delay.
 */
export function retryRetriable<T>(options: RetryOptions = {}): MonoTypeOperatorFunction<T> {
  const maxRetries = requireInteger('maxRetries', options.maxRetries ?? 3, 0);
  const retryDelayMs = requireDuration('retryDelayMs', options.retryDelayMs ?? 100);
  const scheduler = options.scheduler ?? asyncScheduler;
  const delay = (error: unknown, attempt: number) =>
    error instanceof PipelineError && error.retriable
      ? timer(retryDelayMs * 2 ** (attempt - 1), scheduler)
      : throwError(() => error);
  return retry({ count: maxRetries, delay });
}
