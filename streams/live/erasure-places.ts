/** The places of a partition's erasures among its actions: those of an earlier reading, and those that this one decides. */
import type { SourceRecord } from '../../schemas/action.ts';
import { type ErasurePlace, placeKey, placeRecord } from '../../schemas/erasure-place.ts';
import type { StateChange } from '../../schemas/state.ts';

export class ErasurePlaces {
  /** By the erasure's offset: of erasures that are to be read again, after a reset. */
  readonly #known: Map<number, ErasurePlace>;
  /** Keys of places whose erasures retention has deleted. */
  #expired: readonly Uint8Array[];

  /**
   * @param places as the state has them
   * @param nextOffset of the erasures: where the reading goes on
   * @param firstOffset of the erasures: what lies before it, nobody reads again
   */
  constructor(places: readonly ErasurePlace[], nextOffset: number, firstOffset: number) {
    this.#known = new Map(places.filter(({ offset }) => offset >= nextOffset).map((place) => [place.offset, place]));
    this.#expired = places.filter(({ offset }) => offset < firstOffset).map(({ offset }) => placeKey(offset));
  }

  /** The offset of the actions before which `erasure` stands; undefined where nobody has read it before. */
  readonly placeOf = ({ position, timestampMs = 0 }: SourceRecord): number | undefined => {
    const place = this.#known.get(position.offset);
    return place?.timestampMs === timestampMs ? place.before : undefined;
  };

  /**
   * What a commit of these erasures adds to the state, and what it removes.
   *
   * @param before where the actions stand in that commit
   */
  changesOf(erasures: readonly SourceRecord[], before: number): StateChange[] {
    const changes: StateChange[] = this.#expired.map((key) => ({ key, value: null }));
    for (const erasure of erasures) {
      const { position, timestampMs = 0 } = erasure;
      const place = this.placeOf(erasure);
      // Further than the actions came, it was of another log.
      if (place === undefined || place > before) changes.push(placeRecord({ offset: position.offset, timestampMs, before }));
    }
    return changes;
  }

  /** They are committed. */
  committed(erasures: readonly SourceRecord[]): void {
    this.#expired = [];
    for (const { position } of erasures) this.#known.delete(position.offset);
  }
}
