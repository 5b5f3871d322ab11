/** A model bundle in memory: loaded whole, checked whole, identified by a digest of its content. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseBoundedJson } from '../../schemas/bounded-json.ts';
import { type BundleConfig, bundleConfigSchema } from '../../schemas/bundle-config.ts';
import { describeIssues } from '../../schemas/describe-issues.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import type { CatalogueOverlay } from '../catalogue/overlay.ts';
import type { KvShape } from '../kv-cache/extent.ts';
import { judgeCacheability } from './cacheability.ts';
import { expectedTensors } from './expected-tensors.ts';
import { readSafetensors, sizeOf, type TensorMap, writeSafetensors } from './safetensors.ts';
import { TIME_BUCKETS } from './time-buckets.ts';

export const BUNDLE_FILES = ['config.json', 'model.safetensors', 'entities.txt'] as const;

/** What a bundle's folder holds of it. */
export const bundleFiles = (folder: string): string[] => BUNDLE_FILES.map((file) => join(folder, file));

export interface Bundle {
  readonly config: BundleConfig;
  readonly tensors: TensorMap;
  /** External ids; entry `r - 1` is embedding row `r`. */
  readonly entities: readonly string[];
  /** SHA-256 over the three files, 64 hexadecimal digits: the model's identity. */
  readonly digest: string;
  /** What the catalogue has become since; not part of the folder. @default as the model was trained */
  readonly catalogue?: CatalogueOverlay;
}

/**
 * Loads a bundle from its folder.
 *
 * @throws PipelineError `BUNDLE_INVALID` that names every problem found: missing files, schema, missing or extra tensors,
 *   shapes, dtypes, NaN or infinity, vocabulary length, duplicate entities
 */
export async function loadBundle(folder: string): Promise<Bundle> {
  const [configBytes, modelBytes, entityBytes] = (await Promise.all(BUNDLE_FILES.map((file) => readPart(folder, file)))) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  const config = parseBundleConfig(configBytes.toString('utf8'), join(folder, 'config.json'));
  const tensors = readSafetensors(modelBytes, join(folder, 'model.safetensors'));
  const entities = entityBytes.toString('utf8').replace(/\n$/, '').split('\n');
  const problems = [...tensorProblems(config, tensors), ...entityProblems(config, entities), ...unsupported(config)];
  if (problems.length > 0) {
    throw new PipelineError('BUNDLE_INVALID', `bundle ${folder} has ${problems.length} problem(s):\n  ${problems.join('\n  ')}`);
  }
  return { config, tensors, entities, digest: digestOf([configBytes, modelBytes, entityBytes]) };
}

/** Writes a bundle's three files, and only then gives them their names; `config` is checked first. */
export async function writeBundle(folder: string, bundle: Omit<Bundle, 'digest' | 'catalogue'>): Promise<void> {
  const config = parseBundleConfig(JSON.stringify(bundle.config), `${folder}/config.json`);
  const contents = [
    `${JSON.stringify(config, null, 2)}\n`,
    writeSafetensors(bundle.tensors),
    `${bundle.entities.join('\n')}\n`,
  ] as const;
  const files = bundleFiles(folder).map((path, i) => ({ path, draft: `${path}.${process.pid}.partial`, content: contents[i]! }));
  try {
    await mkdir(folder, { recursive: true });
    for (const { draft, content } of files) await writeFile(draft, content);
    for (const { draft, path } of files) await rename(draft, path);
  } catch (cause) {
    await Promise.allSettled(files.map(({ draft }) => rm(draft, { force: true })));
    throw new PipelineError('CONFIG_INVALID', `cannot write a bundle to ${folder}: ${messageOf(cause)}`, { cause });
  }
}

/** Bundle of a model in memory, for tests and benchmarks: checked like a loaded one. */
export function makeBundle(parts: Omit<Bundle, 'digest'>): Bundle {
  const config = parseBundleConfig(JSON.stringify(parts.config), 'bundle');
  const problems = [...tensorProblems(config, parts.tensors), ...entityProblems(config, parts.entities), ...unsupported(config)];
  if (problems.length > 0) throw new PipelineError('BUNDLE_INVALID', problems.join('; '));
  const encode = (text: string) => new TextEncoder().encode(text);
  const digest = digestOf([encode(JSON.stringify(config)), writeSafetensors(parts.tensors), encode(parts.entities.join('\n'))]);
  return { ...parts, config, digest };
}

