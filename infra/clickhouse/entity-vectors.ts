/** The catalogue's vectors, beside the embeddings that they are compared with. */
import type { ClickHouse } from './clickhouse.ts';

export interface EntityVectors {
  /** Of the model whose embeddings they match. */
  readonly modelDigest: string;
  readonly entities: readonly string[];
  /** Row after row, `dimension` numbers each: an entity's score is its row's dot product with an embedding. */
  readonly vectors: Float32Array;
  readonly dimension: number;
}

/** Entities of one insert. */
const CHUNK = 10_000;

/** Stores the vectors, unless they are there: a model's digest stands for all of them. */
export async function storeEntityVectors(clickhouse: ClickHouse, given: EntityVectors): Promise<void> {
  const { modelDigest, entities, vectors, dimension } = given;
  const [row] = await clickhouse.rows<{ n: number }>(
    'SELECT count() AS n FROM entities FINAL WHERE model_digest = {modelDigest:String}',
    {
      modelDigest,
    },
  );
  if (row?.n === entities.length) return;
  for (let from = 0; from < entities.length; from += CHUNK) {
    const rows = entities.slice(from, from + CHUNK).map((entity, i) => {
      const start = (from + i) * dimension;
      return `${JSON.stringify([modelDigest, entity]).slice(0, -1)},[${vectors.subarray(start, start + dimension).join(',')}]]`;
    });
    await clickhouse.insert('entities', ['model_digest', 'entity', 'vector'], rows);
  }
}
