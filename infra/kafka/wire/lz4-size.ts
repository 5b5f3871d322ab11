/** What an LZ4 frame unpacks to, without unpacking it: what bounds the library that does, before it makes room. */
import { BatchFault } from './batch-fault.ts';

const MAGIC = 0x184d2204;
const SKIPPABLE = 0x184d2a50;
/** By the code of a frame's descriptor: the most that one block gives. */
const BLOCK_BYTES: Readonly<Record<number, number>> = { 4: 2 ** 16, 5: 2 ** 18, 6: 2 ** 20, 7: 2 ** 22 };

/**
 * The bytes that the frames give, or an upper bound of them where that is at most `maxBytes` (lz4_Frame_format.md, lz4_Block_format.md
 * of lz4/lz4).
 *
 * @throws BatchFault for what is no frame, or cut off
 */
export function lz4Size(bytes: Buffer, maxBytes: number): number {
  const blocks = [...blocksOf(bytes)];
  const bound = blocks.reduce((sum, { most }) => sum + most, 0);
  if (bound <= maxBytes) return bound;
  return blocks.reduce((sum, { from, to, packed }) => sum + (packed ? blockSize(bytes, from, to) : to - from), 0);
}

interface Block {
  readonly from: number;
  readonly to: number;
  readonly packed: boolean;
  /** The most that it gives. */
  readonly most: number;
}

function* blocksOf(bytes: Buffer): Generator<Block> {
  let at = 0;
  const need = (count: number) => {
    if (at + count > bytes.length) throw new BatchFault('malformed', 'an LZ4 frame is cut off');
  };
  while (at < bytes.length) {
    need(8);
    const magic = bytes.readUInt32LE(at);
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
      at += 8 + bytes.readUInt32LE(at + 4);
      continue;
    }
    if (magic !== MAGIC) throw new BatchFault('malformed', 'no LZ4 frame');
    const flags = bytes[at + 4]!;
    const most = BLOCK_BYTES[(bytes[at + 5]! >>> 4) & 7];
    if (flags >>> 6 !== 1 || most === undefined) throw new BatchFault('malformed', 'an LZ4 frame of another version');
    at += 6 + (flags & 8 ? 8 : 0) + (flags & 1 ? 4 : 0) + 1;
    for (;;) {
      need(4);
      const size = bytes.readUInt32LE(at);
      at += 4;
      if (size === 0) break;
      const length = size & 0x7fffffff;
      need(length);
      yield { from: at, to: at + length, packed: size < 0x80000000, most };
      at += length + (flags & 16 ? 4 : 0);
    }
    if (flags & 4) at += 4;
  }
}

/** Sums what the sequences of a block say: literals, and copies. */
function blockSize(bytes: Buffer, from: number, to: number): number {
  let at = from;
  let size = 0;
  /** @returns what the bytes after a nibble of 15 add */
  const rest = (): number => {
    let sum = 0;
    for (let byte = 255; byte === 255; ) {
      if (at >= to) throw new BatchFault('malformed', 'an LZ4 block is cut off');
      byte = bytes[at++]!;
      sum += byte;
    }
    return sum;
  };
  while (at < to) {
    const token = bytes[at++]!;
    let literals = token >>> 4;
    if (literals === 15) literals += rest();
    at += literals;
    size += literals;
    // The last sequence has literals alone.
    if (at >= to) break;
    at += 2;
    let copied = (token & 15) + 4;
    if (copied === 19) copied += rest();
    size += copied;
  }
  return size;
}
