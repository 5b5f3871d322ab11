/**
 * Windows encoded whole, with no cache: one causal pass gives all rows of a window, each as of the event after it. What a backfill
 * runs on, where every window is met once and users can be batched by length.
 */
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { bulkChunks } from '../../hstu/graph/bulk-graph.ts';
import { BulkRun } from './bulk-run.ts';
import type { Sessions } from './sessions.ts';

/** Floats that the score matrices of one run may take: bounds users × rows². */
const BATCH_FLOATS = 1024 * 1024;
/** Of one window alone; a longer one is for the cached path, which goes through it in pieces. */
const WINDOW_FLOATS = 8 * BATCH_FLOATS;
/** Rows computed for one that is wanted, from which on the cached path is cheaper: its runs are of one user each. */
const MAX_ROWS_WANTED = 12;
/** Of the chunks, those that a slide's window asks nothing of: all but the last quarter, where its new rows are. */
const BLANK_SHARE = 0.75;

/** A run's windows, and how the graph is cut for them. */
interface Batch {
  readonly members: number[];
  readonly chunks: number;
  readonly blank: number;
}

export class BulkEncoder {
  readonly #bundle: Bundle;
  readonly #sessions: Sessions;
  readonly #run: BulkRun;

  constructor(bundle: Bundle, sessions: Sessions) {
    this.#bundle = bundle;
    this.#sessions = sessions;
    this.#run = new BulkRun(bundle);
  }

  /** Whether these states of one window are best encoded each from nothing: they fit, and few of their rows are not wanted. */
  takes(segments: readonly EncodeSegment[]): boolean {
    let [rows, wanted] = [0, 0];
    for (const { entities, from } of segments) {
      if (entities.length ** 2 * this.#width > WINDOW_FLOATS) return false;
      rows += entities.length;
      wanted += entities.length - from;
    }
    return segments.length === 1 || rows <= MAX_ROWS_WANTED * wanted;
  }

  /** Output rows `from … n-1` of every window, `(n - from, D)`, in the order of the windows. */
  async encode(segments: readonly EncodeSegment[]): Promise<Float32Array[]> {
    const D = this.#bundle.config.dimension;
    const results = new Array<Float32Array>(segments.length);
    for (const { members, chunks, blank } of this.#batches(segments)) {
      const session = await this.#sessions.bulk(chunks, blank);
      const windows = members.map((i) => segments[i]!);
      const { y, T } = await this.#run.run(session, windows, { chunks, blank });
      for (const [b, i] of members.entries()) {
        const { from, entities } = segments[i]!;
        results[i] = y.slice((b * T + from) * D, (b * T + entities.length) * D);
      }
    }
    return results;
  }

  /** Windows of similar length together (padding below an eighth), as many as the score matrices may take. */
  *#batches(segments: readonly EncodeSegment[]): Generator<Batch> {
    const lengthOf = (i: number) => segments[i]!.entities.length;
    const order = segments.map((_, i) => i).sort((a, b) => lengthOf(a) - lengthOf(b));
    const open = new Map<number, Batch>();
    for (const i of order) {
      const rows = lengthOf(i);
      const chunks = bulkChunks(rows);
      const leading = Math.floor(BLANK_SHARE * chunks);
      // The longest of the batch sets the length of a chunk, and each longer one only moves the blank rows behind `from`.
      const blank = segments[i]!.from >= leading * Math.ceil(rows / chunks) ? leading : 0;
      const key = 16 * chunks + blank;
      let batch = open.get(key);
      if (batch !== undefined) {
        const fits = (batch.members.length + 1) * rows ** 2 * this.#width <= BATCH_FLOATS;
        const wanted = batch.members.every((member) => segments[member]!.from >= blank * Math.ceil(rows / chunks));
        if (!fits || !wanted || rows > 1.125 * lengthOf(batch.members[0]!) + 4) {
          yield batch;
          batch = undefined;
        }
      }
      if (batch === undefined) {
        batch = { members: [], chunks, blank };
        open.set(key, batch);
      }
      batch.members.push(i);
    }
    yield* open.values();
  }

  get #width(): number {
    const { heads, layers } = this.#bundle.config;
    return heads + layers;
  }
}
