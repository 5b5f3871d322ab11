/** Cached rows on the GPU: made there, updated there, moved to and from the host only when asked. */
import { Tensor } from 'onnxruntime-node';
import type { BundleConfig } from '../../schemas/bundle-config.ts';
import type { GpuBuffer, GpuDevice, GpuSession } from './device.ts';
import { type GpuPages, type PagedBanks, TRASH_ROW, ZERO_ROW } from './gpu-pages.ts';
import { bindPool, gatherGraph, inPlace, poolWidth, scatterGraph } from './graphs.ts';
import { roundUp } from './round-up.ts';

export class GpuPool {
  readonly #device: GpuDevice;
  readonly #config: BundleConfig;
  readonly #banks: PagedBanks;
  /** Per bank and layer, made when the bank is first used. */
  readonly #buffers: (Promise<readonly GpuBuffer[]> | undefined)[] = [];
  #gather: Promise<GpuSession> | undefined;
  #scatter: Promise<GpuSession> | undefined;
  #bytesUploaded = 0;
  #bytesDownloaded = 0;

  constructor(device: GpuDevice, config: BundleConfig, banks: PagedBanks) {
    this.#device = device;
    this.#config = config;
    this.#banks = banks;
  }

  /** K and V copied to the device since the start: those of `restore`, and nothing else. */
  get bytesUploaded(): number {
    return this.#bytesUploaded;
  }

  /** K and V copied to the host since the start. */
  get bytesDownloaded(): number {
    return this.#bytesDownloaded;
  }

  /** The buffers of a bank, as graphs take them. */
  async bound(bank: number): Promise<Record<string, GpuBuffer>> {
    this.#buffers[bank] ??= this.#create(this.#banks.bankRows[bank]!);
    return bindPool(await this.#buffers[bank]);
  }

  /** Rows `from … to-1` of a user, per layer `(to-from, W)`: what a spill and a snapshot are made of. */
  async read(held: GpuPages, from: number, to: number): Promise<Float32Array[]> {
    const { layers: L } = this.#config;
    const W = poolWidth(this.#config);
    const count = to - from;
    const past = new Int32Array(roundUp(count)).fill(ZERO_ROW);
    for (let i = from; i < to; i++) past[i - from] = this.#banks.rowOf(held, i);
    this.#gather ??= this.#device.session(gatherGraph(this.#config));
    const names = Array.from({ length: L }, (_, l) => `rows.${l}`);
    const feeds = { past: new Tensor('int32', past, [past.length]) };
    const fetched = await (await this.#gather).run(feeds, await this.bound(held.bank), {}, names);
    this.#bytesDownloaded += 4 * L * count * W;
    return names.map((name) => (fetched[name]!.data as Float32Array).slice(0, count * W));
  }

  /** The opposite of `read`, for the rows `0 … count-1`. */
  async restore(held: GpuPages, count: number, layers: readonly Float32Array[]): Promise<void> {
    const W = poolWidth(this.#config);
    const size = roundUp(count);
    const rows = new BigInt64Array(size).fill(BigInt(TRASH_ROW));
    for (let i = 0; i < count; i++) rows[i] = BigInt(this.#banks.rowOf(held, i));
    const feeds: Record<string, Tensor> = { rows: new Tensor('int64', rows, [size, 1]) };
    for (const [l, layer] of layers.entries()) {
      const padded = new Float32Array(size * W);
      padded.set(layer.subarray(0, count * W));
      feeds[`rows.${l}`] = new Tensor('float32', padded, [size, W]);
      this.#bytesUploaded += 4 * count * W;
    }
    this.#scatter ??= this.#device.session(scatterGraph(this.#config));
    await (await this.#scatter).run(feeds, await this.bound(held.bank), inPlace(this.#config), []);
  }

  #create(rows: number): Promise<GpuBuffer[]> {
    const width = poolWidth(this.#config);
    return Promise.all(Array.from({ length: this.#config.layers }, () => this.#device.zeros(rows, width)));
  }
}
