/** Options that are wrong must be refused when the operator is built, not when the first record meets them. */
import { PipelineError } from '../schemas/errors.ts';

/** @throws PipelineError `CONFIG_INVALID` unless `value` is an integer of at least `min` */
export function requireInteger(key: string, value: number, min: number): number {
  if (Number.isInteger(value) && value >= min) return value;
  throw new PipelineError('CONFIG_INVALID', `${key} must be an integer ≥ ${min} (found: ${value})`);
}

/** @throws PipelineError `CONFIG_INVALID` unless `value` is a finite number ≥ 0 */
export function requireDuration(key: string, value: number): number {
  if (Number.isFinite(value) && value >= 0) return value;
  throw new PipelineError('CONFIG_INVALID', `${key} must be a number of milliseconds ≥ 0 (found: ${value})`);
}
