/** One user's sequence of actions: the truth that every embedding is made from. Plain data, no RxJS. */
import type { EncodeSegment } from '../schemas/encoding.ts';
import { DIGEST_PAGE, type DigestState, digestHex, digestToken, EMPTY_DIGEST } from '../schemas/sequence-digest.ts';
import { BlockWindow, type WindowOptions } from './block-window.ts';
import { requireInteger } from './require-option.ts';
import { SeenList } from './seen-list.ts';

export interface UserSequenceOptions {
  readonly window: WindowOptions;
  /** Distinct entities remembered for the seen filter. */
  readonly seenLimit: number;
}

/** The tokens of a window as a segment carries them. */
export type WindowSnapshot = Pick<EncodeSegment, 'windowStart' | 'entities' | 'timesS' | 'pageDigests'>;

/** What a sequence is made of; all else follows from it. */
export interface SequenceParts {
  readonly tokens: BlockWindow;
  readonly kept: BlockWindow;
  readonly seen: SeenList;
}

/** Rough cost of the objects themselves, bytes. */
const OBJECT_BYTES = 600;

export const toSeconds = (timeMs: number): number => Math.floor(timeMs / 1000);

/**
 * Tokens ordered by event time, ties by arrival, in a block window; events of kinds that are not encoded in a second one.
 *
 * What it holds is a function of the events it was given, in their order, and of nothing else.
 *
 * - **time** append O(1) amortised; late insert and slide O(n) · **memory** bounded by `window` and `seenLimit`
 * - **precondition** times are finite: NaN has no place in an order
 */
export class UserSequence {
  readonly #tokens: BlockWindow;
  readonly #kept: BlockWindow;
  readonly #seen: SeenList;
  #digest: DigestState = EMPTY_DIGEST;
  /** Interleaved high, low after every full page. */
  #pages: Uint32Array<ArrayBuffer> = new Uint32Array(0);

  /** @param parts those of a sequence that was written down; empty ones otherwise */
  constructor({ window, seenLimit }: UserSequenceOptions, parts?: SequenceParts) {
    requireInteger('seenLimit', seenLimit, 1);
    this.#tokens = parts?.tokens ?? new BlockWindow(window);
    this.#kept = parts?.kept ?? new BlockWindow(window);
    this.#seen = parts?.seen ?? new SeenList(seenLimit);
    if (parts !== undefined) this.#redigest(0, EMPTY_DIGEST);
  }

