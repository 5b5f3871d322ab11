/** What the encoder runs on: as asked, or what has shown that it works and is faster. */
import { expect, it } from 'vitest';
import { chooseProvider, judgeTrial } from '../../../models/gpu/choose-provider.ts';
import { GpuClaim } from '../../../models/gpu/gpu-claim.ts';

it('what is asked for by name is taken', () => {
  for (const provider of ['webgpu', 'cuda', 'cpu'] as const)
    expect(chooseProvider(provider)).toEqual({ provider, reason: 'asked for by encoder.provider' });
});

it('auto takes no driver in software, and nothing that fails: each reason says what was found', () => {
  // SwiftShader, as measured on two cores.
  expect(judgeTrial({ gpuMs: 3_511, cpuMs: 10.1 })).toEqual({
    provider: 'cpu',
    reason: expect.stringContaining('3511.0 ms against 10.1 ms on one thread'),
  });
  expect(judgeTrial({ gpuMs: 10, cpuMs: 29 }).provider).toBe('cpu');
  expect(judgeTrial({ gpuMs: 1.5, cpuMs: 10 }).provider).toBe('webgpu');
  expect(judgeTrial({ failure: 'the trial ended by SIGSEGV' })).toEqual({
    provider: 'cpu',
    reason: 'a GPU cannot be used: the trial ended by SIGSEGV',
  });
});

it('one thread of the process has the GPU; after it has ended in order another may, after its death none', () => {
  const [first, second, third] = [new GpuClaim(), new GpuClaim(), new GpuClaim()];
  expect([first.take(), second.take()]).toEqual([true, false]);
  expect(second.use()).toBe(false);
  expect(first.use()).toBe(true);
  first.release();
  expect([second.take(), second.use(), second.use()]).toEqual([true, true, false]);
  second.release();
  expect(third.take()).toBe(false);
});
