/** Pieces of the float64 references, each a line of its formula. */
export type Vector = Float64Array;

/** `b(d) = clamp(trunc(f32(log(f32(max(1, |d|))) / 0.301)), 0, 128)`: the formula itself, not the table that bundles hold. */
export function bucket(distanceS: number): number {
  const f32 = Math.fround;
  const logarithm = f32(Math.log(f32(Math.max(1, Math.abs(distanceS)))));
  return Math.min(128, Math.max(0, Math.trunc(f32(logarithm / f32(0.301)))));
}

export const silu = (value: number): number => value / (1 + Math.exp(-value));

export function layerNorm(row: Vector): Vector {
  const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
  return row.map((value) => (value - mean) / Math.sqrt(variance + 1e-6));
}

export function l2Normalised(row: Vector): Vector {
  const length = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
  return row.map((value) => value / Math.max(length, 1e-6));
}

/** `row (m,) @ matrix (m, columns)`. */
export function times(row: Vector, matrix: Float32Array, columns: number): Vector {
  const out = new Float64Array(columns);
  for (let m = 0; m < row.length; m++) for (let c = 0; c < columns; c++) out[c]! += row[m]! * matrix[m * columns + c]!;
  return out;
}
