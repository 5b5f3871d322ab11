/** Which of a user's cached rows a run reads: all, or for local attention those that its first new row still reaches. */
import { Tensor } from 'onnxruntime-node';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';

/** Cached rows `start … start + length - 1`. */
export interface PastReach {
  readonly start: number;
  readonly length: number;
}

/**
 * @param from first new row
 * @param capacity rows that the user's extent has room for
 */
export function pastReach({ stu }: Pick<BundleConfig, 'stu'>, from: number, capacity: number): PastReach {
  const length = Math.min(capacity, stu?.maxAttnLen ?? capacity);
  return { start: Math.min(Math.max(0, from - length), capacity - length), length };
}

/** Adds the graph's inputs. */
export function addReach(feeds: Record<string, Tensor>, { start, length }: PastReach): void {
  feeds['start'] = new Tensor('int64', BigInt64Array.of(BigInt(start)), [1]);
  feeds['end'] = new Tensor('int64', BigInt64Array.of(BigInt(start + length)), [1]);
}
