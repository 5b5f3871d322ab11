import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUNDLE_FILES, type Bundle, kvBytesPerRow, loadBundle, makeBundle, writeBundle } from '../../../models/hstu/bundle.ts';
import { expectedTensors } from '../../../models/hstu/expected-tensors.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { Tensor } from '../../../models/hstu/safetensors.ts';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { messageOf, PipelineError } from '../../../schemas/errors.ts';

const good = randomBundle({ dimension: 4, layers: 1, heads: 2, maxSequenceLength: 8, vocabularySize: 5 });
let root: string;
let folders = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'hstu-bundle-'));
});
afterAll(() => rm(root, { recursive: true }));

/** The good bundle on disk, in a folder of its own. */
async function onDisk(): Promise<string> {
  const folder = join(root, `${++folders}`);
  await writeBundle(folder, good);
  return folder;
}

type Config = Record<string, unknown>;
interface Change {
  readonly config?: (config: Config) => Config;
  /** Replaces the text of `config.json`. */
  readonly configText?: string;
  readonly tensors?: (tensors: Map<string, Tensor>) => void;
  readonly model?: (bytes: Uint8Array) => Uint8Array;
  readonly entities?: (text: string) => string;
  readonly without?: string;
}

async function changed(change: Change): Promise<string> {
  const folder = await onDisk();
  if (change.tensors !== undefined) {
    const tensors = new Map(good.tensors);
    change.tensors(tensors);
    await writeBundle(folder, { ...good, tensors });
  }
  const edit = async (file: string, to: (bytes: Buffer) => string | Uint8Array) =>
    writeFile(join(folder, file), to(await readFile(join(folder, file))));
  const { config, configText, model, entities, without } = change;
  if (config !== undefined) await edit('config.json', (bytes) => JSON.stringify(config(JSON.parse(`${bytes}`) as Config)));
  if (configText !== undefined) await edit('config.json', () => configText);
  if (model !== undefined) await edit('model.safetensors', model);
  if (entities !== undefined) await edit('entities.txt', (bytes) => entities(`${bytes}`));
  if (without !== undefined) await rm(join(folder, without));
  return folder;
}

/** The message of the refusal, folder left out. */
async function refusal(folder: string): Promise<string> {
  const outcome = await loadBundle(folder).then(
    () => 'loaded',
    (error: unknown) => {
      expect(error).toBeInstanceOf(PipelineError);
      expect(error).toMatchObject({ code: 'BUNDLE_INVALID', exitCode: 2, retriable: false });
      return messageOf(error);
    },
  );
  return outcome.replaceAll(folder, 'FOLDER');
}

const tensor = (shape: readonly number[], value = 0): Tensor => ({
  shape,
  data: new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value),
});
/** The header's text with one part replaced by another of the same length. */
const inHeader = (from: string, to: string) => (bytes: Uint8Array) => {
  expect(from.length).toBe(to.length);
  const text = Buffer.from(bytes).toString('latin1');
  expect(text).toContain(from);
  return Buffer.from(text.replace(from, to), 'latin1');
};
const poisoned = (name: string, index: number, value: number) => (tensors: Map<string, Tensor>) => {
  const { shape, data } = tensors.get(name)!;
  tensors.set(name, { shape, data: data.with(index, value) });
};

