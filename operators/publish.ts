/** The world is given a batch's outputs, before the batch's position is committed. */
import { defer, map, type OperatorFunction } from 'rxjs';
import type { OutputBatch } from '../schemas/batch.ts';
import { mapInOrder } from './map-in-order.ts';
import { requireInteger } from './require-option.ts';

export interface Publisher {
  /** Resolves when the batch is durable. Idempotent: a batch that is published again adds nothing. */
  publish(batch: OutputBatch): Promise<void>;
}

export interface PublishOptions {
  readonly publisher: Publisher;
  /** Batches being published at once. @default 4 */
  readonly maxInFlight?: number;
}

/**
 * Publishes batches, several at once, and lets each on when it is durable.
 *
 * - **in** `OutputBatch` · **out** the same, in the same order, each after it was published and so were all before it
 * - **order** publishing starts in order and may end out of order: consumers keep a user's highest `version`
 * - **error** a failed batch is not let on, so neither its position nor a later one of its partition is committed
 *
 * @throws PipelineError `CONFIG_INVALID`, when called, unless `maxInFlight` is a positive integer.
 * @example outputs$.pipe(publish({ publisher }), orderedCommit({ committer }))
 */
export function publish(options: PublishOptions): OperatorFunction<OutputBatch, OutputBatch> {
  const maxInFlight = requireInteger('maxInFlight', options.maxInFlight ?? 4, 1);
  return mapInOrder((batch) => defer(() => options.publisher.publish(batch)).pipe(map(() => batch)), maxInFlight);
}
