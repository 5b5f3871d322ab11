/** Changes of the model of a running deployment: the next is loaded beside the one that is served, and takes its place. */
import { type Bundle, kvBytesPerRow } from '../../models/hstu/bundle.ts';
import type { Config } from '../../schemas/config.ts';
import type { EncodeSegment } from '../../schemas/encoding.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { StateSignature } from '../../schemas/state.ts';
import { requireCompatible, signatureOf } from '../state-signature.ts';
import { bundleDifferences } from './bundle-differences.ts';
import type { ModelSlot } from './model-slot.ts';
import type { EndedChange, ModelName, ModelObserver, ModelStatus } from './model-status.ts';
import { type PrefillProgress, prefillUsers } from './prefill-users.ts';
import { type ServedModel, tryModel } from './served-model.ts';

export interface ModelChangesOptions {
  readonly slot: ModelSlot<ServedModel>;
  readonly config: Config;
  /** Of a folder, with every check of a start. */
  readonly load: (path: string) => Promise<Bundle>;
  readonly serve: (bundle: Bundle, path: string) => ServedModel;
  /** The same with the catalogue of this moment, which may have changed since it was loaded. @default it cannot */
  readonly upToDate?: (model: ServedModel) => ServedModel;
  /** The folder that the configuration names now. */
  readonly configured: () => Promise<string>;
  /** A user's window as it is now; undefined for one who is not in memory here. */
  readonly windowOf: (userId: string) => Omit<EncodeSegment, 'from'> | undefined;
  /** Whether live events are under way. */
  readonly busy: () => boolean;
  /** Memory that this process may still take, bytes; undefined where nobody can tell. */
  readonly availableBytes: () => number | undefined;
  readonly observer: ModelObserver;
}

interface Change {
  next: ServedModel;
  readonly since: string;
  phase: NonNullable<ModelStatus['change']>['phase'];
  users: PrefillProgress;
  prefillBeganMs: number;
  /** It has answered a trial. */
  ready: boolean;
  readonly prefill: AbortController;
  calledOff: boolean;
  /** The model that it has taken the place of, and when nothing of that is under way any more. */
  taken: { readonly before: ServedModel; readonly free: Promise<void>; readonly beganMs: number } | undefined;
  ended: Promise<void>;
}

/**
 * One change at a time; what is asked last counts. Asking for the model that is served calls a change off.
 *
 * - **exact** a flow works with one model from its first batch to its last commit, so every output carries one digest
 * - **fault** whatever goes wrong before the switch, the model that is served goes on
 */
