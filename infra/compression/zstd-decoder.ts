/** zstd, unpacked piece by piece: whatever a frame claims, no more is held than its window, which has a limit. */
import { ZSTDDecoder } from 'zstddec/stream';

/** Largest window of a frame: what the format's own decoder takes unless told otherwise. Level 22 writes such. */
export const MAX_WINDOW_BYTES = 2 ** 27;

/** What libzstd says by a negative answer: `ZSTD_ErrorCode` in its zstd_errors.h. */
const FAULTS: Readonly<Record<number, string>> = {
  10: 'it does not begin as zstd does',
  12: 'it is of a version of zstd before 0.8',
  14: 'its header asks for what zstd does not know',
  16: `its window is larger than ${MAX_WINDOW_BYTES} bytes; pack it without --long, or with --long=27 at most`,
  20: 'it is damaged',
  22: 'it is damaged: its checksum differs',
  32: 'it needs a dictionary',
  64: 'there is not enough memory for its window',
};

/** What is wrong with the bytes; whose they are, the reader says. */
export class ZstdFault extends Error {}

/** libzstd, as far as it is used here; numbers are addresses or lengths. */
interface Library {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly malloc: (bytes: number) => number;
  readonly free: (at: number) => void;
  readonly ZSTD_createDCtx: () => number;
  readonly ZSTD_freeDCtx: (context: number) => void;
  readonly ZSTD_decompressStream: (context: number, output: number, input: number) => number;
}

const INPUT_BYTES = 131_072;
/** A block's most: what the library can say at once. */
const OUTPUT_BYTES = 131_072;
/** `ZSTD_inBuffer` and `ZSTD_outBuffer`: address, size, position, each of 32 bits. */
const STRUCT_BYTES = 12;

/** The package keeps one stream, and does not look at what it answers; this keeps the library itself. */
class Loader extends ZSTDDecoder {
  library: Library | undefined;

  override _init(loaded: { readonly instance: { readonly exports: unknown } }): void {
    super._init(loaded as Parameters<ZSTDDecoder['_init']>[0]);
    this.library = loaded.instance.exports as Library;
  }

  async load(): Promise<Library> {
    // Called as a plain function by the package.
    this._init = this._init.bind(this);
    await this.init();
    return this.library!;
  }
}

let loading: Promise<Library> | undefined;

/** A stream of zstd frames, one after another; skippable frames give nothing. */
export class ZstdDecoder {
  readonly #library: Library;
  readonly #context: number;
  readonly #buffers: number;
  #open = true;
  /** Whether a frame has begun and not ended. */
  #inFrame = false;

  private constructor(library: Library) {
    this.#library = library;
    this.#context = library.ZSTD_createDCtx();
    this.#buffers = library.malloc(2 * STRUCT_BYTES + INPUT_BYTES + OUTPUT_BYTES);
  }

  static async open(): Promise<ZstdDecoder> {
    loading ??= new Loader().load();
    return new ZstdDecoder(await loading);
  }

  /**
   * What these bytes give, in pieces of at most 128 KiB, each a copy. All of it has to be taken before the next bytes come.
   *
   * @throws ZstdFault
   */
  *push(bytes: Uint8Array): Generator<Buffer> {
    const input = this.#buffers;
    const output = input + STRUCT_BYTES;
    const source = output + STRUCT_BYTES;
    const target = source + INPUT_BYTES;
    for (let from = 0; from < bytes.length; from += INPUT_BYTES) {
      const part = bytes.subarray(from, from + INPUT_BYTES);
      new Uint8Array(this.#library.memory.buffer).set(part, source);
      this.#write(input, source, part.length);
      for (let more = true; more; ) {
        this.#write(output, target, OUTPUT_BYTES);
        const answer = this.#library.ZSTD_decompressStream(this.#context, output, input);
        if (answer < 0) throw new ZstdFault(FAULTS[-answer] ?? `zstd's fault ${-answer}`);
        this.#inFrame = answer !== 0;
        const written = this.#positionOf(output);
        if (written > 0) yield Buffer.from(new Uint8Array(this.#library.memory.buffer, target, written));
        // A full output may hold something back, unless the frame is over.
        more = this.#positionOf(input) < part.length || (written === OUTPUT_BYTES && this.#inFrame);
      }
    }
  }

  /** @throws ZstdFault when bytes are missing */
  end(): void {
    if (this.#inFrame) throw new ZstdFault('it is cut off: its last frame does not end');
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#library.ZSTD_freeDCtx(this.#context);
    this.#library.free(this.#buffers);
  }

  #write(struct: number, address: number, size: number): void {
    const view = new DataView(this.#library.memory.buffer);
    view.setUint32(struct, address, true);
    view.setUint32(struct + 4, size, true);
    view.setUint32(struct + 8, 0, true);
  }

  #positionOf(struct: number): number {
    return new DataView(this.#library.memory.buffer).getUint32(struct + 8, true);
  }
}
