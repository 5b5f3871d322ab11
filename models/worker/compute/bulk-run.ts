/** One run of the bulk graph over several windows: embeddings, biases and masks as it takes them, each only as far as it is read. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import { Buffers } from './buffers.ts';

export interface BulkOutput {
  /** `(B, T, D)` */
  readonly y: Float32Array;
  readonly T: number;
}

export class BulkRun {
  readonly #bundle: Bundle;
  readonly #bias: AttentionBias;
  readonly #tokens: TokenEmbedding;
  /** How far back a row sees. */
  readonly #reach: number;
  readonly #buffers = new Buffers();
  /** Masks depend on the shape alone. */
  readonly #masks = new Map<string, Tensor>();

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#bias = new AttentionBias(bundle);
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
    { chunks, blank }: { readonly chunks: number; readonly blank: number },
  ): Promise<BulkOutput> {
    const { layers: L, dimension: D } = this.#bundle.config;
    const B = segments.length;
    const S = Math.ceil(Math.max(...segments.map(({ entities }) => entities.length)) / chunks);
    const T = S * chunks;
    const feeds: Record<string, Tensor> = { x: new Tensor('float32', this.#tokenEmbeddings(segments, T), [B, T, D]) };
    for (let c = 0; c < chunks; c++) feeds[`mask.${c}`] = this.#mask(S, c);
    if (hasBias(this.#bundle.config)) {
      for (let c = 0; c < chunks; c++) {
        const layers = this.#biases(segments, S, c);
        // The last layer reads nothing of the blank chunks.
        const read = c < blank ? L - 1 : L;
        for (let l = 0; l < read; l++) feeds[`bias.${l}.${c}`] = new Tensor('float32', layers[l]!, [B, 1, S, (c + 1) * S]);
      }
    }
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

  /** Per layer `(B, 1, S, (c+1)*S)`. What the mask hides is left as it lies: numbers of an earlier run. */
  #biases(segments: readonly EncodeSegment[], S: number, c: number): Float32Array[] {
    const keys = (c + 1) * S;
    const layers = Array.from({ length: this.#bundle.config.layers }, (_, l) =>
      this.#buffers.of(`bias.${l}.${c}`, segments.length * S * keys),
    );
    for (const [b, { timesS, queryTimeS }] of segments.entries()) {
      const end = Math.min(timesS.length, keys);
      for (let i = c * S; i < end; i++) {
        const next = i + 1 < timesS.length ? timesS[i + 1]! : queryTimeS;
        this.#bias.fillRow(
          i,
          next,
          timesS,
          Math.max(0, i - this.#reach),
          i + 1,
          layers,
          (b * S + i - c * S) * keys + Math.max(0, i - this.#reach),
        );
      }
    }
    return layers;
  }
}