export class ModelChanges {
  readonly #options: ModelChangesOptions;
  #servingSince = new Date().toISOString();
  #change: Change | undefined;
  #last: EndedChange | null = null;
  /** Requests are judged one after the other. */
  #asked: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: ModelChangesOptions) {
    this.#options = options;
  }

  get status(): ModelStatus {
    const { bundle, path } = this.#options.slot.current;
    return {
      serving: { ...nameOf(bundle, path), since: this.#servingSince },
      change: this.#change === undefined ? null : statusOf(this.#change),
      last: this.#last,
    };
  }

  /**
   * Begins a change, and goes on with it in the background.
   *
   * @param path folder of the bundle. @default what the configuration names now
   * @returns when the bundle is loaded, judged and accepted
   * @throws PipelineError `BUNDLE_INVALID`, `STATE_INCOMPATIBLE` with the differences, `CONFIG_INVALID`: the change is refused
   */
  change(path?: string): Promise<ModelStatus> {
    const asked = this.#asked.then(() => this.#accept(path));
    this.#asked = asked.catch(() => undefined);
    return asked;
  }

  /** Drops a user's cached rows, those for the next model too. */
  forget(userId: string): void {
    for (const model of [this.#options.slot.current, this.#change?.next]) model?.encoder.forget(userId).catch(() => undefined);
  }

  /**
   * Whether a state that is taken over can be gone on with. One that another instance has written with the model that is being
   * loaded here makes that one served at once, its cache filled or not.
   *
   * @throws PipelineError `STATE_INCOMPATIBLE`
   */
  requireCompatible(found: StateSignature, where: string): void {
    const { bundle, signature } = this.#options.slot.current;
    try {
      requireCompatible(found, bundle, signature, where);
    } catch (error) {
      const change = this.#change;
      if (change === undefined || !change.ready || change.taken !== undefined) throw error;
      requireCompatible(found, change.next.bundle, change.next.signature, where);
      this.#takePlace(change);
      change.prefill.abort();
    }
  }

  /** Resolves when no change is under way. */
  async settled(): Promise<void> {
    await this.#asked;
    await this.#change?.ended;
  }

  /** Calls off what is under way; the served model is the caller's to close. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#asked;
    await this.#callOff();
  }

  async #accept(path: string | undefined): Promise<ModelStatus> {
    const { slot, load, serve, configured } = this.#options;
    let folder = path ?? 'the configured one';
    try {
      if (this.#closed) throw new PipelineError('ENCODER_CLOSED', 'the instance is stopping');
      folder = path ?? (await configured());
      const bundle = await load(folder);
      if (bundle.digest === this.#change?.next.bundle.digest) return this.status;
      const judged = slot.current;
      if (bundle.digest !== judged.bundle.digest) requireSuccessor(judged, bundle, folder, this.#options.config);
      await this.#callOff();
      // Too late to be called off, that change has made its model the one to compare with.
      if (bundle.digest === slot.current.bundle.digest) return this.status;
      if (slot.current !== judged) requireSuccessor(slot.current, bundle, folder, this.#options.config);
      await this.#requireMemory(bundle, folder);
      this.#begin(serve(bundle, folder));
      return this.status;
    } catch (error) {
      this.#end({ bundle: folder, outcome: 'refused', problem: messageOf(error) });
      throw error;
    }
  }

  /** An estimate, so that a change is refused rather than the process ended for its memory. */
  async #requireMemory(next: Bundle, path: string): Promise<void> {
    const available = this.#options.availableBytes();
    if (available === undefined) return;
    const { encoder, bundle } = this.#options.slot.current;
    const { kvBytesUsed, workers } = await encoder.stats();
    const weights = [...next.tensors.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    const cache = Math.min(this.#maxBytes, (kvBytesUsed * kvBytesPerRow(next.config)) / kvBytesPerRow(bundle.config));
    const needed = weights * (1 + workers) + cache;
    if (needed <= available) return;
    const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
    throw new PipelineError(
      'CONFIG_INVALID',
      `bundle ${path} needs about ${mib(needed)} beside the one that is served (weights ${mib(weights)} for each of ${workers} thread(s) and once more, KV cache ${mib(cache)}); free: ${mib(available)}. A smaller model.change.kvCacheBytes needs less`,
    );
  }

  get #maxBytes(): number {
    const { model, encoder } = this.#options.config;
    return Math.min(model.change.kvCacheBytes ?? encoder.kvBudgetBytes, encoder.kvBudgetBytes);
  }

  #begin(next: ServedModel): void {
    const change: Change = {
      next,
      since: new Date().toISOString(),
      phase: 'loading',
      users: { done: 0, cached: 0, total: 0 },
      prefillBeganMs: 0,
      ready: false,
      prefill: new AbortController(),
      calledOff: false,
      taken: undefined,
      ended: Promise.resolve(),
    };
    this.#change = change;
    const { noticed } = bundleDifferences(this.#options.slot.current.bundle, next.bundle);
    this.#options.observer.onChangeBegun?.(next, noticed);
    change.ended = this.#carryOut(change);
  }

  async #carryOut(change: Change): Promise<void> {
    const { path: bundle } = change.next;
    let ended: Omit<EndedChange, 'at'>;
    try {
      const before = this.#options.slot.current;
      const switchMs = await this.#moveTo(change);
      if (switchMs === undefined) {
        await change.next.encoder.close();
        ended = { bundle, outcome: 'called off' };
      } else {
        ended = { bundle, outcome: 'switched', switchMs };
        if (onGpu(before) && !onGpu(change.next)) await this.#moveToGpu(change);
      }
    } catch (error) {
      await change.next.encoder.close();
      ended = { bundle, outcome: 'failed', problem: messageOf(error) };
    }
    this.#change = undefined;
    this.#end(ended);
  }

  /** @returns how long the switch took, ms; undefined where it was called off */
  async #moveTo(change: Change): Promise<number | undefined> {
    await tryModel(change.next);
    change.ready = true;
    await this.#prefill(change).catch((error: unknown) => {
      // Served already, it fills its cache as users come.
      if (change.taken === undefined) throw error;
    });
    if (change.calledOff && change.taken === undefined) return undefined;
    const { before, free, beganMs } = this.#takePlace(change);
    await free;
    const switchMs = performance.now() - beganMs;
    await before.encoder.close();
    return switchMs;
  }

  async #prefill(change: Change): Promise<void> {
    const { slot, config, windowOf, busy } = this.#options;
    // A thread that has just died has no cache to go by.
    const users = await slot.current.encoder.cachedUsers().catch((): string[] => []);
    change.prefillBeganMs = performance.now();
    this.#enter(change, 'prefilling');
    await prefillUsers({
      users,
      windowOf,
      encoder: change.next.encoder,
      usersPerSecond: config.model.change.usersPerSecond,
      maxBytes: this.#maxBytes,
      busy,
      onProgress: (progress) => {
        change.users = progress;
        this.#options.observer.onChangeProgress?.(statusOf(change));
      },
      signal: change.prefill.signal,
    });
  }

  /** One GPU serves one encoder of a process: it is free only now, and the model, which has begun on the CPU, moves there. */
  async #moveToGpu(change: Change): Promise<void> {
    const again = this.#options.serve(change.next.bundle, change.next.path);
    const served = change.next;
    change.next = again;
    change.taken = undefined;
    change.ready = false;
    const moved = onGpu(again) ? await this.#moveTo(change).catch(() => undefined) : undefined;
    if (moved !== undefined) return;
    change.next = served;
    await again.encoder.close();
  }

  /** From here on there is no way back: what flows next flows with the next model. */
  #takePlace(change: Change): NonNullable<Change['taken']> {
    if (change.taken !== undefined) return change.taken;
    const { slot, upToDate = (model) => model } = this.#options;
    const before = slot.current;
    const beganMs = performance.now();
    change.next = upToDate(change.next);
    change.taken = { before, free: slot.replace(change.next), beganMs };
    this.#servingSince = new Date().toISOString();
    this.#enter(change, 'switching');
    return change.taken;
  }

  #enter(change: Change, phase: Change['phase']): void {
    change.phase = phase;
    this.#options.observer.onChangeProgress?.(statusOf(change));
  }

  async #callOff(): Promise<void> {
    const change = this.#change;
    if (change === undefined) return;
    change.calledOff = true;
    change.prefill.abort();
    await change.ended;
  }

  #end(ended: Omit<EndedChange, 'at'>): void {
    this.#last = { ...ended, at: new Date().toISOString() };
    this.#options.observer.onChangeEnded?.(this.#last);
  }
}

