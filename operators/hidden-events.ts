/** Which events of a user keep their entities out of lists, by kind and age: as far as the window goes. Plain functions, no RxJS. */
import type { EncodeSegment } from '../schemas/encoding.ts';

type Window = Pick<EncodeSegment, 'entities' | 'timesS' | 'queryTimeS'>;

/** Tokens of a window whose entities a list at its query time must not hold; some may come twice. */
export type HiddenOf = (window: Window) => Int32Array;

/** Tells by its tokens which events of a window are of some kinds; of any, for undefined. */
export interface KindTokenizer {
  /** @throws PipelineError `CONFIG_INVALID` for kinds that tokens do not tell */
  ofKinds(kinds: readonly string[] | undefined): (tokens: Int32Array, place: number) => boolean;
}

export interface HiddenEventsOptions {
  /** Whether the token at a place of a window is an entity, and what was done with it is of the kinds that count. */
  readonly counts: (tokens: Int32Array, place: number) => boolean;
  /** Age of an event at the query time, at most, s. @default any */
  readonly withinS?: number | undefined;
}

const DAY_S = 86_400;
export const daysToSeconds = (days: number): number => days * DAY_S;

export function hiddenEvents({ counts, withinS = Number.POSITIVE_INFINITY }: HiddenEventsOptions): HiddenOf {
  return ({ entities, timesS, queryTimeS }) => {
    const hidden: number[] = [];
    for (let place = 0; place < entities.length; place++)
      if (queryTimeS - timesS[place]! <= withinS && counts(entities, place)) hidden.push(entities[place]!);
    return Int32Array.from(hidden);
  };
}
