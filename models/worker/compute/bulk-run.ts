/** One run of the bulk graph over several windows: embeddings, biases and masks as it takes them, each only as far as it is read. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import { Buffers } from './buffers.ts';
import { BulkBiases, type BulkLayout } from './bulk-biases.ts';

export interface BulkOutput {
  /** `(B, T, D)` */
  readonly y: Float32Array;
  readonly T: number;
}

export class BulkRun {
  readonly #bundle: Bundle;
  readonly #biases: BulkBiases | undefined;
  readonly #tokens: TokenEmbedding;
  /** How far back a row sees. */
  readonly #reach: number;
  readonly #buffers = new Buffers();
  /** Masks depend on the shape alone. */
  readonly #masks = new Map<string, Tensor>();

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#biases = hasBias(bundle.config) ? new BulkBiases(bundle) : undefined;
    this.#tokens = new TokenEmbedding(bundle);
    this.#reach = bundle.config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Rows behind a window's end are computed and mean nothing; no row of a window sees them.
   *
   * @param session the bulk graph of `chunks` and `blank`
   */
  async run(
    session: InferenceSession,
    segments: readonly EncodeSegment[],
    { chunks, blank }: Omit<BulkLayout, 'S'>,
  ): Promise<BulkOutput> {
    const { dimension: D } = this.#bundle.config;
    const B = segments.length;
    const S = Math.ceil(Math.max(...segments.map(({ entities }) => entities.length)) / chunks);
    const T = S * chunks;
    const feeds: Record<string, Tensor> = { x: new Tensor('float32', this.#tokenEmbeddings(segments, T), [B, T, D]) };
    for (let c = 0; c < chunks; c++) feeds[`mask.${c}`] = this.#mask(S, c);
    for (const [c, layers] of (this.#biases?.fill(segments, { S, chunks, blank }) ?? []).entries())
      for (const [l, bias] of layers.entries()) feeds[`bias.${l}.${c}`] = new Tensor('float32', bias, [B, 1, S, (c + 1) * S]);
    const { y } = await session.run(feeds, ['y']);
    return { y: y!.data as Float32Array, T };
  }

  /** `(B, T, D)`, zeros behind a window's end. */
  #tokenEmbeddings(segments: readonly EncodeSegment[], T: number): Float32Array {
    const D = this.#bundle.config.dimension;
    const x = this.#buffers.of('x', segments.length * T * D);
    for (const [b, { entities }] of segments.entries()) {
      const n = entities.length;
      for (let i = 0; i < n; i++) this.#tokens.write(x, (b * T + i) * D, entities[i]!, i);
      x.fill(0, (b * T + n) * D, (b + 1) * T * D);
    }
    return x;
  }

  /** Rows `c*S …` against the keys `0 … (c+1)*S - 1`: `(1, 1, S, (c+1)*S)`. */
  #mask(S: number, c: number): Tensor {
    const key = `${S}/${c}`;
    const known = this.#masks.get(key);
    if (known !== undefined) return known;
    const keys = (c + 1) * S;
    const mask = new Float32Array(S * keys);
    for (let row = 0; row < S; row++) {
      const i = c * S + row;
      mask.fill(1, row * keys + Math.max(0, i - this.#reach), row * keys + i + 1);
    }
    const tensor = new Tensor('float32', mask, [1, 1, S, keys]);
    this.#masks.set(key, tensor);
    return tensor;
  }
}
