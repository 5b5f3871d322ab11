/** Slow-changing side features (language, city) that come in the context of actions become actions of their own. */
import { map, type OperatorFunction } from 'rxjs';
import type { PositionedAction } from '../schemas/action.ts';
import type { DecodedBatch } from '../schemas/batch.ts';

export interface SideFeaturesOptions {
  /** Entries of an action's context that are side features: `language`. */
  readonly names: readonly string[];
  /** Kind of the actions that they become, one of the model's. */
  readonly action: string;
}

/**
 * Puts the side features of every action before it, each as an action on the entity `name:value`.
 *
 * - **in** `DecodedBatch` · **out** `DecodedBatch`, one for one; all actions, unchanged and in their order; those of an action's
 *   features, in the order of `names`, just before it, at its time and position, under ids of their own
 * - **state** none: which values are new is for `sequence` to say, which has the history (`FeatureRuns`)
 *
 * @example decoded$.pipe(sideFeatures({ names: ['language', 'city'], action: 'has' }))
 */
export function sideFeatures({ names, action }: SideFeaturesOptions): OperatorFunction<DecodedBatch, DecodedBatch> {
  return map((batch) => {
    if (!batch.actions.some(({ context }) => context !== undefined)) return batch;
    return { ...batch, actions: batch.actions.flatMap((one) => [...featuresOf(one, names, action), one]) };
  });
}

function featuresOf(
  { context = {}, eventId, userId, eventTimeMs, position }: PositionedAction,
  names: readonly string[],
  action: string,
): PositionedAction[] {
  return names.flatMap((name) => {
    const value = Object.hasOwn(context, name) ? context[name] : undefined;
    if (value === undefined || value === '') return [];
    const entity = `${name}:${value}`;
    return [{ eventId: `${eventId}#${name}`, userId, action, entity, eventTimeMs, position, derived: true as const }];
  });
}
