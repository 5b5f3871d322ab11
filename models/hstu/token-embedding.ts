/** From tokens to the rows that enter the first layer. */
import type { Bundle } from './bundle.ts';

export class TokenEmbedding {
  readonly #dimension: number;
  readonly #scale: number;
  readonly #entities: Float32Array;
  readonly #positions: Float32Array | undefined;

  constructor({ config, tensors }: Bundle) {
    this.#dimension = config.dimension;
    this.#scale = config.stu?.embeddingScale ?? Math.sqrt(config.dimension);
    this.#entities = tensors.get('entity_embedding')!.data;
    this.#positions = tensors.get('position_embedding')?.data;
  }

  /** Writes `E[entity] * scale + P[position]`, `(D,)`, to `x` from `at` on; the scale is `sqrt(D)` unless the bundle has its own. */
  write(x: Float32Array, at: number, entity: number, position: number): void {
    const D = this.#dimension;
    const scale = this.#scale;
    const from = entity * D;
    const positionFrom = position * D;
    for (let d = 0; d < D; d++) x[at + d] = this.#entities[from + d]! * scale + (this.#positions?.[positionFrom + d] ?? 0);
  }
}
