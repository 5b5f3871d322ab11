/** What the cache on the GPU costs in bytes, what becomes of users that it has no room for, and what of requests when it fails. */
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, it } from 'vitest';
import type { ProviderReport } from '../../../models/gpu/choose-provider.ts';
import { GpuCache, type GpuEntry } from '../../../models/gpu/gpu-cache.ts';
import { GpuEngine, type GpuEngineOptions } from '../../../models/gpu/gpu-engine.ts';
import { ProviderEngine } from '../../../models/gpu/provider-engine.ts';
import { kvBytesPerRow } from '../../../models/hstu/bundle.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import type { EncodeSegment } from '../../../schemas/encoding.ts';
import { Deviation, worstOf } from '../../support/deviation.ts';
import { prefix, segmentOf, someWindow } from '../../support/encode-segments.ts';
import { CACHEABLE, inLayout, RANKING, REENCODED, VOCABULARY } from '../bundles.ts';
import { describeOnGpu } from './describe-on-gpu.ts';

const TOLERANCE = 1e-4;
const plain = CACHEABLE['plain']!;
const D = plain.config.dimension;
const ROW_BYTES = kvBytesPerRow(plain.config);
const window = someWindow(60, VOCABULARY, 7);
const show = (n: number, from = Math.max(0, n - 2)): EncodeSegment => segmentOf(prefix(window, n), { from });

const engines: { release(): Promise<void> }[] = [];
afterAll(() => Promise.all(engines.map((engine) => engine.release())));
const kept = <T extends { release(): Promise<void> }>(engine: T): T => {
  engines.push(engine);
  return engine;
};
const start = (rows: number, more: Partial<GpuEngineOptions> = {}) =>
  kept(new GpuEngine(plain, { kvBudgetBytes: rows * ROW_BYTES, pageLength: 4, ...more }));
const full = kept(new EncoderEngine(plain, { kvBudgetBytes: 0 }));

type Encoder = Pick<EncoderEngine, 'encode'>;

/** Asks for a user's window of `n` events, checks the rows against a full encode, and says what the cache had. */
async function ask(engine: Encoder, userId: string, n: number): Promise<string> {
  const segment = show(n);
  const [[cached], [fresh]] = [
    await engine.encode([{ userId, segments: [segment] }]),
    await full.encode([{ userId, segments: [segment] }]),
  ];
  new Deviation().check(cached!.segments[0]!.rows, fresh!.segments[0]!.rows, D, TOLERANCE, `${userId}, ${n} events`);
  return `${cached!.segments[0]!.outcome} ${cached!.segments[0]!.rowsComputed}`;
}

