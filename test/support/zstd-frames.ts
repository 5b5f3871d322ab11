/** zstd frames written by hand (RFC 8878): what no compressor at hand writes. */

export interface FrameOptions {
  /** Base-2 logarithm of the window that the header asks for. @default 20 */
  readonly windowLog?: number;
  /** Content size that the header claims; without it the header says none, as Java's producer writes it. */
  readonly claims?: bigint;
}

const MAGIC = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);
/** Most that a block may hold. */
export const BLOCK_BYTES = 131_072;

/** A frame of blocks that repeat one byte: four bytes a block. */
export function repeatedByte(byte: number, blocks: number, options: FrameOptions = {}): Buffer {
  const parts = Array.from({ length: blocks }, (_, i) =>
    Buffer.concat([blockHeader(1, BLOCK_BYTES, i === blocks - 1), Uint8Array.of(byte)]),
  );
  return Buffer.concat([header(options), ...parts]);
}

/** A frame of blocks as they are. */
export function stored(blocks: readonly Uint8Array[], options: FrameOptions = {}): Buffer {
  const parts = blocks.flatMap((block, i) => [blockHeader(0, block.length, i === blocks.length - 1), block]);
  return Buffer.concat([header(options), ...parts]);
}

export function skippable(content: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a53, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}

function header({ windowLog = 20, claims }: FrameOptions): Buffer {
  const window = Uint8Array.of((windowLog - 10) << 3);
  if (claims === undefined) return Buffer.concat([MAGIC, Uint8Array.of(0), window]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(claims);
  return Buffer.concat([MAGIC, Uint8Array.of(0b1100_0000), window, size]);
}

function blockHeader(type: 0 | 1, size: number, last: boolean): Buffer {
  const bytes = Buffer.alloc(3);
  bytes.writeUIntLE((size << 3) | (type << 1) | (last ? 1 : 0), 0, 3);
  return bytes;
}
