/**
 * The vocabulary as a graph of near rows, for catalogues that are dear to scan: HNSW (Malkov and Yashunin, arXiv 1603.09320) of the
 * library usearch. It finds most of the nearest rows, not all of them for certain.
 *
 * Built in the order of the rows by one thread, so that one table always gives one index.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Index, MetricKind, ScalarKind } from 'usearch';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { rowNorm } from '../hstu/row-norm.ts';

/** Rows of an entity table: `(V + 1, D)`, the first of them nobody's. */
export interface EntityTable {
  readonly rows: Float32Array;
  readonly dimension: number;
}

/** Changes with anything that makes another index of the same table. */
export const INDEX_VERSION = 'hnsw-2';
/** Half floats: as many are found as with whole ones, built in 0.6 of the time (docs/decisions/005). */
const SHAPE = {
  metric: 'ip' as MetricKind.IP,
  quantization: 'f16' as ScalarKind.F16,
  connectivity: 16,
  expansion_add: 128,
  multi: false,
};
/** Rows looked at for a list, at least. More find more of the nearest, and take longer. */
const EXPANSION = 128;
/** Rows added at once. The index depends on it. */
const CHUNK = 1_000;

export class CandidateIndex {
  readonly #index: Index;

  private constructor(index: Index) {
    this.#index = index;
  }

  /** 19 s for 300,000 rows of 64 numbers, and more than in proportion for more; nothing else runs on the thread meanwhile. */
  static build(table: EntityTable): CandidateIndex {
    const { rows, dimension: D } = table;
    const index = emptyIndex(D);
    const last = rows.length / D - 1;
    for (let from = 1; from <= last; from += CHUNK) {
      const to = Math.min(from + CHUNK, last + 1);
      const keys = BigUint64Array.from({ length: to - from }, (_, i) => BigInt(from + i));
      index.add(keys, unitRows(table, from, to), 1);
    }
    return new CandidateIndex(index);
  }

  /**
   * Of a file that `save` wrote; it is mapped, not read: threads and processes share its memory.
   *
   * @throws PipelineError `SOURCE_UNREADABLE`
   */
  static open(file: string, dimension: number): CandidateIndex {
    const index = emptyIndex(dimension);
    try {
      view(index, file);
    } catch (cause) {
      throw new PipelineError('SOURCE_UNREADABLE', `index ${file}: ${messageOf(cause)}`, { cause });
    }
    if (index.dimensions() !== dimension)
      throw new PipelineError('SOURCE_UNREADABLE', `index ${file}: of ${index.dimensions()} numbers a row, not ${dimension}`);
    return new CandidateIndex(index);
  }

  get size(): number {
    return this.#index.size();
  }

  save(file: string): void {
    this.#index.save(file);
  }

  /** Rows near `embedding` by `e · E[c] / ||E[c]||`, about the nearest first; `count` of them, fewer in a smaller index. */
  nearest(embedding: Float32Array, count: number): Int32Array {
    return Int32Array.from(this.#index.search(embedding, count, 1).keys, Number);
  }
}

const require = createRequire(import.meta.url);

/** The library is loaded when first needed: a machine that its prebuilt binary does not fit can do without an index. */
function emptyIndex(dimensions: number): Index {
  const usearch = require('usearch') as typeof import('usearch');
  return new usearch.Index({ ...SHAPE, dimensions, expansion_search: EXPANSION });
}

/** Asked to map a file that it cannot open, usearch 2.25 closes descriptor 0, and of one that is cut off it reads past the end. */
function view(index: Index, file: string): void {
  const descriptor = openSync(file, 'r');
  try {
    requireRows(descriptor);
    // The very file that was just opened, whatever its name has come to mean.
    index.view(process.platform === 'linux' ? `/proc/self/fd/${descriptor}` : file);
  } finally {
    closeSync(descriptor);
  }
}

/** A file begins with its matrix: rows and bytes of a row, 32 bits each, then the rows. */
function requireRows(descriptor: number): void {
  const { size } = fstatSync(descriptor);
  const head = Buffer.alloc(8);
  if (readSync(descriptor, head, 0, 8, 0) < 8) throw new RangeError('is empty');
  const bytes = 8 + head.readUInt32LE(0) * head.readUInt32LE(4);
  if (bytes >= size) throw new RangeError(`is cut off: ${size} bytes, and its rows alone are ${bytes}`);
}

function unitRows({ rows, dimension: D }: EntityTable, from: number, to: number): Float32Array {
  const out = rows.slice(from * D, to * D);
  for (let start = 0; start < out.length; start += D) {
    const scale = 1 / rowNorm(out, start, D);
    for (let d = start; d < start + D; d++) out[d]! *= scale;
  }
  return out;
}
