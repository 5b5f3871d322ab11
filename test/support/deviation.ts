/** How far numbers are from where they should be, and where it is worst. */

type Numbers = ArrayLike<number>;

/** The largest |Δ| seen over many comparisons; what a test of numbers asserts and states. */
export class Deviation {
  max = 0;

  /**
   * @param width numbers a row
   * @throws Error that names the worst row and dimension, when it is further away than `tolerance`
   */
  check(actual: Numbers, expected: Numbers, width: number, tolerance: number, what: string): void {
    const { delta, row, dimension } = worstOf(actual, expected, width);
    this.max = Math.max(this.max, delta);
    if (delta <= tolerance) return;
    const at = row * width + dimension;
    throw new Error(
      `${what}: max |Δ| ${delta.toExponential(2)} > ${tolerance.toExponential(0)} at row ${row}, dimension ${dimension}: ` +
        `${actual[at]} instead of ${expected[at]} (${actual.length / width} rows, ${expected.length / width} expected)`,
    );
  }

  toString(): string {
    return `max |Δ| ${this.max.toExponential(1)}`;
  }
}

/** The largest |Δ| and its place; infinite where a value is missing, left over or not a number. */
export function worstOf(actual: Numbers, expected: Numbers, width: number): { delta: number; row: number; dimension: number } {
  let worst = { delta: 0, row: 0, dimension: 0 };
  for (let i = 0; i < Math.max(actual.length, expected.length); i++) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    const delta = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    if (delta > worst.delta) worst = { delta, row: Math.floor(i / width), dimension: i % width };
  }
  return worst;
}
