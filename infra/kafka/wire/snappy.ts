/** Snappy, raw and in the framing of Java's client; how much comes out is read before any room is made. */
import { BatchFault } from './batch-fault.ts';

/** Begins a stream of xerial's snappy-java: magic, version, compatible version; then blocks, each after its length of 32 bits. */
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const XERIAL_HEADER_BYTES = 16;

/** @throws BatchFault */
export function unpackSnappy(bytes: Buffer, maxBytes: number): Buffer {
  const blocks = bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC) ? xerialBlocks(bytes) : [bytes];
  let total = 0;
  const lengths = blocks.map((block) => {
    const length = lengthOf(block);
    total += length.value;
    if (total > maxBytes) throw new BatchFault('too-large', `snappy says that it unpacks to ${total} bytes or more`);
    return length;
  });
  const output = Buffer.allocUnsafeSlow(total);
  let at = 0;
  for (const [i, block] of blocks.entries()) {
    const { value, end } = lengths[i]!;
    unpackBlock(block, end, output, at, at + value);
    at += value;
  }
  return output;
}

function xerialBlocks(bytes: Buffer): Buffer[] {
  const blocks: Buffer[] = [];
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    if (at + 4 > bytes.length) throw cutOff();
    const length = bytes.readUInt32BE(at);
    at += 4;
    if (length > bytes.length - at) throw cutOff();
    blocks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return blocks;
}

/** The length of what comes out: a varint of at most 32 bits, in front of each block. */
function lengthOf(block: Buffer): { readonly value: number; readonly end: number } {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = block[i];
    if (byte === undefined) break;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, end: i + 1 };
  }
  throw new BatchFault('malformed', 'snappy without a length');
}

/** Elements: a literal, or a copy of what came out before (format_description.txt of google/snappy). */
function unpackBlock(input: Buffer, from: number, output: Buffer, start: number, end: number): void {
  let at = from;
  let to = start;
  while (at < input.length) {
    const tag = input[at++]!;
    const kind = tag & 3;
    let length: number;
    let distance: number;
    if (kind === 0) {
      length = tag >>> 2;
      if (length >= 60) {
        const bytes = length - 59;
        if (at + bytes > input.length) throw cutOff();
        length = input.readUIntLE(at, bytes);
        at += bytes;
      }
      length += 1;
      if (at + length > input.length) throw cutOff();
      if (to + length > end) throw longer();
      input.copy(output, to, at, at + length);
      at += length;
      to += length;
      continue;
    }
    if (kind === 1) {
      if (at + 1 > input.length) throw cutOff();
      length = ((tag >>> 2) & 7) + 4;
      distance = ((tag >>> 5) << 8) | input[at++]!;
    } else {
      const bytes = kind === 2 ? 2 : 4;
      if (at + bytes > input.length) throw cutOff();
      length = (tag >>> 2) + 1;
      distance = input.readUIntLE(at, bytes);
      at += bytes;
    }
    if (distance === 0 || distance > to - start) throw new BatchFault('malformed', 'snappy copies from before its beginning');
    if (to + length > end) throw longer();
    if (distance >= length) output.copyWithin(to, to - distance, to - distance + length);
    else for (let i = 0; i < length; i++) output[to + i] = output[to + i - distance]!;
    to += length;
  }
  if (to !== end) throw new BatchFault('malformed', `snappy gave ${to - start} bytes, and says ${end - start}`);
}

const cutOff = () => new BatchFault('malformed', 'snappy is cut off');
const longer = () => new BatchFault('malformed', 'snappy gives more than it says');
