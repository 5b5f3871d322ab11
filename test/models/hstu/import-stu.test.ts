import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { loadBundle, writeBundle } from '../../../models/hstu/bundle.ts';
import { importStu } from '../../../models/hstu/import-stu.ts';
import { readSafetensors, type Tensor } from '../../../models/hstu/safetensors.ts';
import { runCommand } from '../../support/command-line.ts';

const golden = (name: string) => fileURLToPath(new URL(`../../golden/stu/${name}`, import.meta.url));
const bytes = await readFile(golden('stu-d32-h2-l2-local16.safetensors'));
const { config } = JSON.parse(await readFile(golden('stu-d32-h2-l2-local16.json'), 'utf8')) as {
  config: Record<string, unknown>;
};
const state = (): Map<string, Tensor> => new Map(readSafetensors(bytes, 'FILE'));
const zeros = (...shape: number[]): Tensor => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b)) });

describe('importStu', () => {
  it('takes names, shapes and switches over from a checkpoint of the reference', () => {
    const bundle = importStu(state(), config, 'mine');
    expect(bundle.config).toMatchObject({
      name: 'mine',
      architecture: 'hstu-stu',
      dimension: 32,
      layers: 2,
      heads: 2,
      dqk: 16,
      dv: 16,
      maxSequenceLength: 64,
      positions: 'none',
      timeBias: false,
      positionBias: false,
      outputNorm: 'none',
      stu: { divisor: 64, alpha: 0.25, groupNorm: false, maxAttnLen: 16, embeddingScale: Math.sqrt(32) },
      training: { embedding: 'absent' },
    });
    expect(bundle.config.ranking).toBeUndefined();
    expect(bundle.tensors.get('layers.1.uvqk_bias')!.data).toEqual(state().get('_stu_layers.1._uvqk_beta')!.data);
    expect(bundle.tensors.get('entity_embedding')!.data).toEqual(new Float32Array(64));
  });

  it('takes what a bundle needs beyond the stack by the bundle’s own names', () => {
    const tensors = state()
      .set('entity_embedding', zeros(11, 32))
      .set('position_embedding', zeros(80, 32))
      .set('layers.0.time_bias', zeros(129))
      .set('layers.1.time_bias', zeros(129))
      .set('ranking.hidden_weight', zeros(32, 6))
      .set('ranking.hidden_bias', zeros(6))
      .set('ranking.weight', zeros(6, 2))
      .set('ranking.bias', zeros(2));
    const tasks = [{ name: 'like' }, { name: 'hide', weight: -1 }];
    const whole = { config: { ...config, tasks, maxSequenceLength: 70, alpha: undefined } };
    expect(importStu(tensors, whole, 'mine').config).toMatchObject({
      vocabularySize: 10,
      maxSequenceLength: 70,
      paddedLength: 80,
      positions: 'from-start',
      timeBias: true,
      stu: { alpha: 1 / 4 },
      ranking: {
        hidden: 6,
        tasks: [
          { name: 'like', weight: 1 },
          { name: 'hide', weight: -1 },
        ],
      },
      training: { embedding: 'imported' },
    });
  });

  it.each([
    [
      'a missing tensor',
      (tensors: Map<string, Tensor>) => tensors.delete('_stu_layers.1._uvqk_beta'),
      {},
      'layers.1.uvqk_bias is missing',
    ],
    [
      'a layer too many',
      (tensors: Map<string, Tensor>) => tensors.set('_stu_layers.2._uvqk_beta', zeros(1)),
      {},
      'layers.2.uvqk_bias is not part',
    ],
    [
      'an unknown name',
      (tensors: Map<string, Tensor>) => tensors.set('optimizer.step', zeros(1)),
      {},
      'optimizer.step is not part',
    ],
    ['group norm of another shape', () => undefined, { groupNorm: true }, 'output_norm_weight has shape [32], expected [2]'],
    ['heads without weights', () => undefined, { tasks: [{ name: 'like' }] }, 'ranking.weight is missing'],
    ['a configuration that is none', () => undefined, { H: 0, divisor: 'max' }, 'STU configuration:\n  H: Too small'],
  ] as const)('refuses %s', (_, change, changes, message) => {
    const tensors = state();
    change(tensors);
    expect(() => importStu(tensors, { ...config, ...changes }, 'mine')).toThrow(message);
  });

  it('is a command, whose bundle loads again as the same model', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hstu-stu-'));
    const [weights, file] = [golden('stu-d32-h2-l2-local16.safetensors'), golden('stu-d32-h2-l2-local16.json')];
    const run = await runCommand([
      'model',
      'import',
      'stu',
      '--weights',
      weights,
      '--config',
      file,
      '--out',
      join(folder, 'one'),
    ]);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    expect(run.stdout).toContain('hstu-stu');
    expect(run.stdout).toContain('divisor 64, alpha 0.25, 16 rows back');
    const loaded = await loadBundle(join(folder, 'one'));
    expect(loaded.config).toEqual(importStu(state(), config, 'one').config);
    await writeBundle(join(folder, 'two'), loaded);
    expect((await loadBundle(join(folder, 'two'))).digest).toBe(loaded.digest);
    await rm(folder, { recursive: true });
  });
});