/** K and V of one row, all layers, bytes; of a bundle's shape as computed. */
export const kvBytesPerRow = ({ layers, heads, dqk, dv, precision }: KvShape): number =>
  (precision === 'bfloat16' ? 2 : 4) * layers * heads * (dqk + dv);

function parseBundleConfig(text: string, origin: string): BundleConfig {
  let json: unknown;
  try {
    json = parseBoundedJson(text);
  } catch (cause) {
    throw new PipelineError('BUNDLE_INVALID', `${origin}: not JSON: ${messageOf(cause)}`, { cause });
  }
  const parsed = bundleConfigSchema.safeParse(json);
  if (!parsed.success)
    throw new PipelineError('BUNDLE_INVALID', [`${origin}:`, ...describeIssues(parsed.error, json)].join('\n'));
  return parsed.data;
}

async function readPart(folder: string, file: string): Promise<Buffer> {
  try {
    return await readFile(join(folder, file));
  } catch (cause) {
    const isFolder = await stat(folder).then(
      (found) => found.isDirectory(),
      () => false,
    );
    const problem = isFolder ? `has no readable ${file}` : 'is not a folder';
    throw new PipelineError(
      'BUNDLE_INVALID',
      `bundle ${folder} ${problem}; a bundle is a folder with ${BUNDLE_FILES.join(', ')}`,
      { cause },
    );
  }
}

function tensorProblems(config: BundleConfig, tensors: TensorMap): string[] {
  const expected = expectedTensors(config);
  const problems: string[] = [];
  for (const [name, shape] of expected) {
    const found = tensors.get(name);
    if (found === undefined) problems.push(`tensor ${name} is missing (expected shape [${shape}])`);
    else if (found.shape.join() !== shape.join()) problems.push(`tensor ${name} has shape [${found.shape}], expected [${shape}]`);
    else if (found.data.length !== sizeOf(shape))
      problems.push(`tensor ${name} holds ${found.data.length} values, expected ${sizeOf(shape)}`);
    else {
      const bad = found.data.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) problems.push(`tensor ${name} holds ${found.data[bad]} at index ${bad}; every value must be finite`);
    }
  }
  for (const name of tensors.keys()) if (!expected.has(name)) problems.push(`tensor ${name} is not part of this architecture`);
  return problems;
}

function entityProblems(config: BundleConfig, entities: readonly string[]): string[] {
  const problems: string[] = [];
  if (entities.length !== config.vocabularySize)
    problems.push(`entities.txt has ${entities.length} lines, vocabularySize is ${config.vocabularySize}`);
  const seen = new Map<string, number>();
  for (const [i, entity] of entities.entries()) {
    const earlier = seen.get(entity);
    if (entity === '') problems.push(`entities.txt line ${i + 1} is empty`);
    else if (earlier !== undefined) problems.push(`entities.txt line ${i + 1} repeats '${entity}' of line ${earlier}`);
    seen.set(entity, i + 1);
    if (problems.length > 20) return [...problems, '…'];
  }
  return problems;
}

/** What the schema or the lint lets pass but this architecture cannot compute. */
function unsupported(config: BundleConfig): string[] {
  const { reasons } = judgeCacheability(config);
  const thresholds = config.timeBucketThresholds.length;
  const tooMany = `${thresholds} timeBucketThresholds, at most ${TIME_BUCKETS - 1}: a time bias has ${TIME_BUCKETS} buckets`;
  const notComputed = [
    config.tokenTime !== 'none' &&
      `tokenTime '${config.tokenTime}': architecture ${config.architecture} has no time in its token input`,
    config.divisor !== 'constant' &&
      `divisor '${config.divisor}': architecture ${config.architecture} divides by its constant ${config.stu ? 'divisor' : 'padded length'}`,
    config.normalization !== 'per-token' &&
      `normalization '${config.normalization}': architecture ${config.architecture} normalises each token`,
  ]
    .filter((problem) => problem !== false)
    .map((problem) => `${problem} (${reasons.join('; ')})`);
  return thresholds < TIME_BUCKETS ? notComputed : [tooMany, ...notComputed];
}

function digestOf(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.byteLength}:`).update(part);
  return hash.digest('hex');
}
