/** In which order a partition's actions and erasures stand, over the whole of what is read: what live decides as it goes. */
import type { SourceRecord } from '../../schemas/action.ts';
import type { ErasurePlace } from '../../schemas/erasure-place.ts';

/** Steps of the order per millisecond: room for records whose timestamps do not rise. */
const STEPS = 512;
/** No later than this a timestamp is believed, ms: orders stay exact integers. */
const LATEST_MS = 2 ** 43;

interface Erasure {
  readonly record: SourceRecord;
  /** What timestamps say where nobody has decided; never before that of the erasure before it, ms. */
  readonly timeMs: number;
  readonly known: ErasurePlace | undefined;
  /** The offset and the order of the last action that it takes. */
  lastOffset: number;
  lastOrder: number;
}

/**
 * Give it a partition's erasures, then its actions in the order of their offsets, then ask for the erasures.
 *
 * Actions stand in the order of the log. An erasure with a known place stands there; another stands behind the last action that is
 * not younger than it (compare `nextOfMerged`).
 */
export class LogOrder {
  readonly #erasures: Erasure[];
  /** Of the erasures without a known place, in the order of `timeMs`. */
  readonly #byTime: Erasure[];
  /** Of those with one, in the order of the place. */
  readonly #byPlace: Erasure[];
  #placed = 0;
  #order = 0;

  /**
   * @param erasures in the order of their offsets
   * @param places of erasures that were read before
   */
  constructor(erasures: readonly SourceRecord[], places: readonly ErasurePlace[]) {
    const known = new Map(places.map((place) => [place.offset, place]));
    let timeMs = 0;
    this.#erasures = erasures.map((record) => {
      timeMs = Math.max(timeMs, record.timestampMs ?? 0);
      const place = known.get(record.position.offset);
      const isOfIt = place?.timestampMs === (record.timestampMs ?? 0);
      return { record, timeMs, known: isOfIt ? place : undefined, lastOffset: -1, lastOrder: 0 };
    });
    this.#byTime = this.#erasures.filter((erasure) => erasure.known === undefined);
    this.#byPlace = this.#erasures
      .filter((erasure) => erasure.known !== undefined)
      .sort((a, b) => a.known!.before - b.known!.before);
  }

  /** What the action is sorted by. */
  ofAction({ position: { offset }, timestampMs = 0 }: SourceRecord): number {
    // Those that stand before this action stand behind the one before it.
    while (this.#placed < this.#byPlace.length && this.#byPlace[this.#placed]!.known!.before <= offset)
      this.#byPlace[this.#placed++]!.lastOrder = this.#order;
    this.#order = Math.max(this.#order + 2, STEPS * Math.min(timestampMs, LATEST_MS));
    const first = this.#firstSince(timestampMs);
    if (first !== undefined) {
      first.lastOffset = offset;
      first.lastOrder = this.#order;
    }
    return this.#order;
  }

  /** Each erasure with what it is sorted by, and its place. After the last action. */
  *erasures(): Generator<{ readonly record: SourceRecord; readonly order: number; readonly place: ErasurePlace }> {
    for (const erasure of this.#byPlace.slice(this.#placed)) erasure.lastOrder = this.#order;
    this.#placed = this.#byPlace.length;
    let [lastOffset, lastOrder] = [-1, 0];
    for (const erasure of this.#erasures) {
      const { record, known } = erasure;
      // What an erasure before it takes, it takes too.
      lastOffset = Math.max(lastOffset, known === undefined ? erasure.lastOffset : known.before - 1);
      lastOrder = Math.max(lastOrder, erasure.lastOrder);
      const { position, timestampMs = 0 } = record;
      const place = known ?? { offset: position.offset, timestampMs, before: lastOffset + 1 };
      yield { record, order: lastOrder + 1, place };
    }
  }

  /** The first erasure, without a known place, that is not older. */
  #firstSince(timeMs: number): Erasure | undefined {
    let [low, high] = [0, this.#byTime.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#byTime[middle]!.timeMs < timeMs) low = middle + 1;
      else high = middle;
    }
    return this.#byTime[low];
  }
}
