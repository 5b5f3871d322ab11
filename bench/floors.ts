/** What the machine itself allows one thread, measured beside the figures that are held against it. */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { prefillCost } from '../models/hstu/prefill-cost.ts';
import { GraphBuilder } from '../models/onnx/graph-builder.ts';
import type { BundleConfig } from '../schemas/bundle-config.ts';
import { median, stopwatch } from './measure.ts';

const SIZE = 1024;
const ROUNDS = 9;

/** One large matrix product in the runtime that the encoder uses: the most arithmetic it gets out of a thread. */
export class Gemm {
  readonly #session: InferenceSession;
  readonly #inputs: Readonly<Record<string, Tensor>>;

  static async open(): Promise<Gemm> {
    const graph = new GraphBuilder('gemm');
    const a = graph.input('a', 'float32', [SIZE, SIZE]);
    const b = graph.float(noise(), [SIZE, SIZE]);
    graph.output('c', graph.op('MatMul', [a, b]), 'float32', [SIZE, SIZE]);
    return new Gemm(await InferenceSession.create(graph.build(), { intraOpNumThreads: 1, interOpNumThreads: 1 }));
  }

  private constructor(session: InferenceSession) {
    this.#session = session;
    this.#inputs = { a: new Tensor('float32', noise(), [SIZE, SIZE]) };
  }

  /** GFLOP/s, a multiplication and an addition counted as two: median of several. */
  async gflops(): Promise<number> {
    const rates: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const elapsed = stopwatch();
      await this.#session.run(this.#inputs);
      rates.push((2 * SIZE ** 3) / elapsed() / 1e6);
    }
    return median(rates.slice(1));
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

const noise = (): Float32Array => Float32Array.from({ length: SIZE * SIZE }, (_, i) => ((i * 7919) % 1013) / 1013 - 0.5);

/** Floating-point operations that encoding `n` rows needs: projections, and scores and sums over the pairs that the causal mask leaves. */
export function prefillFlops(config: BundleConfig, n: number): number {
  const cost = prefillCost(config);
  const aPair = (cost(2) - 2 * cost(1)) / 2;
  return 2 * (cost(n) - (aPair * n * (n - 1)) / 2);
}
