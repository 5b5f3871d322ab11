/** What rows of windows bring to a run of an encoder graph, wherever the cached rows lie: embeddings, masks and biases. */
import { Tensor } from 'onnxruntime-node';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias, isLocal } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import { Buffers } from './buffers.ts';

/** Rows `from … to-1` of a window. */
export interface Rows {
  readonly segment: Omit<EncodeSegment, 'from'>;
  readonly from: number;
  readonly to: number;
}

/** The cached rows that a run reads of each user. */
export interface PastRows {
  /** Rows read of each user, those behind its last cached one included: `S`. */
  readonly length: number;
  /** First row read, by user. */
  readonly starts: readonly number[];
  /** Of biases and mask of the past, over `(B, T, S)`. */
  readonly dims: readonly number[];
}

export class RowFeeds {
  readonly #bundle: Bundle;
  readonly #bias: AttentionBias;
  readonly #tokens: TokenEmbedding;
  /** How far back a row sees. */
  readonly #reach: number;
  readonly #buffers = new Buffers();

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#bias = new AttentionBias(bundle);
    this.#tokens = new TokenEmbedding(bundle);
    this.#reach = bundle.config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
  }

  /** `x`, `mask`, and what the model has of `bias.l`, `past.l`, `pastMask`. Valid until the next call: the buffers are used again. */
  of(ranges: readonly Rows[], T: number, past?: PastRows): Record<string, Tensor> {
    const { config } = this.#bundle;
    const B = ranges.length;
    const feeds: Record<string, Tensor> = {
      x: new Tensor('float32', this.#tokenEmbeddings(ranges, T), [B, T, config.dimension]),
      mask: new Tensor('float32', this.#mask(ranges, T), [B, 1, T, T]),
    };
    if (past !== undefined && isLocal(config))
      feeds['pastMask'] = new Tensor('float32', this.#pastMask(ranges, T, past), past.dims);
    if (hasBias(config)) this.#addBiases(feeds, ranges, T, past);
    return feeds;
  }

  /** Embeddings of the rows, padded with zeros: `(B, T, D)`. */
  #tokenEmbeddings(ranges: readonly Rows[], T: number): Float32Array {
    const { dimension: D, positions } = this.#bundle.config;
    const x = this.#buffers.of('x', ranges.length * T * D);
    for (const [b, { segment, from, to }] of ranges.entries()) {
      const n = segment.entities.length;
      for (let i = from; i < to; i++)
        this.#tokens.write(x, (b * T + i - from) * D, segment.entities[i]!, positions === 'from-end' ? n - 1 - i : i);
      x.fill(0, (b * T + to - from) * D, (b + 1) * T * D);
    }
    return x;
  }

  /** 1 where new row i may see new row j. */
  #mask(ranges: readonly Rows[], T: number): Float32Array {
    const causal = this.#bundle.config.attention === 'causal';
    const mask = this.#buffers.of('mask', ranges.length * T * T).fill(0);
    for (const [b, { from, to }] of ranges.entries()) {
      const rows = to - from;
      for (let i = 0; i < rows; i++) {
        const row = (b * T + i) * T;
        mask.fill(1, row + Math.max(0, i - this.#reach), row + (causal ? i + 1 : rows));
      }
    }
    return mask;
  }

  /** 1 where new row i may see cached row j of those read, for local attention: `(B, T, S)`. */
  #pastMask(ranges: readonly Rows[], T: number, { length: S, starts }: PastRows): Float32Array {
    const mask = this.#buffers.of('pastMask', ranges.length * T * S).fill(0);
    for (const [b, { from, to }] of ranges.entries()) {
      const start = starts[b]!;
      for (let i = from; i < to; i++) {
        const row = (b * T + i - from) * S;
        mask.fill(1, row + Math.min(from, Math.max(start, i - this.#reach)) - start, row + from - start);
      }
    }
    return mask;
  }

  #addBiases(feeds: Record<string, Tensor>, ranges: readonly Rows[], T: number, past: PastRows | undefined): void {
    const L = this.#bundle.config.layers;
    const B = ranges.length;
    const S = past?.length ?? 0;
    const among = Array.from({ length: L }, (_, l) => this.#buffers.of(`bias.${l}`, B * T * T));
    const cached = S > 0 ? Array.from({ length: L }, (_, l) => this.#buffers.of(`past.${l}`, B * T * S)) : [];
    for (const [b, range] of ranges.entries()) this.#fillBias(range, b, T, S, past?.starts[b] ?? 0, among, cached);
    for (let l = 0; l < L; l++) {
      feeds[`bias.${l}`] = new Tensor('float32', among[l]!, [B, 1, T, T]);
      if (past !== undefined && S > 0) feeds[`past.${l}`] = new Tensor('float32', cached[l]!, past.dims);
    }
  }

  #fillBias(
    { segment, from, to }: Rows,
    b: number,
    T: number,
    S: number,
    start: number,
    bias: readonly Float32Array[],
    past: readonly Float32Array[],
  ): void {
    const { timesS, queryTimeS } = segment;
    for (let i = from; i < to; i++) {
      const next = i + 1 < timesS.length ? timesS[i + 1]! : queryTimeS;
      const row = b * T + i - from;
      this.#bias.fillRow(i, next, timesS, from, to, bias, row * T);
      for (const layer of bias) layer.fill(0, row * T + to - from, (row + 1) * T);
      if (S === 0) continue;
      this.#bias.fillRow(i, next, timesS, start, from, past, row * S);
      for (const layer of past) layer.fill(0, row * S + from - start, (row + 1) * S);
    }
    for (let row = b * T + to - from; row < (b + 1) * T; row++) {
      for (const layer of bias) layer.fill(0, row * T, (row + 1) * T);
      for (const layer of past) layer.fill(0, row * S, (row + 1) * S);
    }
  }
}
