/** What a run of a graph over several users takes: token embeddings, biases, masks, cached rows; and what it gives back. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias, isLocal } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import type { Extent } from '../../kv-cache/extent.ts';
import { Buffers } from './buffers.ts';
import { addReach, pastReach } from './past-reach.ts';

/** Rows `from … to-1` of a window; rows before `from` are in `past`. */
export interface RowRange {
  readonly segment: Omit<EncodeSegment, 'from'>;
  readonly from: number;
  readonly to: number;
  readonly past?: Extent;
}

export interface RunOutput {
  /** `(B, T, D)`, T the longest range of the run. */
  readonly y: Float32Array;
  /** Per layer `(B, T, H*dqk)` and `(B, T, H*dv)`. */
  readonly k: readonly Float32Array[];
  readonly v: readonly Float32Array[];
  readonly T: number;
}

export class EncodeRun {
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

  /** Every range must have `past` (of one capacity) or none. Ranges shorter than the longest are padded behind and masked. */
  async run(session: InferenceSession, ranges: readonly RowRange[]): Promise<RunOutput> {
    const { config } = this.#bundle;
    const { layers: L, dimension: D } = config;
    const B = ranges.length;
    const T = Math.max(...ranges.map((range) => range.to - range.from));
    const C = ranges[0]!.past?.capacity ?? 0;
    const feeds: Record<string, Tensor> = {
      x: new Tensor('float32', this.#tokenEmbeddings(ranges, T), [B, T, D]),
      mask: new Tensor('float32', this.#mask(ranges, T), [B, 1, T, T]),
    };
    const S = pastReach(config, 0, C).length;
    if (C > 0 && isLocal(config)) {
      feeds['pastMask'] = new Tensor('float32', this.#pastMask(ranges, T, S), [B, 1, T, S, 1]);
      for (const [b, { from }] of ranges.entries()) addReach(feeds, b, pastReach(config, from, C));
    }
    if (hasBias(config)) this.#addBiases(feeds, ranges, T, S);
    for (let l = 0; l < L; l++) {
      for (let b = 0; C > 0 && b < B; b++) {
        feeds[`pk.${l}.${b}`] = ranges[b]!.past!.keys[l]!;
        feeds[`pv.${l}.${b}`] = ranges[b]!.past!.values[l]!;
      }
    }
    const fetched = await session.run(feeds);
    const data = (name: string) => fetched[name]!.data as Float32Array;
    const perLayer = (name: string) => Array.from({ length: L }, (_, l) => data(`${name}.${l}`));
    return { y: data('y'), k: perLayer('k'), v: perLayer('v'), T };
  }

  /** Embeddings of the rows, padded with zeros: `(B, T, D)`. */
  #tokenEmbeddings(ranges: readonly RowRange[], T: number): Float32Array {
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
  #mask(ranges: readonly RowRange[], T: number): Float32Array {
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
  #pastMask(ranges: readonly RowRange[], T: number, S: number): Float32Array {
    const mask = this.#buffers.of('pastMask', ranges.length * T * S).fill(0);
    for (const [b, { from, to, past }] of ranges.entries()) {
      const { start } = pastReach(this.#bundle.config, from, past!.capacity);
      for (let i = from; i < to; i++) {
        const row = (b * T + i - from) * S;
        mask.fill(1, row + Math.min(from, Math.max(start, i - this.#reach)) - start, row + from - start);
      }
    }
    return mask;
  }

  #addBiases(feeds: Record<string, Tensor>, ranges: readonly RowRange[], T: number, S: number): void {
    const L = this.#bundle.config.layers;
    const B = ranges.length;
    const bias = Array.from({ length: L }, (_, l) => this.#buffers.of(`bias.${l}`, B * T * T));
    const past = S > 0 ? Array.from({ length: L }, (_, l) => this.#buffers.of(`past.${l}`, B * T * S)) : [];
    for (const [b, range] of ranges.entries()) this.#fillBias(range, b, T, S, bias, past);
    for (let l = 0; l < L; l++) {
      feeds[`bias.${l}`] = new Tensor('float32', bias[l]!, [B, 1, T, T]);
      if (S > 0) feeds[`past.${l}`] = new Tensor('float32', past[l]!, [B, 1, T, S, 1]);
    }
  }

  #fillBias(
    { segment, from, to, past: extent }: RowRange,
    b: number,
    T: number,
    S: number,
    bias: readonly Float32Array[],
    past: readonly Float32Array[],
  ): void {
    const { timesS, queryTimeS } = segment;
    const { start } = pastReach(this.#bundle.config, from, extent?.capacity ?? 0);
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
