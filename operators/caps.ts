/** At most so many of a list with one value of a field. Plain functions, no RxJS. */

export interface Caps {
  /** Bound by field. */
  readonly limits: Readonly<Record<string, number>>;
  /** Values of a field of an entity row, in which it counts; none: it is not bounded. */
  valuesOf(row: number, field: string): readonly string[];
}

/** The same with room for a longer list: a first stage keeps in proportion what the second chooses from. */
export const scaledCaps = ({ limits, valuesOf }: Caps, factor: number): Caps => ({
  limits: Object.fromEntries(Object.entries(limits).map(([field, limit]) => [field, Math.ceil(limit * factor)])),
  valuesOf,
});

/**
 * Places in a list that stay, at most `most`: an entity goes where as many before it have one of its values as the field may have. What is
 * left is the best first still, and an entity that came before decides, so that the list is one function of the order.
 */
export function placesWithin(rows: ArrayLike<number>, most: number, { limits, valuesOf }: Caps): number[] {
  const fields = Object.entries(limits);
  const counts = new Map<string, number>();
  const kept: number[] = [];
  for (let place = 0; place < rows.length && kept.length < most; place++) {
    const values = fields.flatMap(([field, limit]) =>
      valuesOf(rows[place]!, field).map((value) => ({ key: `${field}\n${value}`, limit })),
    );
    if (values.some(({ key, limit }) => (counts.get(key) ?? 0) >= limit)) continue;
    for (const { key } of values) counts.set(key, (counts.get(key) ?? 0) + 1);
    kept.push(place);
  }
  return kept;
}

/** Of places in their order, the best that go within the caps. */
export function bestWithin(rows: Int32Array, order: readonly number[], topK: number, caps: Caps | undefined): readonly number[] {
  if (caps === undefined) return order.slice(0, topK);
  return placesWithin(
    order.map((at) => rows[at]!),
    topK,
    caps,
  ).map((place) => order[place]!);
}
