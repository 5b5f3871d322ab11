/**
 * A step of few new rows a user against rows in the pool: the projections of all users' rows by the runtime, the attention by the
 * kernel, layer by layer. Users need have neither equally many rows nor equal capacity.
 */
import { Tensor } from 'onnxruntime-node';
import type { Bundle } from '../../hstu/bundle.ts';
import { TokenEmbedding } from '../../hstu/token-embedding.ts';
import type { AttentionWorkspace } from '../../wasm/attention-workspace.ts';
import { Buffers } from './buffers.ts';
import type { RowRange, RunOutput } from './encode-run.ts';
import type { Sessions } from './sessions.ts';

export class StepRun {
  readonly #bundle: Bundle;
  readonly #sessions: Sessions;
  readonly #tokens: TokenEmbedding;
  readonly #buffers = new Buffers();

  constructor(bundle: Bundle, sessions: Sessions) {
    this.#bundle = bundle;
    this.#sessions = sessions;
    this.#tokens = new TokenEmbedding(bundle);
  }

  /** Every range must have `past` in the workspace's memory. */
  async run(workspace: AttentionWorkspace, ranges: readonly RowRange[]): Promise<RunOutput> {
    const { layers: L, heads: H, dv } = this.#bundle.config;
    const users = workspace.prepare(ranges);
    const at = users.map((user) => user.at);
    const R = ranges.reduce((rows, { from, to }) => rows + to - from, 0);
    const k: Float32Array[] = [];
    const v: Float32Array[] = [];
    let x = this.#tokenEmbeddings(ranges, R);
    let feeds: Record<string, Tensor> = {};
    for (let l = 0; l <= L; l++) {
      const made = await (await this.#sessions.stage(l)).run({ x_in: x, ...feeds });
      const data = (name: string) => made[name]!.data as Float32Array;
      if (l === L) return { y: data('y'), k, v, at };
      k.push(data('k'));
      v.push(data('v'));
      x = (made['x'] as Tensor | undefined) ?? x;
      const sum = workspace.attend(l, users, data('q'), k[l]!, v[l]!);
      feeds = { u_in: made['u'] as Tensor, sum: new Tensor('float32', sum, [1, R, H * dv]) };
    }
    throw new RangeError('a model has a last layer');
  }

  #tokenEmbeddings(ranges: readonly RowRange[], R: number): Tensor {
    const D = this.#bundle.config.dimension;
    const x = this.#buffers.of('x', R * D);
    let row = 0;
    for (const { segment, from, to } of ranges)
      for (let i = from; i < to; i++) this.#tokens.write(x, row++ * D, segment.entities[i]!, i);
    return new Tensor('float32', x, [1, R, D]);
  }
}
