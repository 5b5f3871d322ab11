/** The head of a backfill: events that are sorted by user, in batches of whole histories. */
import type { PositionedAction } from '../../schemas/action.ts';

export interface UserBatch {
  /** Sorted by user. */
  readonly actions: readonly PositionedAction[];
  /** The user whose history goes on in the next batch; undefined where the batch ends with one. */
  readonly continues: string | undefined;
  /** How many events lie before the first user that is not done: where a backfill that stops after this batch goes on. */
  readonly nextPosition: number;
}

/**
 * Cuts between users; within one only where its history alone exceeds `maxEvents`, and then never at its very end.
 *
 * @param from position of the first event
 */
export function* userBatches(sorted: Iterable<PositionedAction>, maxEvents: number, from = 0): Generator<UserBatch> {
  /** Whole histories. */
  let whole: PositionedAction[] = [];
  /** Of the user being read, what was not yet given away. */
  let current: PositionedAction[] = [];
  let userId: string | undefined;
  let userStart = from;
  let position = from;

  for (const action of sorted) {
    if (action.userId !== userId) {
      // What a history that was cut has left ends its batch: `whole` is empty then.
      if (whole.length > 0 && whole.length + current.length > maxEvents) {
        yield { actions: whole, continues: undefined, nextPosition: userStart };
        whole = [];
      }
      for (const one of current) whole.push(one);
      current = [];
      userId = action.userId;
      userStart = position;
    } else if (current.length >= maxEvents) {
      if (whole.length > 0) yield { actions: whole, continues: undefined, nextPosition: userStart };
      yield { actions: current, continues: userId, nextPosition: userStart };
      whole = [];
      current = [];
    }
    current.push(action);
    position += 1;
  }
  if (whole.length > 0 && whole.length + current.length > maxEvents) {
    yield { actions: whole, continues: undefined, nextPosition: userStart };
    whole = [];
  }
  for (const one of current) whole.push(one);
  if (whole.length > 0) yield { actions: whole, continues: undefined, nextPosition: position };
}
