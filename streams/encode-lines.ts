/** Encodes users given as JSON lines, whole or event by event: the library call behind `hstu-streams encode`. */
import type { HstuEncoder } from '../models/encoder.ts';
import type { Bundle } from '../models/hstu/bundle.ts';
import { Tokenizer } from '../models/hstu/tokenizer.ts';
import { windowStartOf } from '../operators/index.ts';
import { servesRetrieval } from '../schemas/bundle-config.ts';
import type { EncodeSegment } from '../schemas/encoding.ts';
import { pageDigests } from '../schemas/sequence-digest.ts';
import { type LineFault, lineTokens, readLine, userLine } from './user-lines.ts';

export interface EncodeLinesOptions {
  /** `full`: one encode of the window. `incremental`: one event at a time through the cache. Equal, or it is a defect. */
  readonly mode: 'full' | 'incremental';
  /** Best entities to list, nothing filtered; 0 for none. A bundle that only ranks has none. */
  readonly topK: number;
  /** Whether to return every row of the window. */
  readonly rows: boolean;
}

export interface EncodedLine {
  readonly userId?: string;
  readonly embedding?: readonly number[];
  readonly topK?: readonly { readonly entity: string; readonly score: number }[];
  readonly rows?: readonly (readonly number[])[];
  readonly deadLetters?: readonly LineFault[];
}

/** A line that can be encoded. */
interface Prepared {
  readonly userId: string;
  /** Of all events; `tokensAnEvent` of each. */
  readonly entities: Int32Array;
  readonly timesS: Float64Array;
  readonly tokensAnEvent: number;
  readonly queryTimeS: number;
  readonly faults: readonly LineFault[];
}

/** Events of one user handed to the encoder at once, in incremental mode: bounds the windows held in memory. */
const EVENTS_AT_ONCE = 32;

export class LineEncoder {
  readonly #bundle: Bundle;
  readonly #encoder: HstuEncoder;
  readonly #tokenizer: Tokenizer;
  readonly #options: EncodeLinesOptions;

  constructor(bundle: Bundle, encoder: HstuEncoder, options: EncodeLinesOptions) {
    this.#bundle = bundle;
    this.#encoder = encoder;
    this.#tokenizer = new Tokenizer(bundle);
    this.#options = options;
  }

  /** One result a line, in order. A faulty line gives its fault, never an exception. */
  async encode(lines: readonly string[]): Promise<EncodedLine[]> {
    return Promise.all(lines.map((line, i) => this.#encodeLine(line, `line-${i}`)));
  }

  async #encodeLine(line: string, key: string): Promise<EncodedLine> {
    const prepared = this.#prepare(line);
    if ('fault' in prepared)
      return { ...(prepared.userId !== undefined && { userId: prepared.userId }), deadLetters: prepared.fault };
    // The cache is keyed by the line: two lines of one user are two histories.
    const rows = this.#options.mode === 'full' ? await this.#full(prepared, key) : await this.#incremental(prepared, key);
    await this.#encoder.forget(key);
    const embedding = rows.at(-1)!;
    return {
      userId: prepared.userId,
      embedding: [...embedding],
      topK: await this.#topK(embedding),
      ...(this.#options.rows && { rows: rows.map((row) => [...row]) }),
      ...(prepared.faults.length > 0 && { deadLetters: prepared.faults }),
    };
  }

  #prepare(line: string): Prepared | { readonly userId?: string; readonly fault: readonly LineFault[] } {
    const read = readLine(userLine, line);
    if ('fault' in read) return read;
    const { userId, events, queryTimeMs } = read.value;
    const { tokens, faults } = lineTokens(events, this.#tokenizer, this.#bundle.config.actions.encoded[0]!);
    if (tokens.length === 0) {
      const message = `no event can be encoded (of ${events.length})`;
      return { userId, fault: [...faults, { code: 'FIELD_INVALID', step: 'sequence', message }] };
    }
    const seconds = (ms: number) => Math.floor(ms / 1000);
    const each = tokens.flatMap(({ entity, second, timeMs }) =>
      second === undefined
        ? [[entity, timeMs]]
        : [
            [entity, timeMs],
            [second, timeMs],
          ],
    );
    return {
      userId,
      entities: Int32Array.from(each, ([token]) => token!),
      timesS: Float64Array.from(each, ([, timeMs]) => seconds(timeMs!)),
      tokensAnEvent: each.length / tokens.length,
      queryTimeS: seconds(queryTimeMs ?? tokens.at(-1)!.timeMs),
      faults,
    };
  }

  async #full(line: Prepared, key: string): Promise<Float32Array[]> {
    const segment = this.#windowOf(line, line.entities.length, line.queryTimeS);
    const [result] = await this.#encoder.encode([{ userId: key, segments: [{ ...segment, from: 0 }] }]);
    return this.#rowsOf(result!.segments[0]!.rows);
  }

  /** Row `i` is final once event `i + 1` is known; when the window slides, its rows start anew. */
  async #incremental(line: Prepared, key: string): Promise<Float32Array[]> {
    let rows: Float32Array[] = [];
    let windowStart = 0;
    const total = line.entities.length;
    const step = line.tokensAnEvent;
    for (let done = 0; done < total; done += step * EVENTS_AT_ONCE) {
      const segments: EncodeSegment[] = [];
      for (let n = done + step; n <= Math.min(total, done + step * EVENTS_AT_ONCE); n += step) {
        const window = this.#windowOf(line, n, n === total ? line.queryTimeS : line.timesS[n - 1]!);
        const slid = window.windowStart !== (segments.at(-1)?.windowStart ?? windowStart);
        segments.push({ ...window, from: slid ? 0 : Math.max(0, window.entities.length - step - 1) });
      }
      const [result] = await this.#encoder.encode([{ userId: key, segments }]);
      for (const [i, segment] of segments.entries()) {
        rows = [...(segment.from === 0 ? [] : rows.slice(0, segment.from)), ...this.#rowsOf(result!.segments[i]!.rows)];
        windowStart = segment.windowStart;
      }
    }
    return rows;
  }

  /** The block window after the first `n` tokens. */
  #windowOf({ entities, timesS }: Prepared, n: number, queryTimeS: number): EncodeSegment {
    const start = windowStartOf(n, this.#bundle.config.window);
    const window = { entities: entities.slice(start, n), timesS: timesS.slice(start, n) };
    return { windowStart: start, ...window, pageDigests: pageDigests(window.entities, window.timesS), from: 0, queryTimeS };
  }

  #rowsOf(flat: Float32Array): Float32Array[] {
    const { dimension } = this.#bundle.config;
    return Array.from({ length: flat.length / dimension }, (_, i) => flat.subarray(i * dimension, (i + 1) * dimension));
  }

  async #topK(embedding: Float32Array): Promise<{ entity: string; score: number }[]> {
    if (this.#options.topK === 0 || !servesRetrieval(this.#bundle.config)) return [];
    const nothing = new Int32Array(1);
    const request = { rows: embedding.slice(), targets: nothing, seen: nothing, seenCount: nothing, topK: this.#options.topK };
    const [result] = await this.#encoder.score([request]);
    return Array.from(result!.topEntities, (row, i) => ({ entity: this.#tokenizer.entityOf(row), score: result!.topScores[i]! }));
  }
}
