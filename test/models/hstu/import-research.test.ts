import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { importResearch } from '../../../models/hstu/import-research.ts';
import { readSafetensors, type Tensor } from '../../../models/hstu/safetensors.ts';

const golden = (ending: string) =>
  fileURLToPath(new URL(`../../golden/hstu-research/research-d32-l2-h2.${ending}`, import.meta.url));
const { config } = JSON.parse(readFileSync(golden('json'), 'utf8')) as { config: Record<string, unknown> };
const state = (): Map<string, Tensor> => new Map(readSafetensors(readFileSync(golden('safetensors')), 'FILE'));
const without = (...parts: string[]): Map<string, Tensor> =>
  new Map([...state()].filter(([name]) => !parts.some((part) => name.includes(part))));

describe('importResearch', () => {
  it('takes names, shapes and switches over from a checkpoint of the reference', () => {
    const bundle = importResearch(state(), config, 'mine');
    expect(bundle.config).toMatchObject({
      name: 'mine',
      dimension: 32,
      layers: 2,
      heads: 2,
      dqk: 16,
      dv: 16,
      vocabularySize: 300,
      maxSequenceLength: 40,
      paddedLength: 51,
      positions: 'from-start',
      attention: 'causal',
      divisor: 'constant',
      timeBias: true,
      positionBias: true,
      concatUa: false,
      outputNorm: 'l2',
      window: { maxLength: 40, blockLength: 10 },
    });
    expect(bundle.entities).toHaveLength(300);
    expect(bundle.tensors.get('entity_embedding')!.data.subarray(0, 32)).toEqual(new Float32Array(32));
    // A Linear of the reference is (out, in), ours (in, out).
    const theirs = state().get('_hstu._attention_layers.0._o.weight')!.data;
    const ours = bundle.tensors.get('layers.0.output_weight')!.data;
    expect(ours[3 * 32 + 5]).toBe(theirs[5 * 32 + 3]);
  });

  it('takes the whole file that holds the configuration as well', () => {
    const whole = importResearch(state(), { model: 'x', config, cases: [] }, 'mine');
    expect(whole.digest).toBe(importResearch(state(), config, 'mine').digest);
  });

  it('computes the padded length where the checkpoint does not state it', () => {
    const { N, ...rest } = config;
    expect(importResearch(state(), rest, 'mine').config.paddedLength).toBe(N);
  });

  it('sees by the width of the output projection that u and a are concatenated', () => {
    const wide = state();
    for (const l of [0, 1])
      wide.set(`_hstu._attention_layers.${l}._o.weight`, { shape: [32, 96], data: new Float32Array(32 * 96) });
    expect(importResearch(wide, config, 'mine').config.concatUa).toBe(true);
    expect(() => importResearch(wide, { ...config, concat_ua: false }, 'mine')).toThrow(
      'tensor layers.0.output_weight has shape [96,32], expected [32,32]',
    );
  });

  it.each([
    ['_ts_w', { timeBias: false, positionBias: true }],
    ['_pos_w', { timeBias: true, positionBias: false }],
    ['_rel_attn_bias', { timeBias: false, positionBias: false }],
  ])('a checkpoint without %s is a model without that bias', (part, flags) => {
    expect(importResearch(without(part), config, 'mine').config).toMatchObject(flags);
  });

  it('names what is left over', () => {
    const extra = state()
      .set('_hstu._attention_layers.2._uvqk', { shape: [1], data: new Float32Array(1) })
      .set('optimizer.step', { shape: [1], data: new Float32Array(1) });
    expect(() => importResearch(extra, config, 'mine')).toThrow(
      'tensors that the research architecture does not have: _hstu._attention_layers.2._uvqk, optimizer.step',
    );
  });

  it('names everything that is missing', () => {
    expect(() => importResearch(without('_pos_emb', '1._uvqk', '0._o.bias'), config, 'mine')).toThrow(
      /tensor position_embedding is missing.*tensor layers\.0\.output_bias is missing.*tensor layers\.1\.uvqk is missing/,
    );
  });

  it('refuses one bias table in one layer only', () => {
    expect(() => importResearch(without('1._rel_attn_bias._ts_w'), config, 'mine')).toThrow(
      'tensor layers.1.time_bias is missing',
    );
  });

  it('lists what is wrong with the configuration', () => {
    expect(() => importResearch(state(), { ...config, num_heads: 0, dv: undefined }, 'mine')).toThrow(
      /research configuration:\n(.*\n)*.*num_heads: Too small(.*\n)*.*dv: /,
    );
    expect(() => importResearch(state(), null, 'mine')).toThrow(expect.objectContaining({ code: 'BUNDLE_INVALID' }));
  });
});
