/** Which known name was meant by one that is mistyped. */

/** The known name with the fewest edits, if they are at most a third of its letters. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  if (name.length > 256) return undefined;
  let best: string | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const edits = editsBetween(name.toLowerCase(), candidate.toLowerCase());
    if (edits < fewest && edits <= Math.max(1, candidate.length / 3)) [best, fewest] = [candidate, edits];
  }
  return best;
}

/** Optimal string alignment distance: inserted, deleted, replaced letters, and neighbours swapped. */
function editsBetween(from: string, to: string): number {
  let before: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const next = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = last[column - 1]! + (from[row - 1] === to[column - 1] ? 0 : 1);
      const swapped =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
          ? before[column - 2]! + 1
          : Number.POSITIVE_INFINITY;
      next.push(Math.min(replaced, swapped, last[column]! + 1, next[column - 1]! + 1));
    }
    [before, last] = [last, next];
  }
  return last[to.length]!;
}
