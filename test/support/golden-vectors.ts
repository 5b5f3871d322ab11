/** The golden vectors of a folder: `NAME.json` (configuration, cases) with `NAME.safetensors` (the weights) beside it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readSafetensors, type TensorMap } from '../../models/hstu/safetensors.ts';

export interface ResearchCase {
  /** Entity rows, oldest first: `(n,)`. */
  readonly ids: readonly number[];
  /** Seconds: `(n,)`. */
  readonly timestamps: readonly number[];
  readonly queryTime: number;
  /** `(n, D)` */
  readonly rows: readonly (readonly number[])[];
  readonly top10: readonly number[];
  readonly top10Scores: readonly number[];
}

export interface GoldenVectors {
  /** File name without its ending, from the folder on. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly cases: readonly ResearchCase[];
  readonly architecture: 'research' | 'stu' | 'unknown';
  /** Missing where the weights are not there. */
  readonly weights: string | undefined;
}

/** The folder named by `GOLDEN_DIR`, else `test/golden`. */
export const goldenFolder = (): string =>
  resolve(process.env['GOLDEN_DIR'] || fileURLToPath(new URL('../golden', import.meta.url)));

/** Every `*.json` of the folder and its sub-folders, in name order. Empty for a folder that is not there. */
export function goldenVectors(folder = goldenFolder()): GoldenVectors[] {
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.json'));
  return files.sort().map((file) => {
    const { config = {}, cases = [] } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Partial<GoldenVectors>;
    const weights = join(folder, file.replace(/json$/, 'safetensors'));
    return {
      name: relative(folder, weights).replace(/\.safetensors$/, ''),
      config,
      cases,
      architecture: 'item_embedding_dim' in config ? 'research' : 'D' in config ? 'stu' : 'unknown',
      weights: existsSync(weights) ? weights : undefined,
    };
  });
}

export const goldenTensors = (file: string): TensorMap => readSafetensors(readFileSync(file), file);
