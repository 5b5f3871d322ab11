/** The encoder with a worker that owns the GPU: answers as on the CPU, one owner a process, and life after its death. */
import { describe, expect, it, type TestContext } from 'vitest';
import { HstuEncoder } from '../../../models/encoder.ts';
import type { ProviderReport } from '../../../models/gpu/choose-provider.ts';
import { kvBytesPerRow } from '../../../models/hstu/bundle.ts';
import { Deviation } from '../../support/deviation.ts';
import { prefix, segmentOf, someWindow } from '../../support/encode-segments.ts';
import { referenceRows } from '../../support/reference-hstu.ts';
import { swiftShaderMissing } from '../../support/swiftshader.ts';
import { CACHEABLE, VOCABULARY } from '../bundles.ts';

const TOLERANCE = 1e-4;
const plain = CACHEABLE['plain']!;
const window = someWindow(30, VOCABULARY, 5);
const asked = (userId: string, n: number) => ({ userId, segments: [segmentOf(prefix(window, n), { from: Math.max(0, n - 2) })] });

/** Open encoders are closed when the test ends, in order: the thread that owns the GPU lets go of it. */
function open(context: TestContext, kvBudgetBytes = 2 ** 20): { encoder: HstuEncoder; reports: ProviderReport[] } {
  const reports: ProviderReport[] = [];
  const encoder = new HstuEncoder(plain, {
    provider: 'webgpu',
    workers: 2,
    kvBudgetBytes,
    onProvider: (report) => reports.push(report),
  });
  context.onTestFinished(() => encoder.close());
  return { encoder, reports };
}

async function check(encoder: HstuEncoder, n: number, userId = 'u'): Promise<string> {
  const [result] = await encoder.encode([asked(userId, n)]);
  const { rows, outcome } = result!.segments[0]!;
  const D = plain.config.dimension;
  const expected = referenceRows(plain, prefix(window, n), window.timesS[n - 1]!).subarray(Math.max(0, n - 2) * D);
  new Deviation().check(rows, expected, D, TOLERANCE, `${n} events`);
  return outcome;
}

/** As `describeOnGpu`, but the device is asked for in the worker: the thread of the test must not hold it as well. */
function requireDevice({ skip }: TestContext, encoder: HstuEncoder): void {
  if (encoder.provider.provider === 'webgpu') return;
  if (process.env['CI'] !== undefined && swiftShaderMissing() === undefined) throw new Error(encoder.provider.reason);
  skip(encoder.provider.reason);
}

describe('a worker that owns the GPU', () => {
  it('copies users to host memory while nothing is asked: who was evicted comes back without an encode', async (context) => {
    const { encoder } = open(context, 64 * kvBytesPerRow(plain.config));
    expect(await check(encoder, 30, 'a')).toBe('cold');
    requireDevice(context, encoder);
    expect(await check(encoder, 30, 'b')).toBe('cold');
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await check(encoder, 30, 'c')).toBe('cold');
    expect(await encoder.stats()).toMatchObject({ users: 2, evictions: 1 });
    expect(await check(encoder, 30, 'a')).toBe('hit');
  });

  it('encodes exactly, on one thread; a second encoder of the process takes the CPU; after a crash this one does', async (context) => {
    const { encoder, reports } = open(context);
    expect(await check(encoder, 10)).toBe('cold');
    requireDevice(context, encoder);
    expect(await check(encoder, 11)).toBe('hit');
    expect(await encoder.stats()).toMatchObject({ workers: 1, users: 1 });

    const second = open(context);
    expect(second.reports).toEqual([{ provider: 'cpu', reason: 'the GPU belongs to another encoder of this process' }]);
    expect(await check(second.encoder, 12)).toBe('cold');

    await encoder.crash();
    expect(await check(encoder, 13)).toBe('cold');
    expect(await check(encoder, 14)).toBe('hit');
    expect(reports.map(({ provider }) => provider)).toEqual(['webgpu', 'cpu']);
    expect(encoder.provider.reason).toContain('died');
  });
});
