/** The KV cache on disk by itself: a ring of records that gives back what was put or nothing, never anything else. */
import { mkdtempSync, readdirSync, readlinkSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { CachedRows } from '../../../models/kv-cache/cached-rows.ts';
import { packedBytes } from '../../../models/kv-cache/disk-record.ts';
import { DiskTier, type DiskTierOptions } from '../../../models/kv-cache/disk-tier.ts';
import { pageDigests } from '../../../schemas/sequence-digest.ts';

const folder = mkdtempSync(join(tmpdir(), 'hstu-disk-tier-'));
const open: DiskTier[] = [];
const tierOf = (options: Partial<DiskTierOptions> = {}): DiskTier => {
  const tier = new DiskTier({ folder, budgetBytes: 2 ** 20, ...options });
  open.push(tier);
  return tier;
};
afterEach(async () => {
  await Promise.all(open.splice(0).map((tier) => tier.close()));
});

/** Tokens and rows of so many events, different for every seed. */
function rowsOf(length: number, seed: number): { held: CachedRows; parts: Float32Array[] } {
  const entities = Int32Array.from({ length: length + 2 }, (_, i) => seed + i);
  const timesS = Float64Array.from({ length: length + 2 }, (_, i) => 1e9 + seed + i + 0.5);
  const held = { modelDigest: 'model', windowStart: 0, length, entities, timesS, pageDigests: pageDigests(entities, timesS) };
  const parts = [3, 2].map((width) => Float32Array.from({ length: width * length }, (_, i) => seed + width + i));
  return { held: { ...held, nextTimeS: timesS[length]! }, parts };
}

function expectCopy(tier: DiskTier, userId: string, length: number, seed: number): void {
  const { held, parts } = rowsOf(length, seed);
  const { rows, ...copy } = tier.get(userId)!;
  expect(copy).toMatchObject({ modelDigest: 'model', windowStart: 0, length, nextTimeS: held.nextTimeS });
  expect(copy.entities).toEqual(held.entities.subarray(0, length));
  expect(copy.timesS).toEqual(held.timesS.subarray(0, length));
  const pages = Math.floor(length / 32);
  expect(copy.pageDigests).toEqual(held.pageDigests.subarray(0, 2 * pages));
  expect([...new Float32Array(rows.buffer, rows.byteOffset, rows.byteLength / 4)]).toEqual(parts.flatMap((part) => [...part]));
}

/** The file that a tier has open, which has no name. */
function fileOf(): number {
  const ours = readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(join(folder, 'kv-'));
    } catch {
      return false;
    }
  });
  expect(ours).toHaveLength(1);
  return Number(ours[0]);
}
const onLinux = it.runIf(process.platform === 'linux');

