/**
 * Sizes that runs on the GPU are padded to: 4, 8, 12, 16, 24, 32, 48, 64, 96, … A driver compiles some kernels per shape, and
 * multiples of four let it read vectors; padding costs the GPU little, for rows of zeros add nothing.
 */
export function roundUp(count: number): number {
  let size = 4;
  while (size < count) size = size < 8 || (size & (size - 1)) !== 0 ? nextPowerOfTwo(size) : size * 1.5;
  return size;
}

const nextPowerOfTwo = (size: number): number => 2 ** (Math.floor(Math.log2(size)) + 1);
