/** How long each step takes, measured between the steps: operators stay pure, and an unobserved pipeline is not wrapped at all. */
import { defer, type OperatorFunction, tap } from 'rxjs';
import type { EncodedUnit, LeftOut, ScoredBatch, ScoredUnit, SequencedBatch, SourceBatch, UpdateUnit } from '../schemas/batch.ts';
import type { EncoderRun } from '../schemas/encoding.ts';

/** What is told of a pipeline as it runs. Called between steps, so it must be quick and must not throw. */
export interface PipelineObserver {
  /**
   * @param id the step's, as in `topology`
   * @param seconds from entering the step to leaving it, waiting for its turn or for others included
   * @param events records of the batch; in the steps that mix batches (`microBatch`, `encode`, `score`), users
   * @param batches whose they are
   */
  step?(id: string, seconds: number, events: number, batches: readonly SourceBatch[]): void;
  /** The step that failed; those after it are not told. */
  failed?(id: string, error: unknown): void;
  /** What of a batch's records is neither an action nor a dead letter; not called for none. */
  leftOut?(leftOut: LeftOut): void;
  /** Numbers with the tokens they were made of: the last moment that both are known. */
  gathered?(batch: ScoredBatch): void;
  /** What an encoder thread was given. */
  run?(run: EncoderRun): void;
}

type Unit = UpdateUnit | EncodedUnit | ScoredUnit;
type OfBatch = { readonly source: SourceBatch } | { readonly batch: SequencedBatch };
type Item = SourceBatch | OfBatch | readonly Unit[];

/**
 * Wraps steps so that the observer is told how long each took.
 *
 * `by` says what an item is recognised by when it leaves: its batch, or its first user where batches are mixed. What waits for
 * others (`microBatch`, `gather`) is timed from the first that came in.
 *
 * - **memory** a number for what is in a step, held weakly · **cost** two taps an item, nothing without an observer
 *
 * @param nowMs a clock of milliseconds that never goes back
 */
export function stepTimer(observer: PipelineObserver | undefined, nowMs: () => number = () => performance.now()) {
  return <I extends Item, O extends Item>(
    id: string,
    by: 'batch' | 'user',
    operator: OperatorFunction<I, O>,
  ): OperatorFunction<I, O> => {
    if (observer === undefined) return operator;
    const keysOf = by === 'batch' ? sourcesOf : firstUserOf;
    return (items$) =>
      defer(() => {
        const enteredMs = new WeakMap<object, number>();
        let failedBefore = false;
        return items$.pipe(
          tap({
            next: (item) => {
              for (const key of keysOf(item)) if (!enteredMs.has(key)) enteredMs.set(key, nowMs());
            },
            error: () => {
              failedBefore = true;
            },
          }),
          operator,
          tap({
            next: (item) => {
              const [key] = keysOf(item);
              const sinceMs = key === undefined ? undefined : enteredMs.get(key);
              if (sinceMs === undefined) return;
              enteredMs.delete(key!);
              const sources = sourcesOf(item);
              const events = by === 'user' && Array.isArray(item) ? item.length : sources[0]!.records.length;
              observer.step?.(id, (nowMs() - sinceMs) / 1000, events, sources);
            },
            error: (error) => {
              if (!failedBefore) observer.failed?.(id, error);
            },
          }),
        );
      });
  };
}

function sourcesOf(item: Item): readonly SourceBatch[] {
  if (isList(item)) return [...new Set(item.map(({ batch }) => batch.source))];
  if ('batch' in item) return [item.batch.source];
  return ['source' in item ? item.source : item];
}

/** The update of the first user, an object that stays the same from `spread` to `gather`; the batch where it has none. */
function firstUserOf(item: Item): readonly object[] {
  const unit = (isList(item) ? item[0] : item) as Unit | undefined;
  if (unit === undefined) return [];
  if (unit.update === null) return [unit.batch];
  return ['update' in unit.update ? unit.update.update : unit.update];
}

const isList = (item: Item): item is readonly Unit[] => Array.isArray(item);
