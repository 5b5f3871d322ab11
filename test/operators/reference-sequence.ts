/**
 * The sequence by its definition: whole histories in plain arrays, one event at a time, everything recomputed. What the
 * compact structures and the batched operator are compared with.
 */
import type { PublishPoint } from '../../schemas/batch.ts';
import { digestHex, digestTokens } from '../../schemas/sequence-digest.ts';
import type { EventSpec } from './fixtures.ts';

export interface ReferenceOptions {
  readonly maxLength: number;
  readonly blockLength: number;
  readonly seenLimit: number;
}

/** What one row of an encoding depends on, and what was seen by then. */
export interface Context {
  readonly windowStart: number;
  readonly entities: readonly number[];
  readonly timesS: readonly number[];
  readonly queryTimeS: number;
  readonly seen: readonly number[];
}

interface Stored {
  readonly eventId: string;
  readonly timeMs: number;
  readonly entity: number;
}

const startOf = (count: number, max: number, block: number) => block * Math.ceil(Math.max(0, count - max) / block);

/** All events ever accepted, in order; those before the window are forgotten, save for what the rules say is remembered. */
class ReferenceWindow {
  all: Stored[] = [];
  readonly options: ReferenceOptions;

  constructor(options: ReferenceOptions) {
    this.options = options;
  }

  get start(): number {
    return startOf(this.all.length, this.options.maxLength, this.options.blockLength);
  }

  get window(): Stored[] {
    return this.all.slice(this.start);
  }

  get newestDropped(): Stored | undefined {
    return this.all[this.start - 1];
  }

  remembers(eventId: string): boolean {
    const dropped = this.all.slice(0, this.start).filter(({ timeMs }) => timeMs === this.newestDropped?.timeMs);
    return [...this.window, ...dropped.slice(-2 * this.options.maxLength)].some((stored) => stored.eventId === eventId);
  }

  isBefore(timeMs: number): boolean {
    return this.newestDropped !== undefined && timeMs < this.newestDropped.timeMs;
  }

  insert(stored: Stored): void {
    const index = this.all.filter(({ timeMs }) => timeMs <= stored.timeMs).length;
    this.all.splice(index, 0, stored);
  }
}

export class ReferenceUser {
  readonly tokens: ReferenceWindow;
  readonly kept: ReferenceWindow;
  readonly #options: ReferenceOptions;
  #seenAdded: number[] = [];

  constructor(options: ReferenceOptions) {
    this.#options = options;
    this.tokens = new ReferenceWindow(options);
    this.kept = new ReferenceWindow(options);
  }

  get seen(): number[] {
    const { seenLimit } = this.#options;
    return this.#seenAdded.slice(startOf(this.#seenAdded.length, seenLimit, Math.max(1, Math.floor(seenLimit / 4))));
  }

  get newestTimeMs(): number {
    return this.tokens.window.at(-1)?.timeMs ?? Number.NEGATIVE_INFINITY;
  }

  get digest(): string {
    const { window } = this.tokens;
    return digestHex(
      digestTokens(
        Int32Array.from(window, ({ entity }) => entity),
        Float64Array.from(window, ({ timeMs }) => Math.floor(timeMs / 1000)),
      ),
    );
  }

  context(queryTimeMs: number): Context {
    const { window, start } = this.tokens;
    return {
      windowStart: start,
      entities: window.map(({ entity }) => entity),
      timesS: window.map(({ timeMs }) => Math.floor(timeMs / 1000)),
      queryTimeS: Math.floor(queryTimeMs / 1000),
      seen: this.seen,
    };
  }

  /** The disposition; for an appended token also how it is ranked. */
  apply({ eventId, timeMs, entity }: EventSpec): {
    disposition: string;
    ranked?: { entity: number; priorEvents: number; sequenceDigest: string; context: Context };
  } {
    if (this.tokens.remembers(eventId) || this.kept.remembers(eventId)) return { disposition: 'duplicate' };
    const list = entity === 0 ? this.kept : this.tokens;
    if (list.isBefore(timeMs)) return { disposition: 'late' };
    if (entity === 0) {
      list.insert({ eventId, timeMs, entity });
      return { disposition: 'kept' };
    }
    const appended = timeMs >= this.newestTimeMs;
    const ranked =
      appended && this.tokens.all.length > 0
        ? { entity, priorEvents: this.tokens.all.length, sequenceDigest: this.digest, context: this.context(timeMs) }
        : null;
    list.insert({ eventId, timeMs, entity });
    if (!this.seen.includes(entity)) this.#seenAdded.push(entity);
    return { disposition: appended ? 'appended' : 'inserted', ...(ranked === null ? {} : { ranked }) };
  }

  published(): Omit<PublishPoint, 'segment' | 'seenStart' | 'seenCount' | 'position'> & { readonly context: Context } {
    return {
      version: this.tokens.all.length,
      sequenceLength: this.tokens.window.length,
      sequenceDigest: this.digest,
      lastEventTimeMs: this.newestTimeMs,
      queryTimeMs: this.newestTimeMs,
      context: this.context(this.newestTimeMs),
    };
  }
}
