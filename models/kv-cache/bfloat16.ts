/**
 * K and V in 16 bits: the upper half of a float32 (8 bits of exponent, 7 of fraction), rounded to the nearest, ties to even.
 *
 * Numbers lie in groups of eight: of each pair of 16 bits the first is number `i`, the second number `4 + i`. The kernel then widens
 * four at once by a shift, and the other four by a mask.
 */

/** Numbers that a head's width must be a multiple of. */
export const BFLOAT16_GROUP = 8;

/** Where number `i` of a group lies. */
const PLACES = [0, 2, 4, 6, 1, 3, 5, 7] as const;

/** Stores `width` numbers of `bits`, float32 seen as integers, from `from`, at `at`. */
export function packRow(target: Uint16Array, at: number, bits: Uint32Array, from: number, width: number): void {
  for (let group = 0; group < width; group += BFLOAT16_GROUP)
    for (let i = 0; i < BFLOAT16_GROUP; i++) target[at + group + PLACES[i]!] = rounded(bits[from + group + i]!);
}

/** The numbers of whole groups as float32. */
export function unpack(packed: Uint16Array): Float32Array {
  const bits = new Uint32Array(packed.length);
  for (let group = 0; group < packed.length; group += BFLOAT16_GROUP)
    for (let i = 0; i < BFLOAT16_GROUP; i++) bits[group + i] = packed[group + PLACES[i]!]! << 16;
  return new Float32Array(bits.buffer);
}

/** What is no number stays none. */
function rounded(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
