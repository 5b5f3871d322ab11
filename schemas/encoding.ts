/** What passes between the sequence state and the encoder. Legend: `n` tokens of the window, `D` model width, `R` rows. */

/**
 * A user's window at one moment, and which rows of its encoding are wanted.
 *
 * The tokens are the truth and are sent whole; the encoder's cache is only a shortcut, checked against them by digest.
 */
export interface EncodeSegment {
  /** How many of the user's accepted tokens lie before this window. */
  readonly windowStart: number;
  /** Tokens, oldest first: `(n,)`, `n ≥ 1`. Entity rows, or what the bundle's token layout makes of them and the actions. */
  readonly entities: Int32Array;
  /** Event times in whole seconds, never decreasing: `(n,)`. */
  readonly timesS: Float64Array;
  /** Rolling digest after every full page of 32 tokens, high and low words interleaved: `(2 * floor(n / 32),)`. */
  readonly pageDigests: Uint32Array;
  /** First row whose output is wanted; the rows `from … n-1` come back. */
  readonly from: number;
  /** The time that the newest row is asked about, whole seconds: its "next event" time. */
  readonly queryTimeS: number;
}

/** One user's segments, encoded in this order: a new segment starts where the window slides or a late event is inserted. */
export interface EncodeRequest {
  readonly userId: string;
  readonly segments: readonly EncodeSegment[];
}

/** Why rows before the wanted ones had to be computed as well. */
export type CacheOutcome =
  /** Only the provisional tail and the new rows were computed. */
  | 'hit'
  /** The user had no entry: never seen, or evicted. */
  | 'cold'
  /** The window had slid: absolute positions moved, every row is new. */
  | 'window'
  /** The tokens differ from the cached ones (a late event, an edit): recomputed from the point of divergence. */
  | 'diverged'
  /** The pool had no room for this user's rows even after eviction; computed without a cache. */
  | 'uncached';

export interface EncodedSegment {
  /** Outputs of rows `from … n-1`, row-major `(R, D)`; the last is the embedding at `queryTimeS`. */
  readonly rows: Float32Array;
  /** Rows computed for this segment, from the first invalid one to the last. */
  readonly rowsComputed: number;
  readonly outcome: CacheOutcome;
}

export interface EncodeResult {
  readonly userId: string;
  readonly segments: readonly EncodedSegment[];
}

/** Which rows of the catalogue a list may hold. */
export interface AllowedRows {
  /** Names the catalogue and the rule: of equal keys the rows are equal. */
  readonly key: string;
  /** 1 where allowed: rows `1 … V` at their number, new entities `-1, -2, …` at `V + 1, V + 2, …`. Shared between threads. */
  readonly rows: Uint8Array;
  /** `V` */
  readonly vocabularySize: number;
  /** How many are allowed. */
  readonly count: number;
}

/** A row out of the vocabulary, which many entities may share, is never allowed. */
export const isAllowed = ({ rows, vocabularySize }: AllowedRows, row: number): boolean =>
  (row > 0 ? row <= vocabularySize && rows[row] : rows[vocabularySize - row]) === 1;

/** Rows of one user to rank targets for, and, for the last row, the best entities. */
export interface ScoreRequest {
  /** `(R, D)` row-major. */
  readonly rows: Float32Array;
  /** Entity row, or token on it, whose rank is wanted per row, or 0 for none: `(R,)`. An entity outside the vocabulary has none. */
  readonly targets: Int32Array;
  /** Entities the user has seen, or tokens on them, oldest first: `(S,)`. A target is never filtered by itself. */
  readonly seen: Int32Array;
  /** How many entries of `seen` count for row `r`: `(R,)`. */
  readonly seenCount: Int32Array;
  /** How many entities to return for the last row; 0 for none. */
  readonly topK: number;
  /** Rows that may be returned. Ranks go by all of them. @default all that are offered */
  readonly allowed?: AllowedRows | undefined;
  /** Entity rows to score for the last row, those out of the vocabulary included: `(C,)`. @default none */
  readonly candidates?: Int32Array;
}

export interface ScoreResult {
  /** 1-based rank of the target among all entities (1 + how many score strictly higher), 0 where none was asked: `(R,)`. */
  readonly ranks: Int32Array;
  /** Best entities of the last row, best first: `(≤ topK,)`. */
  readonly topEntities: Int32Array;
  readonly topScores: Float32Array;
  /** Scores of `candidates`: `(C,)`. Absent where none were given. */
  readonly candidateScores?: Float32Array;
}

