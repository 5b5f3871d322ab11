import { from, lastValueFrom, tap, toArray } from 'rxjs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';
import { InMemorySequenceStore } from '../../operators/index.ts';
import type { OutputBatch, SourceBatch } from '../../schemas/batch.ts';
import { parseConfig } from '../../schemas/config.ts';
import { compileMapping } from '../../schemas/record-mapping.ts';
import { pipeline } from '../../streams/pipeline.ts';
import { pipelineModel } from '../../streams/pipeline-model.ts';
import { ShadowSampler, type ShadowSamplerOptions } from '../../streams/shadow-sampler.ts';

const bundle = randomBundle({ dimension: 16, layers: 2, heads: 2, maxSequenceLength: 12 });
const mapping = {
  userId: '{user}',
  action: 'view',
  entity: 'item:{item}',
  eventTime: { field: 'time', unit: 's' as const },
};
const batches: readonly SourceBatch[] = Array.from({ length: 10 }, (_, i) => ({
  topic: 't',
  partition: 0,
  records: Array.from({ length: 6 }, (_, j) => ({
    position: { topic: 't', partition: 0, offset: 6 * i + j },
    value: JSON.stringify({ user: `u${j % 3}`, item: 1 + ((7 * i + j) % 90), time: 1_500_000_000 + 60 * (6 * i + j) }),
  })),
  nextOffset: 6 * i + 6,
  readAtMs: 0,
  ack: () => {},
}));

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

function fakes() {
  return {
    report: {
      shadowChecked: vi.fn<(maxDelta: number, mismatch: boolean) => void>(),
      shadowDropped: vi.fn<(n: number) => void>(),
    },
    log: { error: vi.fn<(fields: object, message: string) => void>(), warn: vi.fn<(fields: object, message: string) => void>() },
  };
}

/** All batches through a real pipeline under a sampler; `spoil` may change what is published. */
async function run(
  options: Partial<ShadowSamplerOptions>,
  spoil: (output: OutputBatch, index: number) => OutputBatch = (o) => o,
) {
  const seen = fakes();
  const sampler = new ShadowSampler(bundle, { rate: 1, ...seen, ...options });
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 1 << 22 });
  ends.push(
    () => sampler.close(),
    () => engine.release(),
  );
  const settings = parseConfig({ bundle: 'b', publish: 'every-event' }, 'test');
  const outputs = await lastValueFrom(
    from(batches).pipe(
      pipeline({
        settings,
        model: pipelineModel(bundle),
        decoder: compileMapping(mapping, { ...settings.time, now: Date.now }),
        store: new InMemorySequenceStore(),
        encoder: engine,
        publisher: { publish: () => Promise.resolve() },
        committer: { commit: () => Promise.resolve() },
        now: Date.now,
        observer: sampler,
      }),
      tap((output) => sampler.published(spoil(output, output.source.nextOffset / 6 - 1))),
      toArray(),
    ),
  );
  await sampler.idle();
  return { ...seen, sampler, outputs };
}

const inProcess = () => {
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  return { encode: engine.encode.bind(engine), close: () => engine.release() };
};

describe('the shadow sampler', () => {
  it('passes right embeddings, by a worker thread of its own, through slides of the window', async () => {
    const { report, log } = await run({ maxQueued: 100 });
    expect(report.shadowChecked).toHaveBeenCalledTimes(60);
    expect(report.shadowChecked.mock.calls.every(([delta, mismatch]) => delta < 1e-5 && !mismatch)).toBe(true);
    expect(log.error).not.toHaveBeenCalled();
    expect(log.warn).not.toHaveBeenCalled();
    expect(report.shadowDropped).not.toHaveBeenCalled();
  });

  it('catches one embedding that is wrong by more than the tolerance (negative control)', async () => {
    const { report, log } = await run({ maxQueued: 100, encoder: inProcess() }, (output, index) => {
      if (index === 4) output.embeddings[2]!.embedding[5]! += 2e-4;
      return output;
    });
    expect(report.shadowChecked.mock.calls.filter(([, mismatch]) => mismatch)).toHaveLength(1);
    expect(log.error).toHaveBeenCalledTimes(1);
    const fields = log.error.mock.calls[0]![0] as Record<string, unknown>;
    expect(fields).toMatchObject({
      err: { code: 'SHADOW_MISMATCH' },
      userId: 'u1',
      lineage: { topic: 't', partition: 0, offset: 25 },
    });
    expect(fields['maxDelta']).toBeGreaterThan(1.9e-4);
  });

  it.each([
    ['NaN', (output: OutputBatch) => void output.embeddings[0]!.embedding.fill(Number.NaN)],
    ['of another length', (output: OutputBatch) => void Object.assign(output.embeddings[0]!, { embedding: new Float32Array(8) })],
    ["another's digest", (output: OutputBatch) => void Object.assign(output.embeddings[0]!.lineage, { sequenceDigest: '00' })],
  ])('catches one that is %s', async (_, spoil) => {
    const { log } = await run({ maxQueued: 100, encoder: inProcess() }, (output, index) => {
      if (index === 0) spoil(output);
      return output;
    });
    expect(log.error).toHaveBeenCalledTimes(1);
  });

  it('drops and counts what it cannot keep up with, and holds no more than its bound', async () => {
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const slow = inProcess();
    const encode = vi.fn(async (requests: Parameters<typeof slow.encode>[0]) => gate.then(() => slow.encode(requests)));
    setTimeout(() => open(), 100);
    const { report } = await run({ maxQueued: 4, encoder: { ...slow, encode } });
    const dropped = report.shadowDropped.mock.calls.reduce((sum, [n]) => sum + n, 0);
    const checked = report.shadowChecked.mock.calls.length;
    expect(checked + dropped).toBe(60);
    expect(checked).toBe(encode.mock.calls.length);
    expect(dropped).toBeGreaterThan(0);
  });

  it('outlives an encoder that fails: dropped, warned of, and on with the next', async () => {
    const engine = inProcess();
    let calls = 0;
    const encode = (requests: Parameters<typeof engine.encode>[0]) =>
      ++calls === 2 ? Promise.reject(new Error('worker died')) : engine.encode(requests);
    const { report, log } = await run({ maxQueued: 100, encoder: { ...engine, encode } });
    expect(report.shadowChecked).toHaveBeenCalledTimes(59);
    expect(report.shadowDropped.mock.calls).toEqual([[1]]);
    expect(log.warn).toHaveBeenCalledTimes(1);
  });

  it('samples the share it was told, and none at 0', async () => {
    const none = await run({ rate: 0, encoder: inProcess() });
    expect(none.report.shadowChecked).not.toHaveBeenCalled();
    // log(1 - 0.5) / log(1 - 0.25) = 2.4: two embeddings are let by before each sample.
    const some = await run({ rate: 0.25, random: () => 0.5, maxQueued: 100, encoder: inProcess() });
    expect(some.report.shadowChecked).toHaveBeenCalledTimes(20);
  });

  it('takes no more once it is closed', async () => {
    const { sampler, outputs, report } = await run({ encoder: inProcess(), rate: 0 });
    await sampler.close();
    ends.length = 0;
    sampler.published(outputs[0]!);
    await sampler.idle();
    expect(report.shadowChecked).not.toHaveBeenCalled();
  });
});