  /** Not copies: for those who write them down. */
  get parts(): SequenceParts {
    return { tokens: this.#tokens, kept: this.#kept, seen: this.#seen };
  }

  /** Whether there is nothing to write down of this user. */
  get isEmpty(): boolean {
    return this.#tokens.accepted === 0 && this.#kept.accepted === 0;
  }

  /** Takes over the records of a sequence that this one replaces: they are to be written over, or removed. */
  replace(other: UserSequence): void {
    this.#tokens.marks.inherit(other.#tokens.marks.stored);
    this.#kept.marks.inherit(other.#kept.marks.stored);
    this.#seen.marks.inherit(other.#seen.marks.stored);
  }

  /** Tokens in the window. */
  get length(): number {
    return this.#tokens.length;
  }

  /** Tokens ever accepted: the version of everything made from this sequence. */
  get version(): number {
    return this.#tokens.accepted;
  }

  get windowStart(): number {
    return this.#tokens.start;
  }

  /** Whether so many more tokens drop the oldest block. */
  slidesWith(tokens: number): boolean {
    return this.#tokens.slidesWith(tokens);
  }

  /** Event time of the newest token by time; `-Infinity` while there is none. */
  get newestTimeMs(): number {
    return this.#tokens.newestTimeMs;
  }

  get digestState(): DigestState {
    return this.#digest;
  }

  /** Digest over the window's tokens, 16 hexadecimal digits. */
  get digest(): string {
    return digestHex(this.#digest);
  }

  /** Event ids of the window's tokens, in their order; one of two tokens is there twice. */
  get eventIds(): readonly string[] {
    return this.#tokens.eventIds;
  }

  /** Events of kinds that are not encoded, those still held. */
  get keptLength(): number {
    return this.#kept.length;
  }

  /** Distinct entities ever forgotten by the seen list. */
  get seenStart(): number {
    return this.#seen.start;
  }

  /** Distinct entities ever added to the seen list; it holds the last `seenEnd - seenStart`. */
  get seenEnd(): number {
    return this.#seen.end;
  }

  /** Estimate of what this user holds in memory. */
  get bytes(): number {
    return OBJECT_BYTES + this.#tokens.bytes + this.#kept.bytes + this.#seen.bytes + this.#pages.byteLength;
  }

  hasSeen(entity: number): boolean {
    return this.#seen.has(entity);
  }

  /** Entities remembered, in order of arrival; a copy. */
  seen(): Int32Array {
    return this.#seen.values.slice();
  }

  /** The newest token at or before this time that `matches`; undefined where the window has none. */
  newestUpTo(timeMs: number, matches: (token: number) => boolean): number | undefined {
    const { entities } = this.#tokens;
    let index = this.#tokens.indexFor(timeMs) - 1;
    while (index >= 0 && !matches(entities[index]!)) index--;
    return entities[index];
  }

  /** What `add` would do with this event. */
  classify(eventId: string, timeMs: number): 'appended' | 'inserted' | 'duplicate' | 'late' {
    if (this.#has(eventId)) return 'duplicate';
    if (this.#tokens.isBefore(timeMs)) return 'late';
    return timeMs >= this.newestTimeMs ? 'appended' : 'inserted';
  }

  /**
   * Takes an event's token in, or its two, the entity and what was done with it, unless it is a duplicate or older than the
   * window.
   */
  add(eventId: string, timeMs: number, entity: number, second?: number): 'appended' | 'inserted' | 'duplicate' | 'late' {
    const disposition = this.classify(eventId, timeMs);
    if (disposition === 'duplicate' || disposition === 'late') return disposition;
    const { start } = this.#tokens;
    const index = this.#tokens.indexFor(timeMs);
    this.#tokens.insert(eventId, timeMs, entity, second);
    this.#seen.add(entity);
    if (this.#tokens.start > start) this.#redigest(0, EMPTY_DIGEST);
    else if (disposition === 'appended') this.#redigest(index, this.#digest);
    else this.#redigestPagesFrom(Math.floor(index / DIGEST_PAGE));
    return disposition;
  }

  /** Takes in an event of a kind that is not encoded. */
  keep(eventId: string, timeMs: number): 'kept' | 'duplicate' | 'late' {
    if (this.#has(eventId)) return 'duplicate';
    if (this.#kept.isBefore(timeMs)) return 'late';
    this.#kept.insert(eventId, timeMs, 0);
    return 'kept';
  }

  /** The window as it is now; copies, so that it stays as it was. `n ≥ 1` once a token was added. */
  snapshot(): WindowSnapshot {
    const { length } = this.#tokens;
    return {
      windowStart: this.#tokens.start,
      entities: this.#tokens.entities.slice(),
      timesS: this.#tokens.timesMs.map(toSeconds),
      pageDigests: this.#pages.slice(0, 2 * Math.floor(length / DIGEST_PAGE)),
    };
  }

  #has(eventId: string): boolean {
    return this.#tokens.has(eventId) || this.#kept.has(eventId);
  }

  #redigestPagesFrom(page: number): void {
    const before = page === 0 ? EMPTY_DIGEST : { high: this.#pages[2 * page - 2]!, low: this.#pages[2 * page - 1]! };
    this.#redigest(page * DIGEST_PAGE, before);
  }

  /** Continues from `state`, the digest of the tokens before `from`. */
  #redigest(from: number, state: DigestState): void {
    const tokens = this.#tokens;
    const { length } = tokens;
    let digest = state;
    for (let i = from; i < length; i++) {
      digest = digestToken(digest, tokens.entityAt(i), toSeconds(tokens.timeMsAt(i)));
      if ((i + 1) % DIGEST_PAGE === 0) this.#storePage((i + 1) / DIGEST_PAGE - 1, digest);
    }
    this.#digest = digest;
  }

  #storePage(page: number, { high, low }: DigestState): void {
    if (2 * page + 2 > this.#pages.length) {
      const grown = new Uint32Array(4 * (page + 1));
      grown.set(this.#pages);
      this.#pages = grown;
    }
    this.#pages[2 * page] = high;
    this.#pages[2 * page + 1] = low;
  }
}
