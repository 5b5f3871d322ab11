/** What a run of the candidate graph takes, from the cache or from the whole history; and what it gives back. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import type { CatalogueOverlay } from '../../catalogue/overlay.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias, isLocal } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import type { Extent } from '../../kv-cache/extent.ts';
import { addReach, type PastReach, pastReach } from './past-reach.ts';

/** K and V of one row, per layer `(H*dqk,)` and `(H*dv,)`. */
export interface KvRow {
  readonly k: readonly Float32Array[];
  readonly v: readonly Float32Array[];
}

/** A user's encoded window: its rows but the newest, and the newest, which is not cached because its query time passes. */
export interface History {
  readonly segment: Omit<EncodeSegment, 'from'>;
  /** Rows `0 … n-2`. */
  readonly past: Extent;
  /** Row `n-1`; undefined where `n = 0`. */
  readonly newest: KvRow | undefined;
}

export interface CandidateOutput {
  /** `(T, K)` */
  readonly probabilities: Float32Array;
  /** `(T,)` */
  readonly combined: Float32Array;
  /** `(T, D)` */
  readonly y: Float32Array;
}

/** The feeds that all micro-batches of one history share. */
export type SharedFeeds = Readonly<Record<string, Tensor>>;

export class CandidateRun {
  readonly #bundle: Bundle;
  readonly #bias: AttentionBias;
  readonly #tokens: TokenEmbedding;

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#bias = new AttentionBias(bundle);
    this.#tokens = new TokenEmbedding(bundle);
  }

  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#tokens.useCatalogue(catalogue);
  }

  /** What a history gives every candidate: cached rows, the newest row, one row of biases and, if local, one of the mask. */
  share({ segment, past, newest }: History): SharedFeeds {
    const { config } = this.#bundle;
    const { layers: L, heads: H, dqk, dv } = config;
    const feeds: Record<string, Tensor> = {};
    const { keys, values } = past;
    for (let l = 0; l < L; l++) {
      feeds[`pk.${l}`] = keys[l]!;
      feeds[`pv.${l}`] = values[l]!;
      feeds[`tk.${l}`] = new Tensor('float32', newest?.k[l] ?? new Float32Array(H * dqk), [1, H, 1, dqk]);
      feeds[`tv.${l}`] = new Tensor('float32', newest?.v[l] ?? new Float32Array(H * dv), [1, H, 1, dv]);
    }
    const n = segment.entities.length;
    const reach = pastReach(config, n, past.capacity);
    if (isLocal(config)) {
      const { start, length: S } = reach;
      const mask = new Float32Array(S).fill(1, Math.max(0, n - config.stu!.maxAttnLen! - start), Math.max(0, n - 1 - start));
      feeds['pastMask'] = new Tensor('float32', mask, [1, 1, 1, S]);
      addReach(feeds, reach);
    }
    if (hasBias(config)) this.#addBiases(feeds, segment, reach);
    return feeds;
  }

  /** One micro-batch. `session` runs the candidate graph. */
  async run(session: InferenceSession, shared: SharedFeeds, segment: History['segment'], candidates: Int32Array) {
    const D = this.#bundle.config.dimension;
    const T = candidates.length;
    const x = new Float32Array(T * D);
    for (let c = 0; c < T; c++) this.#tokens.writeCandidate(x, c * D, candidates[c]!, segment.entities.length);
    const fetched = await session.run({ ...shared, x: new Tensor('float32', x, [1, T, D]) });
    const data = (name: keyof CandidateOutput) => fetched[name]!.data as Float32Array;
    return { probabilities: data('probabilities'), combined: data('combined'), y: data('y') } satisfies CandidateOutput;
  }

  /** A candidate is row `n` at the query time: `past.l` against rows `0 … n-2`, `near.l` against row `n-1` and against itself. */
  #addBiases(feeds: Record<string, Tensor>, { timesS, queryTimeS }: History['segment'], { start, length }: PastReach): void {
    const n = timesS.length;
    const times = new Float64Array(n + 1);
    times.set(timesS);
    times[n] = queryTimeS;
    const rows = Array.from({ length: this.#bundle.config.layers }, () => new Float32Array(n + 1));
    this.#bias.fillRow(n, queryTimeS, times, 0, n + 1, rows, 0);
    for (const [l, row] of rows.entries()) {
      const past = new Float32Array(length);
      past.set(row.subarray(start, Math.max(start, n - 1)));
      feeds[`past.${l}`] = new Tensor('float32', past, [1, 1, 1, length]);
      feeds[`near.${l}`] = new Tensor('float32', Float32Array.of(n > 0 ? row[n - 1]! : 0, row[n]!), [2]);
    }
  }
}
