/** A run of a graph over several users, whose cached rows enter as they lie in this thread's memory; and what it gives back. */
import type { InferenceSession } from 'onnxruntime-node';
import type { Bundle } from '../../hstu/bundle.ts';
import { isLocal } from '../../hstu/graph/attention.ts';
import type { Extent } from '../../kv-cache/extent.ts';
import { addReach, pastReach } from './past-reach.ts';
import { RowFeeds, type Rows } from './row-feeds.ts';

/** Rows `from … to-1` of a window; rows before `from` are in `past`. */
export interface RowRange extends Rows {
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
  readonly #feeds: RowFeeds;

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#feeds = new RowFeeds(bundle);
  }

  /** Every range must have `past` (of one capacity) or none. Ranges shorter than the longest are padded behind and masked. */
  async run(session: InferenceSession, ranges: readonly RowRange[]): Promise<RunOutput> {
    const { config } = this.#bundle;
    const { layers: L } = config;
    const B = ranges.length;
    const T = Math.max(...ranges.map((range) => range.to - range.from));
    const C = ranges[0]!.past?.capacity ?? 0;
    const reaches = ranges.map(({ from }) => pastReach(config, from, C));
    const S = reaches[0]!.length;
    const starts = reaches.map(({ start }) => start);
    const feeds = this.#feeds.of(ranges, T, C > 0 ? { length: S, starts, dims: [B, 1, T, S, 1] } : undefined);
    if (C > 0 && isLocal(config)) for (const [b, reach] of reaches.entries()) addReach(feeds, b, reach);
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
}