describe('loadBundle refuses, and says why', () => {
  it.each<[string, Change, string[]]>([
    [
      'a missing config.json',
      { without: 'config.json' },
      ['bundle FOLDER has no readable config.json; a bundle is a folder with config.json, model.safetensors, entities.txt'],
    ],
    ['missing weights', { without: 'model.safetensors' }, ['bundle FOLDER has no readable model.safetensors']],
    ['a missing vocabulary', { without: 'entities.txt' }, ['bundle FOLDER has no readable entities.txt']],
    ['a configuration that is not JSON', { configText: '{"format": ' }, ['FOLDER/config.json: not JSON: ']],
    [
      'a configuration that is not an object',
      { configText: '[]' },
      ['FOLDER/config.json:', '(root): Invalid input: expected object'],
    ],
    [
      'numbers that no model has, before anything of their size is made',
      {
        config: (config) => ({ ...config, layers: 1_000_000_000, heads: 2 ** 31, dimension: 65_537, paddedLength: 2 ** 40 }),
      },
      [
        'dimension: Too big: expected number to be <=65536 (found: 65537)',
        'layers: Too big: expected number to be <=1024 (found: 1000000000)',
        'heads: Too big: expected number to be <=1024 (found: 2147483648)',
        'paddedLength: Too big: expected number to be <=1048576 (found: 1099511627776)',
      ],
    ],
    [
      'a configuration that is nested as no stack takes',
      { config: (config) => ({ ...config, training: { deep: JSON.parse(`${'['.repeat(300)}${']'.repeat(300)}`) } }) },
      ['FOLDER/config.json: not JSON: nested more than 256 deep'],
    ],
    ['a configuration of open brackets', { configText: '{"a":'.padEnd(200_000, '[') }, ['nested more than 256 deep']],
    [
      'every fault of the schema at once',
      { config: ({ name: _, ...rest }) => ({ ...rest, heads: 0, dqk: 1.5, outputNorm: 'cosine', surprise: 1 }) },
      [
        'name: Invalid input: expected string, received undefined (found: missing)',
        'heads: Too small: expected number to be >0 (found: 0)',
        'dqk: Invalid input: expected int, received number (found: 1.5)',
        'outputNorm: Invalid option: expected one of "l2"|"layernorm"|"none" (found: "cosine")',
        '(root): no such key: surprise',
      ],
    ],
    [
      'another format',
      { config: (config) => ({ ...config, format: 'hstu-bundle/2' }) },
      ['format: Invalid input: expected "hstu-bundle/1" (found: "hstu-bundle/2")'],
    ],
    [
      'windows that do not fit, all at once',
      { config: (config) => ({ ...config, window: { maxLength: 9, blockLength: 10 }, paddedLength: 7 }) },
      [
        'window: maxLength 9 exceeds maxSequenceLength 8',
        'window: blockLength 10 exceeds maxLength 9',
        'maxSequenceLength: 8 exceeds paddedLength 7',
      ],
    ],
    [
      'decreasing thresholds',
      { config: (config) => ({ ...config, timeBucketThresholds: [2, 5, 3] }) },
      ['timeBucketThresholds: must not decrease: entry 2 is 3 after 5'],
    ],
    [
      'a time bias without thresholds',
      { config: (config) => ({ ...config, timeBucketThresholds: [] }) },
      ['timeBucketThresholds: must not be empty when timeBias is true'],
    ],
    [
      'more thresholds than the tables have buckets',
      { config: (config) => ({ ...config, timeBucketThresholds: Array.from({ length: 129 }, (_, i) => i + 2) }) },
      ['129 timeBucketThresholds, at most 128: a time bias has 129 buckets'],
    ],
    [
      'an action both encoded and skipped',
      { config: (config) => ({ ...config, actions: { encoded: ['view'], skipped: ['view'] } }) },
      ["actions: 'view' is both encoded and skipped"],
    ],
    [
      'a missing tensor',
      { tensors: (tensors) => void tensors.delete('layers.0.uvqk') },
      ['has 1 problem(s):', 'tensor layers.0.uvqk is missing (expected shape [4,16])'],
    ],
    [
      'a tensor too many',
      { tensors: (tensors) => void tensors.set('layers.1.uvqk', tensor([4, 16])) },
      ['tensor layers.1.uvqk is not part of this architecture'],
    ],
    [
      'another shape',
      { tensors: (tensors) => void tensors.set('layers.0.output_bias', tensor([5])) },
      ['tensor layers.0.output_bias has shape [5], expected [4]'],
    ],
    [
      'a transposed weight',
      { tensors: (tensors) => void tensors.set('layers.0.uvqk', tensor([16, 4])) },
      ['tensor layers.0.uvqk has shape [16,4], expected [4,16]'],
    ],
    [
      'half precision',
      { model: inHeader('"dtype":"F32"', '"dtype":"F16"') },
      ['FOLDER/model.safetensors: tensor entity_embedding: dtype F16, allowed: F32'],
    ],
    [
      'double precision',
      { model: inHeader('"dtype":"F32"', '"dtype":"F64"') },
      ['tensor entity_embedding: dtype F64, allowed: F32'],
    ],
    [
      'NaN',
      { tensors: poisoned('layers.0.time_bias', 7, Number.NaN) },
      ['tensor layers.0.time_bias holds NaN at index 7; every value must be finite'],
    ],
    [
      'infinity',
      { tensors: poisoned('entity_embedding', 9, Number.POSITIVE_INFINITY) },
      ['tensor entity_embedding holds Infinity at index 9; every value must be finite'],
    ],
    [
      'minus infinity',
      { tensors: poisoned('entity_embedding', 9, Number.NEGATIVE_INFINITY) },
      ['tensor entity_embedding holds -Infinity at index 9'],
    ],
    [
      'a vocabulary of another length',
      { entities: (text) => `${text}item:6\n` },
      ['entities.txt has 6 lines, vocabularySize is 5'],
    ],
    ['a vocabulary cut short', { entities: () => 'item:1\n' }, ['entities.txt has 1 lines, vocabularySize is 5']],
    [
      'a repeated entity',
      { entities: (text) => text.replace('item:4', 'item:2') },
      ["entities.txt line 4 repeats 'item:2' of line 2"],
    ],
    ['an empty entity', { entities: (text) => text.replace('item:3', '') }, ['entities.txt line 3 is empty']],
    [
      'a token time it cannot compute',
      { config: (config) => ({ ...config, tokenTime: 'query-relative' }) },
      ["tokenTime 'query-relative': architecture hstu-research has no time in its token input"],
    ],
    [
      'a divisor it cannot compute',
      { config: (config) => ({ ...config, divisor: 'batch-max' }) },
      ["divisor 'batch-max': architecture hstu-research divides by its constant padded length"],
    ],
    [
      'a normalisation it cannot compute',
      { config: (config) => ({ ...config, normalization: 'batch' }) },
      ["normalization 'batch': architecture hstu-research normalises each token"],
    ],
    [
      'everything that is wrong, in one message',
      {
        tensors: (tensors) => {
          tensors.delete('position_embedding');
          tensors.set('left over', tensor([1]));
        },
        entities: (text) => text.replace('item:4', 'item:2'),
      },
      ['has 3 problem(s):', 'tensor position_embedding is missing', 'tensor left over is not part', "repeats 'item:2'"],
    ],
  ])('%s', async (_, change, messages) => {
    const message = await refusal(await changed(change));
    for (const part of messages) expect(message).toContain(part);
  });

  it('a path that is not a folder', async () => {
    expect(await refusal(join(root, 'nowhere'))).toBe(
      'bundle FOLDER is not a folder; a bundle is a folder with config.json, model.safetensors, entities.txt',
    );
    const file = join(root, 'a file');
    await writeFile(file, 'x');
    expect(await refusal(file)).toContain('bundle FOLDER is not a folder');
  });
});