/** @throws PipelineError `STATE_INCOMPATIBLE` with every difference that forbids the change */
function requireSuccessor(
  { bundle: served, path, signature }: ServedModel,
  next: Bundle,
  nextPath: string,
  config: Config,
): void {
  const { refused } = bundleDifferences(served, next);
  if (refused.length > 0)
    throw new PipelineError(
      'STATE_INCOMPATIBLE',
      [
        `bundle ${nextPath} cannot take the place of ${path}, whose numbers the users' sequences are made of:`,
        ...refused,
        'what was must stay where it was; a model that is made otherwise needs a deployment of its own, or hstu-streams reset',
      ].join('\n  '),
    );
  // The last word is that of the check which a restart makes.
  requireCompatible(signature, next, signatureOf(next, config.sequence.seenLimit), `what ${path} serves`);
}

const onGpu = ({ encoder }: ServedModel): boolean => encoder.provider.provider === 'webgpu';

const nameOf = ({ config, digest }: Bundle, bundle: string): ModelName => ({ bundle, name: config.name, digest });

function statusOf({ next, phase, users, prefillBeganMs, since }: Change): NonNullable<ModelStatus['change']> {
  const seconds = (performance.now() - prefillBeganMs) / 1000;
  const usersPerSecond = users.cached === 0 ? 0 : Math.round((10 * users.cached) / seconds) / 10;
  return { ...nameOf(next.bundle, next.path), phase, users, usersPerSecond, since };
}
