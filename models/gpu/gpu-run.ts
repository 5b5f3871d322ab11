/** Runs of the encoder's graphs over the pool: which rows are read, which are written, and what else enters. */
import { Tensor } from 'onnxruntime-node';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { hasBias } from '../hstu/graph/attention.ts';
import { TokenEmbedding } from '../hstu/token-embedding.ts';
import type { CandidateOutput } from '../worker/compute/candidate-run.ts';
import { RowFeeds, type Rows } from '../worker/compute/row-feeds.ts';
import type { GpuDevice, GpuSession } from './device.ts';
import { type GpuPages, type PagedBanks, TRASH_ROW, ZERO_ROW } from './gpu-pages.ts';
import type { GpuPool } from './gpu-pool.ts';
import { inPlace, poolCandidateGraph, poolEncodeGraph } from './graphs.ts';
import { roundUp } from './round-up.ts';

/** Rows `from … to-1` of a window; those before `from` are held. */
export interface GpuRange extends Rows {
  readonly held: GpuPages;
  /** Of the new rows, those before this one are written to the pool. */
  readonly keepTo: number;
}

export class GpuRun {
  readonly #bundle: Bundle;
  readonly #device: GpuDevice;
  readonly #pool: GpuPool;
  readonly #banks: PagedBanks;
  readonly #feeds: RowFeeds;
  readonly #tokens: TokenEmbedding;
  /** How far back a row sees. */
  readonly #reach: number;
  readonly #sessions = new Map<string, Promise<GpuSession>>();
  #rowsWritten = 0;

  constructor(bundle: Bundle, device: GpuDevice, pool: GpuPool, banks: PagedBanks) {
    this.#bundle = bundle;
    this.#device = device;
    this.#pool = pool;
    this.#banks = banks;
    this.#feeds = new RowFeeds(bundle);
    this.#tokens = new TokenEmbedding(bundle);
    this.#reach = bundle.config.stu?.maxAttnLen ?? Number.POSITIVE_INFINITY;
  }

  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#tokens.useCatalogue(catalogue);
  }

  /** Rows whose K and V runs have written to the pool, on the device, since the start. */
  get rowsWritten(): number {
    return this.#rowsWritten;
  }

  /**
   * Encodes the rows of all ranges and keeps what is to be kept. The ranges are of one bank, all with rows held before them or
   * all without.
   *
   * @returns `y (B, T, D)`, T the longest range padded
   */
  async encode(ranges: readonly GpuRange[]): Promise<{ readonly y: Float32Array; readonly T: number }> {
    const withPast = ranges[0]!.from > 0;
    const T = roundUp(Math.max(...ranges.map(({ from, to }) => to - from)));
    const starts = ranges.map(({ from }) => Math.max(0, from - this.#reach));
    const S = roundUp(Math.max(...ranges.map(({ from }, b) => from - starts[b]!)));
    const B = ranges.length;
    const feeds = this.#feeds.of(ranges, T, withPast ? { length: S, starts, dims: [B, 1, T, S] } : undefined);
    if (withPast) {
      const past = new Int32Array(B * S).fill(ZERO_ROW);
      for (const [b, { held, from }] of ranges.entries())
        for (let i = starts[b]!; i < from; i++) past[b * S + i - starts[b]!] = this.#banks.rowOf(held, i);
      feeds['past'] = new Tensor('int32', past, [B, S]);
    }
    const rows = new BigInt64Array(B * T).fill(BigInt(TRASH_ROW));
    for (const [b, { held, from, to, keepTo }] of ranges.entries())
      for (let i = from; i < Math.min(to, keepTo); i++, this.#rowsWritten++)
        rows[b * T + i - from] = BigInt(this.#banks.rowOf(held, i));
    feeds['rows'] = new Tensor('int64', rows, [B * T, 1]);
    const session = await this.#session(withPast ? 'step' : 'prefill', () => poolEncodeGraph(this.#bundle, withPast));
    const bound = await this.#pool.bound(ranges[0]!.held.bank);
    const { y } = await session.run(feeds, bound, inPlace(this.#bundle.config), ['y']);
    return { y: y!.data as Float32Array, T };
  }

  /** Judges candidates of a user all of whose `n ≥ 1` rows are in the pool, the newest among them. */
  async judge(held: GpuPages, segment: Rows['segment'], candidates: Int32Array): Promise<CandidateOutput> {
    const { dimension: D } = this.#bundle.config;
    const n = segment.entities.length;
    const count = candidates.length;
    const T = roundUp(count);
    const x = new Float32Array(T * D);
    for (let c = 0; c < count; c++) this.#tokens.writeCandidate(x, c * D, candidates[c]!, n);
    const start = Math.max(0, n - this.#reach);
    const S = roundUp(n - start);
    const past = new Int32Array(S).fill(ZERO_ROW);
    for (let i = start; i < n; i++) past[i - start] = this.#banks.rowOf(held, i);
    const unit = new Float32Array(T * T);
    for (let c = 0; c < T; c++) unit[c * T + c] = 1;
    const feeds: Record<string, Tensor> = {
      x: new Tensor('float32', x, [1, T, D]),
      mask: new Tensor('float32', unit, [1, 1, T, T]),
      past: new Tensor('int32', past, [1, S]),
    };
    // Candidates stand at row n, at the query time: one row of biases serves all, and the last of it is of each to itself.
    const asked: Rows = { segment: withQueryRow(segment), from: n, to: n + 1 };
    const one = this.#feeds.of([asked], 1, { length: S, starts: [start], dims: [1, 1, 1, S] });
    if (one['pastMask'] !== undefined) feeds['pastMask'] = one['pastMask'];
    if (hasBias(this.#bundle.config))
      for (let l = 0; l < this.#bundle.config.layers; l++) {
        const own = (one[`bias.${l}`]!.data as Float32Array)[0]!;
        feeds[`bias.${l}`] = new Tensor('float32', new Float32Array(T * T).fill(own), [1, 1, T, T]);
        feeds[`past.${l}`] = one[`past.${l}`]!;
      }
    const session = await this.#session('candidates', () => poolCandidateGraph(this.#bundle));
    const fetched = await session.run(feeds, await this.#pool.bound(held.bank), {}, ['y', 'probabilities', 'combined']);
    const data = (name: keyof CandidateOutput, width: number) => (fetched[name]!.data as Float32Array).subarray(0, count * width);
    const tasks = this.#bundle.config.ranking!.tasks.length;
    return { probabilities: data('probabilities', tasks), combined: data('combined', 1), y: data('y', D) };
  }

  #session(name: string, graph: () => Uint8Array): Promise<GpuSession> {
    const known = this.#sessions.get(name);
    if (known !== undefined) return known;
    const created = this.#device.session(graph());
    this.#sessions.set(name, created);
    return created;
  }
}

/** The window with one more row, whatever its token, at the query time. */
function withQueryRow({ entities, timesS, queryTimeS, ...rest }: Rows['segment']): Rows['segment'] {
  const times = new Float64Array(timesS.length + 1);
  times.set(timesS);
  times[timesS.length] = queryTimeS;
  const tokens = new Int32Array(entities.length + 1);
  tokens.set(entities);
  tokens[entities.length] = entities[0]!;
  return { ...rest, entities: tokens, timesS: times, queryTimeS };
}
