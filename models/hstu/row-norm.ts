/**
 * What a row of the entity table is divided by before it is compared: `max(||E[c]||, 1e-6)`, so that a row of nothing stays one.
 *
 * @param from where the row begins, of `dimension` numbers
 */
export function rowNorm(table: Float32Array, from: number, dimension: number): number {
  let square = 0;
  for (let d = from; d < from + dimension; d++) square += table[d]! ** 2;
  return Math.max(Math.sqrt(square), 1e-6);
}
