/**
 * The engine of one worker on the provider that was chosen, and on the CPU from the moment that fails: a request that the device
 * did not answer is asked again there, before anyone hears of it. The cache is gone with the device; the answers are the same.
 */
import { InferenceSession } from 'onnxruntime-node';
import type { CandidateRequest, EncodeRequest, ScoreRequest } from '../../schemas/encoding.ts';
import { messageOf } from '../../schemas/errors.ts';
import { CandidateIndex } from '../catalogue/candidate-index.ts';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { Bundle } from '../hstu/bundle.ts';
import { judgeCacheability } from '../hstu/cacheability.ts';
import { EncoderEngine } from '../worker/engine.ts';
import type { Provider, ProviderReport } from './choose-provider.ts';
import { GpuFailure } from './device.ts';
import { GpuEngine, type GpuEngineOptions } from './gpu-engine.ts';
import { matrixProductGraph } from './graphs.ts';

type Engine = Pick<
  GpuEngine | EncoderEngine,
  | 'encode'
  | 'encodeInBulk'
  | 'score'
  | 'scoreCandidates'
  | 'useCatalogue'
  | 'useIndex'
  | 'forget'
  | 'cachedUsers'
  | 'touch'
  | 'stats'
  | 'release'
>;

export class ProviderEngine {
  #bundle: Bundle;
  readonly #options: GpuEngineOptions;
  readonly #onChange: (report: ProviderReport) => void;
  #engine: Engine;
  /** Pending until the provider has shown that it is there at all. */
  #trial: Promise<void> | undefined;
  #provider: Provider;
  #index: CandidateIndex | undefined;

  /** @param onChange told when the provider is another than was asked for, and why */
  constructor(
    bundle: Bundle,
    options: GpuEngineOptions,
    provider: Provider,
    onChange: (report: ProviderReport) => void,
    gpuEngineOf = (...given: ConstructorParameters<typeof GpuEngine>) => new GpuEngine(...given),
  ) {
    this.#bundle = bundle;
    this.#options = options;
    this.#onChange = onChange;
    this.#provider = provider;
    const { verdict, reasons } = judgeCacheability(bundle.config);
    if (provider === 'webgpu' && verdict !== 're-encode') this.#engine = gpuEngineOf(bundle, options);
    else this.#engine = new EncoderEngine(bundle, { ...options, ...(provider === 'cuda' && { provider }) });
    if (provider === 'webgpu' && verdict === 're-encode') this.#report('cpu', `nothing to cache: ${reasons.join('; ')}`);
    if (provider === 'cuda') this.#trial = this.#tryCuda();
  }

  get stats() {
    return this.#engine.stats;
  }

  encode(requests: readonly EncodeRequest[]) {
    return this.#ask((engine) => engine.encode(requests));
  }

  encodeInBulk(requests: readonly EncodeRequest[]) {
    return this.#ask((engine) => engine.encodeInBulk(requests));
  }

  score(requests: readonly ScoreRequest[]) {
    return this.#ask((engine) => engine.score(requests));
  }

  scoreCandidates(requests: readonly CandidateRequest[]) {
    return this.#ask((engine) => engine.scoreCandidates(requests));
  }

  /** Of whichever engine answers from now on. */
  useCatalogue(catalogue: CatalogueOverlay): void {
    this.#bundle = { ...this.#bundle, catalogue };
    this.#engine.useCatalogue(catalogue);
  }

  /**
   * As `EncoderEngine.useIndex`, of whichever engine answers from now on.
   *
   * @param file of the bundle's index
   * @throws PipelineError `SOURCE_UNREADABLE`
   */
  useIndex(file: string): void {
    this.#index = CandidateIndex.open(file, this.#bundle.config.dimension);
    this.#engine.useIndex(this.#index);
  }

  forget(userId: string): boolean {
    return this.#engine.forget(userId);
  }

  cachedUsers(): string[] {
    return this.#engine.cachedUsers();
  }

  touch(userIds: readonly string[]): void {
    this.#engine.touch(userIds);
  }

  /** What can be done while nothing is asked. Returns whether there may be more. */
  async idle(): Promise<boolean> {
    const engine = this.#engine;
    if (!(engine instanceof GpuEngine)) return false;
    try {
      return await engine.spillOne();
    } catch (thrown) {
      this.#fallBack(thrown);
      return false;
    }
  }

  release(): Promise<void> {
    return this.#engine.release();
  }

  async #ask<T>(work: (engine: Engine) => Promise<T>): Promise<T> {
    await this.#trial;
    try {
      return await work(this.#engine);
    } catch (thrown) {
      this.#fallBack(thrown);
      return work(this.#engine);
    }
  }

  /** @throws what is not the device's failure */
  #fallBack(thrown: unknown): void {
    if (!(thrown instanceof GpuFailure)) throw thrown;
    // The failed engine's memory goes with the device; what of it can still be let go of is, in the background.
    this.#engine.release().catch(() => undefined);
    this.#engine = new EncoderEngine(this.#bundle, this.#options);
    if (this.#index !== undefined) this.#engine.useIndex(this.#index);
    this.#report('cpu', `${this.#provider} failed: ${thrown.message}`);
  }

  async #tryCuda(): Promise<void> {
    try {
      const session = await InferenceSession.create(matrixProductGraph(), { executionProviders: ['cuda'], logSeverityLevel: 4 });
      await session.release();
    } catch (thrown) {
      this.#fallBack(new GpuFailure(messageOf(thrown)));
    }
  }

  #report(provider: Provider, reason: string): void {
    this.#provider = provider;
    this.#onChange({ provider, reason });
  }
}
