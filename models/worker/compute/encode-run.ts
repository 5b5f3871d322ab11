/** A run of the prefill graph over several users, or of the step graph over one, whose cached rows enter as they lie; and what comes back. */
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
  /** `(R, D)` */
  readonly y: Float32Array;
  /** Per layer `(R, H*dqk)` and `(R, H*dv)`. */
  readonly k: readonly Float32Array[];
  readonly v: readonly Float32Array[];
  /** Of each range, which of the `R` rows is its first. */
  readonly at: readonly number[];
}

export class EncodeRun {
  readonly #bundle: Bundle;
  readonly #feeds: RowFeeds;

  constructor(bundle: Bundle) {
    this.#bundle = bundle;
    this.#feeds = new RowFeeds(bundle);
  }

  /** One range with `past`, or any number without: those shorter than the longest are padded behind and masked. */
  async run(session: InferenceSession, ranges: readonly RowRange[]): Promise<RunOutput> {
    const { config } = this.#bundle;
    const { layers: L } = config;
    const T = Math.max(...ranges.map((range) => range.to - range.from));
    const past = ranges[0]!.past;
    const reach = pastReach(config, ranges[0]!.from, past?.capacity ?? 0);
    const feeds = this.#feeds.of(
      ranges,
      T,
      past && { length: reach.length, starts: [reach.start], dims: [1, 1, T, reach.length] },
    );
    if (past !== undefined && isLocal(config)) addReach(feeds, reach);
    for (const [l, keys] of (past?.keys ?? []).entries()) feeds[`pk.${l}`] = keys;
    for (const [l, values] of (past?.values ?? []).entries()) feeds[`pv.${l}`] = values;
    const fetched = await session.run(feeds);
    const data = (name: string) => fetched[name]!.data as Float32Array;
    const perLayer = (name: string) => Array.from({ length: L }, (_, l) => data(`${name}.${l}`));
    return { y: data('y'), k: perLayer('k'), v: perLayer('v'), at: ranges.map((_, b) => b * T) };
  }
}
