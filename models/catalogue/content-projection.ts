/** From the embedding of an entity's content to a row of the entity table: a linear map, fitted to the entities that the model knows. */
import { PipelineError } from '../../schemas/errors.ts';

/** `row = content · weight + bias` */
export interface ContentProjection {
  /** `(C, D)` row-major. */
  readonly weight: Float32Array;
  /** `(D,)` */
  readonly bias: Float32Array;
}

export interface FitOptions {
  /** Content embeddings, one after another: `(n, C)`. */
  readonly content: Float32Array;
  /** The entities' rows: `(n, D)`. */
  readonly rows: Float32Array;
  readonly count: number;
  /** Penalty of the weights, as a share of the mean variance of a content dimension. @default 0.1 */
  readonly ridge?: number;
}

/**
 * Ridge regression with an offset that is not penalised, in closed form: `W = (XᵀX + λI)⁻¹ XᵀY` of centred `X` and `Y`, with
 * `λ = ridge · trace(XᵀX) / C` (Hoerl and Kennard, 1970). `O(n C² + C³)`, double precision.
 *
 * @throws PipelineError `CONFIG_INVALID` without entities to fit to, or where their content is all the same
 */
export function fitProjection({ content, rows, count: n, ridge = 0.1 }: FitOptions): ContentProjection {
  if (n < 2) throw new PipelineError('CONFIG_INVALID', `${n} entities of the vocabulary have content; at least 2 are needed`);
  const C = content.length / n;
  const D = rows.length / n;
  const contentMean = meanOf(content, n, C);
  const rowMean = meanOf(rows, n, D);
  const gram = new Float64Array(C * C);
  const cross = new Float64Array(C * D);
  const x = new Float64Array(C);
  for (let i = 0; i < n; i++) {
    for (let a = 0; a < C; a++) x[a] = content[i * C + a]! - contentMean[a]!;
    for (let a = 0; a < C; a++) {
      const value = x[a]!;
      for (let b = 0; b <= a; b++) gram[a * C + b]! += value * x[b]!;
      for (let d = 0; d < D; d++) cross[a * D + d]! += value * (rows[i * D + d]! - rowMean[d]!);
    }
  }
  let trace = 0;
  for (let a = 0; a < C; a++) trace += gram[a * C + a]!;
  const size = content.reduce((sum, value) => sum + value * value, 0);
  // What rounding of the means leaves is no variance.
  if (!(trace > 1e-12 * size))
    throw new PipelineError('CONFIG_INVALID', `the content of all ${n} entities is the same: nothing to fit`);
  for (let a = 0; a < C; a++) gram[a * C + a]! += (ridge * trace) / C;
  solve(gram, cross, C, D);
  const bias = Float64Array.from(rowMean);
  for (let a = 0; a < C; a++) for (let d = 0; d < D; d++) bias[d]! -= contentMean[a]! * cross[a * D + d]!;
  return { weight: Float32Array.from(cross), bias: Float32Array.from(bias) };
}

/** The row of an entity of this content: `(D,)`. */
export function projectContent({ weight, bias }: ContentProjection, content: Float32Array): Float32Array {
  const D = bias.length;
  const row = Float64Array.from(bias);
  for (let a = 0; a < content.length; a++) for (let d = 0; d < D; d++) row[d]! += content[a]! * weight[a * D + d]!;
  return Float32Array.from(row);
}

function meanOf(values: Float32Array, n: number, width: number): Float64Array {
  const mean = new Float64Array(width);
  for (let i = 0; i < n; i++) for (let d = 0; d < width; d++) mean[d]! += values[i * width + d]! / n;
  return mean;
}

/** `A Z = B` in place of `B`, for a symmetric positive definite `A (C, C)` of which the lower half is given: by Cholesky. */
function solve(A: Float64Array, B: Float64Array, C: number, D: number): void {
  for (let j = 0; j < C; j++) {
    for (let i = j; i < C; i++) {
      let sum = A[i * C + j]!;
      for (let k = 0; k < j; k++) sum -= A[i * C + k]! * A[j * C + k]!;
      A[i * C + j] = i === j ? Math.sqrt(sum) : sum / A[j * C + j]!;
    }
  }
  for (let d = 0; d < D; d++) {
    for (let i = 0; i < C; i++) {
      let sum = B[i * D + d]!;
      for (let k = 0; k < i; k++) sum -= A[i * C + k]! * B[k * D + d]!;
      B[i * D + d] = sum / A[i * C + i]!;
    }
    for (let i = C - 1; i >= 0; i--) {
      let sum = B[i * D + d]!;
      for (let k = i + 1; k < C; k++) sum -= A[k * C + i]! * B[k * D + d]!;
      B[i * D + d] = sum / A[i * C + i]!;
    }
  }
}
