/**
 * The best of the vocabulary by its index. Only which rows are looked at is approximate: what is hidden is left out to the last, the
 * scores are the rows' own, and where too few remain there is no answer, for the exact scan to give. A sample of the answers is
 * compared with that scan, so that what the index misses is known.
 */
import { isAllowed, type ListIndexStats, type ScoreRequest, type ScoreResult } from '../../../schemas/encoding.ts';
import type { CandidateIndex } from '../../catalogue/candidate-index.ts';

type Best = Pick<ScoreResult, 'topEntities' | 'topScores'>;

/** Rows asked of the index beyond those wanted, at first: few of what is near a user has been seen. */
const SPARE = 32;
/** Rows asked of it at most; from there the scan of all is no dearer. */
const MAX_FETCHED = 2_048;
/** Of so many lists one is compared with the exact one. */
const SAMPLE_EVERY = 256;

export interface IndexedListsOptions {
  readonly index: Pick<CandidateIndex, 'nearest' | 'size'>;
  /** Scores of rows of the vocabulary for the last of `rows`. */
  readonly scoresOf: (rows: Float32Array, candidates: Int32Array) => Float32Array;
  readonly dimension: number;
  /** @default 256 */
  readonly sampleEvery?: number;
}

export class IndexedLists {
  readonly #options: Required<IndexedListsOptions>;
  #retired: ReadonlySet<number> = new Set();
  #lists = 0;
  #fellBack = 0;
  #wanted = 0;
  #found = 0;

  constructor(options: IndexedListsOptions) {
    this.#options = { sampleEvery: SAMPLE_EVERY, ...options };
  }

  get stats(): ListIndexStats {
    const [rows, lists, fellBack, wanted, found] = [
      this.#options.index.size,
      this.#lists,
      this.#fellBack,
      this.#wanted,
      this.#found,
    ];
    return { rows, lists, fellBack, wanted, found };
  }

  /** Rows that are in no list from now on. */
  retire(rows: Iterable<number>): void {
    this.#retired = new Set(rows);
  }

  /** The best `topK` for the request's last row; undefined where the exact scan must say. */
  list(request: ScoreRequest): Best | undefined {
    const { rows, topK, allowed } = request;
    const { index, dimension } = this.#options;
    const embedding = rows.subarray(rows.length - dimension);
    const hidden = hiddenOf(request);
    const isOpen = (row: number) =>
      !hidden.has(row) && !this.#retired.has(row) && (allowed === undefined || isAllowed(allowed, row));
    const barred = allowed === undefined ? this.#retired.size : index.size - allowed.count;
    const most = Math.min(topK + hidden.size + barred, MAX_FETCHED, index.size);
    // Of what is near a user, as much may be allowed as of all: so many more are asked for, or the scan at once.
    const each = allowed === undefined ? 1 : index.size / Math.max(1, allowed.count);
    if (topK * each > MAX_FETCHED && topK < index.size) {
      this.#fellBack += 1;
      return undefined;
    }
    for (let fetched = Math.min(Math.ceil((topK + SPARE) * each), most); ; fetched = Math.min(4 * fetched, most)) {
      const near = index.nearest(embedding, fetched).filter(isOpen);
      if (near.length >= topK) {
        this.#lists += 1;
        return this.#best(rows, near, topK);
      }
      if (fetched === most) {
        this.#fellBack += 1;
        return undefined;
      }
    }
  }

  /** Whether the list that was just given is one of the sample. */
  get sampled(): boolean {
    return this.#lists % this.#options.sampleEvery === 0;
  }

  /** Takes down how much of the exact list was found. */
  compare(listed: Int32Array, exact: Int32Array): void {
    const found = new Set(listed);
    this.#wanted += exact.length;
    this.#found += exact.filter((row) => found.has(row)).length;
  }

  /** Of equal scores the lower row first, as the scan has it. */
  #best(rows: Float32Array, near: Int32Array, topK: number): Best {
    const candidates = near.sort();
    const scores = this.#options.scoresOf(rows, candidates);
    const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
    order.length = topK;
    return {
      topEntities: Int32Array.from(order, (i) => candidates[i]!),
      topScores: Float32Array.from(order, (i) => scores[i]!),
    };
  }
}

/** What the last row's list leaves out: what was seen by then, but for the row's own target. */
function hiddenOf({ seen, seenCount, targets }: ScoreRequest): ReadonlySet<number> {
  const hidden = new Set(seen.subarray(0, seenCount.at(-1)));
  hidden.delete(targets.at(-1)!);
  return hidden;
}
