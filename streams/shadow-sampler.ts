/**
 * The shadow check of a running stream: a share of what is published is encoded anew, in full, on a thread of its own, and must
 * agree. It never slows the stream: what it cannot keep up with it drops, and says so.
 */
import { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import type { Encoder } from '../operators/index.ts';
import type { OutputBatch, ScoredBatch, SourceBatch } from '../schemas/batch.ts';
import type { EncodeSegment } from '../schemas/encoding.ts';
import { PipelineError } from '../schemas/errors.ts';
import type { UserEmbedding } from '../schemas/output.ts';
import { digestHex, digestTokens } from '../schemas/sequence-digest.ts';
import type { PipelineObserver } from './instrument.ts';
import { SHADOW_TOLERANCE } from './shadow-check.ts';

export interface ShadowSamplerOptions {
  /** Share of embeddings that are checked, 0 to 1. */
  readonly rate: number;
  readonly report: {
    /** @param maxDelta largest |published − full encode|; NaN where there is none */
    shadowChecked(maxDelta: number, mismatch: boolean): void;
    shadowDropped(samples: number): void;
  };
  readonly log: {
    error(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
  /** Samples that may wait; more are dropped. @default 32 */
  readonly maxQueued?: number;
  /** Largest |published − full encode| that is none to report. @default `SHADOW_TOLERANCE` */
  readonly tolerance?: number | undefined;
  /** @default Math.random */
  readonly random?: () => number;
  /** What encodes in full; closed with the sampler. @default a worker thread without a cache */
  readonly encoder?: Encoder & { close(): Promise<void> };
}

interface Sample {
  /** Which of the batch's embeddings. */
  readonly index: number;
  readonly segment: EncodeSegment;
}

/**
 * Give it to the pipeline as an observer, and every published batch to `published`.
 *
 * - **memory** `maxQueued` windows waiting, as many again in each batch in flight
 * - **exact** the window is the one that was encoded, whatever has happened to the user since
 */
export class ShadowSampler implements PipelineObserver {
  readonly #options: ShadowSamplerOptions;
  readonly #bundle: Bundle;
  /** Made for the first sample: a rate of 0 costs no thread. */
  #encoder: (Encoder & { close(): Promise<void> }) | undefined;
  readonly #maxQueued: number;
  /** Of batches not yet published. */
  readonly #samples = new WeakMap<SourceBatch, readonly Sample[]>();
  readonly #queue: { readonly segment: EncodeSegment; readonly embedding: UserEmbedding }[] = [];
  /** Embeddings to let by until the next sample. */
  #gap: number;
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(bundle: Bundle, options: ShadowSamplerOptions) {
    this.#options = options;
    this.#bundle = bundle;
    this.#encoder = options.encoder;
    this.#maxQueued = options.maxQueued ?? 32;
    this.#gap = this.#nextGap();
  }

  /** Chooses the samples, while their tokens are known. Embeddings are counted as `assemble` will make them, in order. */
  gathered({ batch, updates }: ScoredBatch): void {
    const samples: Sample[] = [];
    let index = 0;
    for (const { update } of updates) {
      for (const { segment } of update.publish) {
        if (this.#gap-- === 0) {
          this.#gap = this.#nextGap();
          if (samples.length < this.#maxQueued) samples.push({ index, segment: update.request.segments[segment]! });
          else this.#options.report.shadowDropped(1);
        }
        index += 1;
      }
    }
    if (samples.length > 0) this.#samples.set(batch.source, samples);
  }

  /** Queues the samples of a batch that is out in the world. */
  published({ source, embeddings }: OutputBatch): void {
    const samples = this.#samples.get(source);
    if (samples === undefined || this.#closed) return;
    this.#samples.delete(source);
    const room = Math.max(0, this.#maxQueued - this.#queue.length);
    for (const { index, segment } of samples.slice(0, room)) this.#queue.push({ segment, embedding: embeddings[index]! });
    if (samples.length > room) this.#options.report.shadowDropped(samples.length - room);
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** Resolves when nothing waits. */
  async idle(): Promise<void> {
    await this.#working;
  }

  /** Finishes the check under way, drops those that wait, ends the thread. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue.length = 0;
    await this.#working;
    await this.#encoder?.close();
  }

  async #work(): Promise<void> {
    this.#encoder ??= new HstuEncoder(this.#bundle, { workers: 1, kvBudgetBytes: 0 });
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const { segment, embedding } = next;
      const { userId } = embedding;
      try {
        const last = { ...segment, from: segment.entities.length - 1 };
        const [full] = await this.#encoder.encode([{ userId, segments: [last] }]);
        this.#compare(segment, embedding, full!.segments[0]!.rows);
      } catch (err) {
        this.#options.report.shadowDropped(1);
        this.#options.log.warn({ err }, 'a shadow check could not be made');
      }
    }
  }

  #compare(
    { entities, timesS }: EncodeSegment,
    { userId, version, embedding, lineage }: UserEmbedding,
    full: Float32Array,
  ): void {
    const maxDelta = maxAbsDelta(embedding, full);
    const sameTokens = digestHex(digestTokens(entities, timesS)) === lineage.sequenceDigest;
    const tolerance = this.#options.tolerance ?? SHADOW_TOLERANCE;
    const mismatch = !(maxDelta <= tolerance) || !sameTokens;
    this.#options.report.shadowChecked(maxDelta, mismatch);
    if (!mismatch) return;
    const what = sameTokens
      ? `deviates by ${maxDelta} from the full encode of its window; allowed: ${tolerance}`
      : `names the digest ${lineage.sequenceDigest}, which is not that of the tokens it was made of`;
    const err = new PipelineError('SHADOW_MISMATCH', `the published embedding of user ${userId}, version ${version}, ${what}`);
    this.#options.log.error({ err, userId, version, maxDelta, lineage }, 'a published embedding is wrong');
  }

  /** Geometric: every embedding is sampled with probability `rate`, at the cost of one draw a sample. */
  #nextGap(): number {
    const { rate, random = Math.random } = this.#options;
    if (rate <= 0) return Number.POSITIVE_INFINITY;
    return rate >= 1 ? 0 : Math.floor(Math.log(1 - random()) / Math.log(1 - rate));
  }
}

/** NaN where a number is missing or is none. */
function maxAbsDelta(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.NaN;
  let max = 0;
  for (let d = 0; d < a.length; d++) max = Math.max(max, Math.abs(a[d]! - b[d]!));
  return max;
}
