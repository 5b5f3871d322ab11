/** Which row of the table is whose: made once for a vocabulary, however many catalogues lie beside it. */
const known = new WeakMap<readonly string[], ReadonlyMap<string, number>>();

/** @param entities the vocabulary in its order: the first is row 1. Not to be changed afterwards */
export function rowNumbers(entities: readonly string[]): ReadonlyMap<string, number> {
  const rows = known.get(entities) ?? new Map(entities.map((entity, i) => [entity, i + 1]));
  known.set(entities, rows);
  return rows;
}
