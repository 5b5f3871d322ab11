/** Entities that came after the model, among the best of the vocabulary: exact, by dot product, in plain loops over their few rows. */
import { isAllowed, type ScoreRequest, type ScoreResult } from '../../../schemas/encoding.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { rowNorm } from '../../hstu/row-norm.ts';

type Best = Pick<ScoreResult, 'topEntities' | 'topScores'>;

export class NewEntities {
  readonly #dimension: number;
  /** `E[c] / max(||E[c]||, 1e-6)` of every new entity: `(n, D)`. */
  readonly #rows: Float32Array;

  private constructor(rows: Float32Array, dimension: number) {
    this.#dimension = dimension;
    this.#rows = new Float32Array(rows.length);
    for (let from = 0; from < rows.length; from += dimension) {
      const scale = 1 / rowNorm(rows, from, dimension);
      for (let d = from; d < from + dimension; d++) this.#rows[d] = rows[d]! * scale;
    }
  }

  /** Undefined where there are none. */
  static of({ catalogue, config }: Pick<Bundle, 'catalogue' | 'config'>): NewEntities | undefined {
    return catalogue === undefined || catalogue.entities.length === 0
      ? undefined
      : new NewEntities(catalogue.rows, config.dimension);
  }

  /** The best `topK` of the vocabulary's best and of these, less what the request hides; of equal scores the vocabulary's first. */
  among({ topEntities, topScores }: Best, { rows, seen, seenCount, topK, allowed }: ScoreRequest): Best {
    const D = this.#dimension;
    const embedding = rows.subarray(rows.length - D);
    const hidden = new Set(seen.subarray(0, seenCount.at(-1)).filter((row) => row < 0));
    const found = Array.from(topEntities, (row, i) => ({ row, score: topScores[i]! }));
    const least = found.length < topK ? -Infinity : topScores.at(-1)!;
    for (let k = 0; k * D < this.#rows.length; k++) {
      let score = 0;
      for (let d = 0; d < D; d++) score += embedding[d]! * this.#rows[k * D + d]!;
      const row = -(k + 1);
      if (score > least && !hidden.has(row) && (allowed === undefined || isAllowed(allowed, row))) found.push({ row, score });
    }
    // A stable sort: the vocabulary's come first among equals.
    found.sort((a, b) => b.score - a.score);
    const best = found.slice(0, topK);
    return {
      topEntities: Int32Array.from(best, ({ row }) => row),
      topScores: Float32Array.from(best, ({ score }) => score),
    };
  }
}
