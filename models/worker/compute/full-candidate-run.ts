/**
 * Candidates by one pass over the whole history and themselves, no cache anywhere: the formula of the ranking mask written out.
 * It costs the history every time; the cached way is measured against it and held to its numbers.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { CatalogueOverlay } from '../../catalogue/overlay.ts';
import { AttentionBias } from '../../hstu/attention-bias.ts';
import type { Bundle } from '../../hstu/bundle.ts';
import { hasBias } from '../../hstu/graph/attention.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import { Buffers } from './buffers.ts';
import type { CandidateOutput, History } from './candidate-run.ts';

export class FullCandidateRun {
  readonly #bundle: Bundle;
  readonly #bias: AttentionBias;
  readonly #tokens: TokenEmbedding;
  readonly #buffers = new Buffers();

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#bias = new AttentionBias(bundle);
    this.#tokens = new TokenEmbedding(bundle);
  }

  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#tokens.useCatalogue(catalogue);
  }

  /** @returns the candidates' rows only. `session` runs the full candidate graph. */
  async run(session: InferenceSession, segment: History['segment'], candidates: Int32Array): Promise<CandidateOutput> {
    const { dimension: D, ranking } = this.#bundle.config;
    const n = segment.entities.length;
    const T = n + candidates.length;
    const x = this.#buffers.of('x', T * D);
    for (let i = 0; i < n; i++) this.#tokens.write(x, i * D, segment.entities[i]!, i);
    for (let i = n; i < T; i++) this.#tokens.writeCandidate(x, i * D, candidates[i - n]!, n);
    const feeds: Record<string, Tensor> = {
      x: new Tensor('float32', x, [1, T, D]),
      mask: new Tensor('float32', this.#mask(n, T), [1, 1, T, T]),
    };
    if (hasBias(this.#bundle.config)) this.#addBiases(feeds, segment, n, T);
    const fetched = await session.run(feeds);
    const rows = (name: keyof CandidateOutput, width: number) => (fetched[name]!.data as Float32Array).subarray(n * width);
    return { probabilities: rows('probabilities', ranking!.tasks.length), combined: rows('combined', 1), y: rows('y', D) };
  }

  /**
   * `id_i = min(i, n)`; row i sees row j iff `i = j`, or `id_i > id_j` and no further back than `maxAttnLen` (`ops/pytorch/
   * pt_hstu_attention.py` of the reference): history rows are causal, a candidate sees the history and itself.
   */
  #mask(n: number, T: number): Float32Array {
    const reach = this.#bundle.config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
    const mask = this.#buffers.of('mask', T * T).fill(0);
    for (let i = 0; i < T; i++) {
      const id = Math.min(i, n);
      mask.fill(1, i * T + Math.max(0, id - reach), i * T + id);
      mask[i * T + i] = 1;
    }
    return mask;
  }

  #addBiases(feeds: Record<string, Tensor>, { timesS, queryTimeS }: History['segment'], n: number, T: number): void {
    const times = new Float64Array(n + 1);
    times.set(timesS);
    times[n] = queryTimeS;
    const layers = Array.from({ length: this.#bundle.config.layers }, (_, l) => this.#buffers.of(`bias.${l}`, T * T).fill(0));
    for (let i = 0; i < n; i++) this.#bias.fillRow(i, times[i + 1]!, times, 0, i + 1, layers, i * T);
    if (T > n) this.#bias.fillRow(n, queryTimeS, times, 0, n + 1, layers, n * T);
    for (const [l, layer] of layers.entries()) {
      for (let i = n + 1; i < T; i++) {
        layer.copyWithin(i * T, n * T, n * T + n);
        layer[i * T + i] = layer[n * T + n]!;
      }
      feeds[`bias.${l}`] = new Tensor('float32', layer, [1, 1, T, T]);
    }
  }
}