describe('DiskTier', () => {
  it('gives back what was put last or nothing, within its budget, whatever is put, read and dropped', async () => {
    const user = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('put' as const), user, length: fc.integer({ min: 1, max: 90 }) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), user }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('write' as const) }) },
    );
    let [found, missed] = [0, 0];
    const property = fc.asyncProperty(
      fc.array(step, { maxLength: 40 }),
      fc.integer({ min: 1_000, max: 9_000 }),
      async (steps, budgetBytes) => {
        const tier = tierOf({ budgetBytes });
        const put = new Map<string, { length: number; seed: number; bytes: number; at: number }>();
        for (const [at, one] of steps.entries()) {
          if (one.kind === 'write') await tier.written();
          else if (one.kind === 'drop') {
            tier.drop(one.user);
            put.delete(one.user);
          } else {
            const seed = 1_000 * (at + 1);
            const { held, parts } = rowsOf(one.length, seed);
            tier.put(one.user, held, parts);
            const bytes = packedBytes(held, parts);
            if (bytes > budgetBytes) put.delete(one.user);
            else put.set(one.user, { length: one.length, seed, bytes, at });
          }
          const { bytesUsed, users } = tier.stats;
          expect(bytesUsed).toBeLessThanOrEqual(budgetBytes);
          expect(users).toBeLessThanOrEqual(put.size);
          for (const [userId, { length, seed }] of put) {
            const copy = tier.get(userId);
            if (copy === undefined) missed += 1;
            else {
              found += 1;
              expectCopy(tier, userId, length, seed);
            }
          }
          // Whoever came last has not been overwritten by anybody.
          const newest = [...put].sort(([, x], [, y]) => y.at - x.at)[0];
          if (newest !== undefined && newest[1].at === at) expect(tier.get(newest[0])).toBeDefined();
          expect(tier.stats.corrupt).toBe(0);
        }
      },
    );
    await fc.assert(property, { numRuns: 100 });
    expect(found).toBeGreaterThan(300);
    expect(missed).toBeGreaterThan(30);
  });

  it('writes the same rows once', async () => {
    const tier = tierOf();
    const { held, parts } = rowsOf(40, 7);
    tier.put('u', held, parts);
    tier.put('u', held, parts);
    tier.put('u', rowsOf(41, 7).held, rowsOf(41, 7).parts);
    expect(tier.stats).toMatchObject({ users: 1, spills: 2 });
    expectCopy(tier, 'u', 41, 7);
  });

  it('leaves no file behind, at no moment', async () => {
    const tier = tierOf();
    tier.put('u', rowsOf(40, 7).held, rowsOf(40, 7).parts);
    await tier.written();
    expectCopy(tier, 'u', 40, 7);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('does not keep who comes while the disk is behind', async () => {
    const { held, parts } = rowsOf(40, 7);
    const tier = tierOf({ maxQueuedBytes: 2 * packedBytes(held, parts) });
    for (const userId of ['a', 'b', 'c']) tier.put(userId, held, parts);
    expect(tier.stats).toMatchObject({ users: 2, spills: 2, skipped: 1 });
    await tier.written();
    tier.put('c', held, parts);
    for (const userId of ['a', 'b', 'c']) expectCopy(tier, userId, 40, 7);
  });

  it('is used no more, and says so once, where the disk cannot be written', async () => {
    const failures: string[] = [];
    const file = join(folder, 'a-file');
    writeFileSync(file, '');
    const tier = tierOf({ folder: file, onFailure: (message) => failures.push(message) });
    const { held, parts } = rowsOf(40, 7);
    tier.put('a', held, parts);
    tier.put('b', held, parts);
    await tier.written();
    tier.put('c', held, parts);
    expect(['a', 'b', 'c'].map((userId) => tier.get(userId))).toEqual([undefined, undefined, undefined]);
    expect(tier.stats).toMatchObject({ users: 0, bytesUsed: 0 });
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(/^the KV cache on disk, .*a-file: E(NOTDIR|EXIST).*encoded anew$/);
    rmSync(file);
  });

  onLinux('takes nothing that is not what it wrote', async () => {
    const tier = tierOf();
    tier.put('u', rowsOf(40, 7).held, rowsOf(40, 7).parts);
    tier.put('v', rowsOf(40, 8).held, rowsOf(40, 8).parts);
    await tier.written();
    writeSync(fileOf(), Buffer.from([1]), 0, 1, 700);
    expect(tier.get('u')).toBeUndefined();
    expectCopy(tier, 'v', 40, 8);
    expect(tier.stats).toMatchObject({ users: 1, corrupt: 1 });
  });

  onLinux('of a user that is dropped nothing stays on the disk', async () => {
    const tier = tierOf();
    const { held, parts } = rowsOf(40, 7);
    tier.put('u', held, parts);
    await tier.written();
    const bytes = Buffer.alloc(packedBytes(held, parts));
    readSync(fileOf(), bytes, 0, bytes.length, 0);
    expect(bytes.some((byte) => byte !== 0)).toBe(true);
    expect([tier.drop('u'), tier.drop('u')]).toEqual([true, false]);
    await tier.written();
    readSync(fileOf(), bytes, 0, bytes.length, 0);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });
});
