/** An event of a user whom memory had no room for: encoded anew, or read back from a disk. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { kvBytesPerRow } from '../models/hstu/bundle.ts';
import { randomBundle } from '../models/hstu/random-bundle.ts';
import { measureEncoder, measureReturn } from '../streams/measure-encoder.ts';

export interface DiskFigure {
  readonly D: number;
  readonly L: number;
  /** Events of the window. */
  readonly n: number;
  /** K and V of a user, bytes. */
  readonly userBytes: number;
  /** Its rows are in memory, of a micro-batch of 32; for comparison. */
  readonly stepUs: number;
  /** Nothing of it is held. */
  readonly prefillUs: number;
  /** Its rows are on disk, and another user has to go there. */
  readonly returnUs: number;
  /** `prefillUs / returnUs` */
  readonly ratio: number;
}

const SHAPES = [
  { D: 64, L: 2, n: 200 },
  { D: 64, L: 4, n: 1000 },
  { D: 256, L: 8, n: 1000 },
] as const;
export const DISK_FIGURES = SHAPES.length;
const FOLDER = join(fileURLToPath(new URL('..', import.meta.url)), '.hstu/bench/disk');

export async function benchDisk(onProgress: (done: number, label: string) => void): Promise<DiskFigure[]> {
  const figures: DiskFigure[] = [];
  for (const { D, L, n } of SHAPES) {
    onProgress(figures.length, `D ${D}, L ${L}, n ${n}`);
    const bundle = randomBundle({ dimension: D, layers: L, heads: D === 64 ? 2 : 4, maxSequenceLength: n });
    const { stepUs, prefillUs } = await measureEncoder(bundle, 'float32');
    const returnUs = await measureReturn(bundle, 'float32', FOLDER);
    const userBytes = n * kvBytesPerRow(bundle.config);
    figures.push({ D, L, n, userBytes, stepUs, prefillUs, returnUs, ratio: prefillUs / returnUs });
  }
  return figures;
}