describe('a bundle', () => {
  it('is read as it was written', async () => {
    const loaded = await loadBundle(await onDisk());
    expect({ ...loaded, digest: '' }).toEqual({ ...good, digest: '' });
    expect(loaded.digest).toMatch(/^[0-9a-f]{64}$/);
  });

  it('comes through a round trip whatever its switches', async () => {
    const switches = fc.record({
      timeBias: fc.boolean(),
      positionBias: fc.boolean(),
      concatUa: fc.boolean(),
      outputNorm: fc.constantFrom('l2' as const, 'layernorm' as const),
      positions: fc.constantFrom('from-start' as const, 'from-end' as const, 'none' as const),
      dqk: fc.integer({ min: 1, max: 5 }),
      dv: fc.integer({ min: 1, max: 5 }),
    });
    const property = fc.asyncProperty(switches, async (options) => {
      const bundle = randomBundle({ dimension: 4, layers: 2, heads: 2, maxSequenceLength: 8, vocabularySize: 3, ...options });
      const folder = join(root, `${++folders}`);
      await writeBundle(folder, bundle);
      const loaded = await loadBundle(folder);
      expect({ ...loaded, digest: '' }).toEqual({ ...bundle, digest: '' });
      expect([...loaded.tensors.keys()].sort()).toEqual([...expectedTensors(bundle.config).keys()].sort());
    });
    await fc.assert(property, { numRuns: 25 });
  });

  it('is another model when any bit of any file changes', async () => {
    const folder = await onDisk();
    const { digest } = await loadBundle(folder);
    expect((await loadBundle(folder)).digest).toBe(digest);
    const property = fc.asyncProperty(fc.constantFrom(...BUNDLE_FILES), fc.nat(), fc.nat(7), async (file, where, bit) => {
      const bytes = await readFile(join(folder, file));
      const damaged = Buffer.from(bytes);
      damaged[where % bytes.length]! ^= 1 << bit;
      await writeFile(join(folder, file), damaged);
      const outcome = await loadBundle(folder).then(
        (bundle) => bundle.digest,
        (error: PipelineError) => error.code,
      );
      await writeFile(join(folder, file), bytes);
      expect(outcome === 'BUNDLE_INVALID' || (/^[0-9a-f]{64}$/.test(outcome) && outcome !== digest), outcome).toBe(true);
    });
    await fc.assert(property, { numRuns: 300 });
  });

  it('takes a vocabulary with or without a last line break', async () => {
    const folder = await changed({ entities: (text) => text.trimEnd() });
    expect((await loadBundle(folder)).entities).toEqual(good.entities);
  });

  it('is checked as well when it is made in memory or written', async () => {
    expect(() => makeBundle({ ...good, entities: ['a'] })).toThrow('entities.txt has 1 lines, vocabularySize is 5');
    const invalid = { ...good, config: { ...good.config, heads: -1 } };
    expect(() => makeBundle(invalid)).toThrow(expect.objectContaining({ code: 'BUNDLE_INVALID' }));
    await expect(writeBundle(join(root, 'never'), invalid)).rejects.toMatchObject({ code: 'BUNDLE_INVALID' });
    await writeFile(join(root, 'taken'), '');
    await expect(writeBundle(join(root, 'taken', 'below'), good)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('made twice from the same parts is the same model', () => {
    const again = randomBundle({ dimension: 4, layers: 1, heads: 2, maxSequenceLength: 8, vocabularySize: 5 });
    expect(again.digest).toBe(good.digest);
    const other: Bundle = randomBundle({ dimension: 4, layers: 1, heads: 2, maxSequenceLength: 8, vocabularySize: 5, seed: 2 });
    expect(other.digest).not.toBe(good.digest);
  });

  it('knows what a cached row takes', () => {
    expect(kvBytesPerRow({ layers: 3, heads: 2, dqk: 8, dv: 24 } as BundleConfig)).toBe(3 * 2 * (8 + 24) * 4);
  });
});