/** Candidates to judge for one user at one moment: rows that see the user's window and themselves, never each other. */
export interface CandidateRequest {
  readonly userId: string;
  /** The user's window, `n ≥ 0` tokens; its `queryTimeS` is the time the candidates are asked about. */
  readonly segment: Omit<EncodeSegment, 'from'>;
  /** Entity rows, in any order, repeated or not: `(b,)`. */
  readonly candidates: Int32Array;
  /** Also return the candidates' output rows. @default false */
  readonly withRows?: boolean;
}

/** What the bundle's task heads say of each candidate, in the order of the request. */
export interface CandidateResult {
  readonly userId: string;
  /** Probability per task by its name in the bundle: `(b,)` each. */
  readonly tasks: Readonly<Record<string, Float32Array>>;
  /** `Σ_task weight · probability`: `(b,)`. */
  readonly combined: Float32Array;
  /** Output rows of the candidates, row-major `(b, D)`; empty unless asked for. */
  readonly rows: Float32Array;
  /** Rows of the HISTORY computed for this request: 1, the newest, where all before it were cached; 0 without a history. */
  readonly rowsComputed: number;
  readonly outcome: CacheOutcome;
}

/** What lists by the index of a large catalogue came to, since that index is in use. */
export interface ListIndexStats {
  /** Rows that it holds. */
  readonly rows: number;
  /** Lists that it gave. */
  readonly lists: number;
  /** Lists that it had too few rows for, so that the exact scan gave them. */
  readonly fellBack: number;
  /** Of the lists that were also made by the exact scan: entities of those, and how many of them the index had found. */
  readonly wanted: number;
  readonly found: number;
}

/** What is kept on disk of users that memory has no room for. */
export interface DiskTierStats {
  readonly users: number;
  readonly bytesUsed: number;
  readonly bytesBudget: number;
  /** Users written. */
  readonly spills: number;
  /** Users read back. */
  readonly restores: number;
  /** Users not kept: the disk was behind, or a user was larger than all of the ring. */
  readonly skipped: number;
  /** Records that were not what had been written: their users were encoded anew. */
  readonly corrupt: number;
}

/** What a call of the encoder is for, the most urgent first: somebody waits for the answer, a user has changed, it can wait. */
export const WORK_CLASSES = ['request', 'update', 'backfill'] as const;
export type WorkClass = (typeof WORK_CLASSES)[number];

/** On what terms a call waits for its turn. */
export interface CallTerms {
  /** @default 'update'; 'backfill' for `encodeInBulk` */
  readonly workClass?: WorkClass;
  /** Calls of one class take turns by key: the input partition, a tenant. @default 0 */
  readonly key?: string | number;
  /** What has not begun by then fails with `DEADLINE_PASSED`, ms since the epoch. @default none */
  readonly deadlineMs?: number | undefined;
}

/** Of one class: what waits now, and what was turned away since the start. */
export interface ClassLoad {
  /** Requests of users that wait for a thread. */
  readonly waiting: number;
  /** Requests refused with `ENCODER_BUSY`. */
  readonly busy: number;
  /** Requests that failed with `DEADLINE_PASSED`. */
  readonly late: number;
}
export type EncoderLoad = Readonly<Record<WorkClass, ClassLoad>>;

/** What a thread was given at once. */
export interface EncoderRun {
  readonly workClass: WorkClass;
  /** Requests of users in it. */
  readonly users: number;
  /** How long each of the calls that it is made of has waited, ms. */
  readonly waitedMs: readonly number[];
}

/** Counters of the encoder since its start, summed over its workers, and its memory now. */
export interface EncoderStats {
  readonly workers: number;
  readonly segments: number;
  readonly rowsComputed: number;
  readonly outcomes: Readonly<Record<CacheOutcome, number>>;
  readonly evictions: number;
  readonly restarts: number;
  /** Users with an entry in the KV cache. */
  readonly users: number;
  readonly kvBytesUsed: number;
  readonly kvBytesBudget: number;
  /** Absent where nothing of the cache is kept on disk. */
  readonly disk?: DiskTierStats;
  /** Absent while lists are exact. */
  readonly index?: ListIndexStats;
}