describeOnGpu('on the GPU', () => {
  describe('bytes between host and device', () => {
    it('of K and V a step uploads none and writes its new final rows; nothing it uploads grows with the pool', async () => {
      const uploads = [];
      for (const rows of [400, 40_000]) {
        const engine = start(rows);
        await ask(engine, 'u', 30);
        const before = engine.stats;
        expect(before).toMatchObject({ kvBytesUploaded: 0, kvBytesWritten: 29 * ROW_BYTES });
        expect(await ask(engine, 'u', 33)).toBe('hit 4');
        const { kvBytesUploaded, kvBytesDownloaded, kvBytesWritten, bytesUploaded } = engine.stats;
        expect({ kvBytesUploaded, kvBytesDownloaded }).toEqual({ kvBytesUploaded: 0, kvBytesDownloaded: 0 });
        expect(kvBytesWritten - before.kvBytesWritten).toBe(3 * ROW_BYTES);
        uploads.push(bytesUploaded - before.bytesUploaded);
      }
      expect(uploads[1]).toBe(uploads[0]);
      // Less than what the cached rows themselves would be, even of this narrow model, whose biases weigh most.
      expect(uploads[0]).toBeLessThan(29 * ROW_BYTES);
    });

    it('a snapshot is what restoring brought', async () => {
      const engine = start(40);
      await ask(engine, 'a', 30);
      const rows = await engine.snapshot('a');
      expect(rows!.map(({ length }) => length)).toEqual(Array(3).fill((29 * ROW_BYTES) / 4 / 3));
      while (await engine.spillOne());
      await ask(engine, 'b', 30);
      expect(await engine.snapshot('a')).toBeUndefined();
      const [back] = await engine.encode([{ userId: 'a', segments: [show(30, 29)] }]);
      expect(back!.segments[0]).toMatchObject({ outcome: 'hit', rowsComputed: 1 });
      expect(await engine.snapshot('a')).toEqual(rows);
    });
  });

  describe('users that the pool has no room for', () => {
    it('copied to the host before their turn they come back by one upload; evicted before that they are encoded again', async () => {
      const engine = start(64);
      await ask(engine, 'a', 30);
      await ask(engine, 'b', 30);
      expect(engine.stats).toMatchObject({ users: 2, spills: 0 });
      expect(await engine.spillOne()).toBe(true);
      await ask(engine, 'c', 30);
      // The eviction itself moved nothing.
      expect(engine.stats).toMatchObject({ users: 2, evictions: 1, spills: 1, kvBytesDownloaded: 29 * ROW_BYTES, hostUsers: 1 });
      expect(await ask(engine, 'a', 31)).toBe('hit 2');
      expect(engine.stats).toMatchObject({ restores: 1, kvBytesUploaded: 29 * ROW_BYTES });
      expect(await ask(engine, 'b', 31)).toBe('cold 31');
    });

    it('the host keeps no more than its budget, the newest copies; who is forgotten is forgotten there too', async () => {
      const engine = start(64, { hostBudgetBytes: 30 * ROW_BYTES });
      for (const userId of ['a', 'b', 'c', 'd']) {
        await ask(engine, userId, 30);
        while (await engine.spillOne());
      }
      expect(engine.stats).toMatchObject({ hostUsers: 1, hostBytesUsed: 29 * ROW_BYTES });
      expect([engine.forget('a'), engine.forget('b'), engine.forget('c'), engine.forget('d')]).toEqual([
        false,
        false,
        true,
        true,
      ]);
      expect(engine.stats).toMatchObject({ users: 0, kvBytesUsed: 0, hostUsers: 0, hostBytesUsed: 0 });
    });

    it('whom the host has no room for goes to the disk, once, and comes back from there by one upload', async () => {
      const engine = start(64, { hostBudgetBytes: 30 * ROW_BYTES, disk: { folder: tmpdir(), budgetBytes: 2 ** 20 } });
      for (const userId of ['a', 'b', 'c', 'd']) {
        await ask(engine, userId, 30);
        while (await engine.spillOne());
      }
      const { spills } = engine.stats;
      expect(await engine.spillOne()).toBe(false);
      expect(engine.stats).toMatchObject({ spills, hostUsers: 1, disk: { users: spills - 1, restores: 0 } });
      expect(await ask(engine, 'a', 31)).toBe('hit 2');
      expect(engine.stats).toMatchObject({ restores: 1, kvBytesUploaded: 29 * ROW_BYTES, disk: { restores: 1 } });
      expect([engine.forget('a'), engine.forget('a')]).toEqual([true, false]);
      expect(await ask(engine, 'a', 31)).toBe('cold 31');
    });

    it('several pools where one buffer ends: each user in one of them, all of them exact', async () => {
      const rowsABuffer = 42;
      const engine = start(120, { maxBufferBytes: (rowsABuffer * ROW_BYTES) / plain.config.layers });
      for (const n of [30, 31, 36])
        for (const userId of ['a', 'b', 'c'])
          expect(await ask(engine, userId, n)).toBe(n === 30 ? 'cold 30' : `hit ${n - (n === 31 ? 29 : 30)}`);
      expect(engine.stats).toMatchObject({ users: 3, evictions: 0 });
      expect(engine.device.bytesHeld).toBe(3 * rowsABuffer * ROW_BYTES);
      // Longer than a pool: the CPU, without a cache.
      expect(await ask(engine, 'd', 50)).toBe('uncached 50');
    });
  });

  describe('a cache that forgets its rows', () => {
    /** Declares rows and then gives the user other pages: they read as zero. */
    class ForgetfulCache extends GpuCache {
      override commit(entry: GpuEntry, segment: EncodeSegment, length: number): void {
        super.commit(entry, segment, length);
        const pages = entry.pages.splice(0).length;
        this.banks.grow(entry, pages * 4);
      }
    }

    it('is far off: the law would notice', async ({ annotate }) => {
      const options = { kvBudgetBytes: 400 * ROW_BYTES, pageLength: 4 };
      const engine = kept(new GpuEngine(plain, options, (of) => new ForgetfulCache(of)));
      await engine.encode([{ userId: 'u', segments: [show(30)] }]);
      const [wrong] = await engine.encode([{ userId: 'u', segments: [show(31)] }]);
      const [fresh] = await full.encode([{ userId: 'u', segments: [show(31)] }]);
      const { delta } = worstOf(wrong!.segments[0]!.rows, fresh!.segments[0]!.rows, D);
      await annotate(`max |Δ| ${delta.toPrecision(2)}`);
      expect(delta).toBeGreaterThan(100 * TOLERANCE);
    });
  });

  describe('candidates', () => {
    const names = ['STU, both biases, layernorm output', 'STU, local attention', 'research with heads'];

    it.for(names)('are judged as on the CPU, and leave the cache as it was: %s', async (name, { annotate }) => {
      const bundle = RANKING[name]!;
      const options = { kvBudgetBytes: 2 ** 20, candidateRows: 5 };
      const [gpu, cpu] = [kept(new GpuEngine(bundle, options)), kept(new EncoderEngine(bundle, options))];
      const candidates = Int32Array.of(3, 7, 7, 1, 50, 20, 11);
      const deviation = new Deviation();
      for (const n of [0, 1, 20, 22]) {
        const segment = inLayout(bundle, segmentOf(prefix(window, n), { queryTimeS: 2e9 }));
        const request = { userId: 'u', segment, candidates, withRows: true };
        const [[there], [here]] = [await gpu.scoreCandidates([request]), await cpu.scoreCandidates([request])];
        expect([there!.outcome, there!.rowsComputed]).toEqual([here!.outcome, here!.rowsComputed]);
        deviation.check(there!.rows, here!.rows, bundle.config.dimension, TOLERANCE, `rows after ${n} events`);
        deviation.check(there!.combined, here!.combined, 1, TOLERANCE, `scores after ${n} events`);
      }
      expect(gpu.stats.outcomes).toEqual(cpu.stats.outcomes);
      await annotate(`${deviation}`);
    });
  });

  describe('a device that fails', () => {
    it.each(['before a call', 'in the middle of one'])('%s: every request is answered, from the CPU', async (when) => {
      const reports: ProviderReport[] = [];
      let gpu: GpuEngine | undefined;
      const engine = kept(
        new ProviderEngine(
          plain,
          { kvBudgetBytes: 2 ** 20 },
          'webgpu',
          (report) => reports.push(report),
          (...given) => {
            gpu = new GpuEngine(...given);
            return gpu;
          },
        ),
      );
      expect(await ask(engine, 'a', 20)).toBe('cold 20');
      expect(await ask(engine, 'a', 21)).toBe('hit 2');
      if (when === 'before a call') gpu!.device.lose();
      else void Promise.resolve().then(() => gpu!.device.lose());
      expect(await ask(engine, 'a', 22)).toMatch(/cold 22|hit 2/);
      expect(await ask(engine, 'a', 23)).toMatch(/cold 23|hit 2/);
      expect(await ask(engine, 'a', 24)).toBe('hit 2');
      expect(reports).toEqual([{ provider: 'cpu', reason: expect.stringContaining('lost on purpose') }]);
      expect(await engine.idle()).toBe(false);
    });

    it('a refused request is refused, not asked again', async () => {
      const reports: ProviderReport[] = [];
      const engine = kept(new ProviderEngine(plain, { kvBudgetBytes: 2 ** 20 }, 'webgpu', (report) => reports.push(report)));
      const empty = { ...show(1), entities: new Int32Array(0) };
      await expect(engine.encode([{ userId: 'u', segments: [empty] }])).rejects.toMatchObject({ code: 'ENCODER_FAILED' });
      expect(reports).toEqual([]);
    });
  });

  it('an engine that was released refuses, rather than touch what it let go of', async () => {
    const engine = start(40);
    await ask(engine, 'u', 10);
    await engine.release();
    await expect(engine.encode([{ userId: 'u', segments: [show(11)] }])).rejects.toThrow('released');
  });
});

describe('without a GPU', () => {
  it('cuda without its libraries, and a bundle that nothing can cache, run on the CPU and say so', async () => {
    const reports: ProviderReport[] = [];
    const cuda = kept(new ProviderEngine(plain, { kvBudgetBytes: 2 ** 20 }, 'cuda', (report) => reports.push(report)));
    await ask(cuda, 'u', 10);
    const [bidirectional] = Object.values(REENCODED);
    kept(new ProviderEngine(bidirectional!, { kvBudgetBytes: 2 ** 20 }, 'webgpu', (report) => reports.push(report)));
    expect(reports).toEqual([
      { provider: 'cpu', reason: expect.stringMatching(/^cuda failed: /) },
      { provider: 'cpu', reason: expect.stringMatching(/^nothing to cache: /) },
    ]);
  });
});
