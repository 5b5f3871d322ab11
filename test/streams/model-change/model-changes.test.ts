/** The next model beside the old one: what comes out around the switch, and what does not stop the old one. */
import { afterEach, describe, expect, it } from 'vitest';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { BundleConfig } from '../../../schemas/bundle-config.ts';
import { signatureOf } from '../../../streams/state-signature.ts';
import { type FlowingOptions, FlowingPartitions } from './flowing-partitions.ts';

const bundleOf = (seed: number, changes: Partial<BundleConfig> = {}) =>
  randomBundle({ dimension: 8, layers: 2, heads: 2, maxSequenceLength: 12, vocabularySize: 30, seed, ...changes });
const old = bundleOf(1);
const next = bundleOf(2);
const wider = bundleOf(3, { vocabularySize: 40 });
const shorter = bundleOf(4, { vocabularySize: 25 });
const bundles = { '/old': old, '/next': next, '/wider': wider, '/shorter': shorter };
const USERS = 10;
const PATIENT = { timeout: 20_000, interval: 5 };

const open: FlowingPartitions[] = [];
afterEach(async () => {
  for (const world of open.splice(0)) await world.close();
});
function flowing(options: Partial<FlowingOptions> = {}): FlowingPartitions {
  const settings = {
    model: { change: { usersPerSecond: 10_000 } },
    encoder: { provider: 'cpu' as const, kvBudgetBytes: 2 ** 20 },
  };
  const world = new FlowingPartitions({ bundles, settings, ...options });
  open.push(world);
  return world;
}

/** Always a few events under way, until `over`; the last are committed when it returns. */
async function load(world: FlowingPartitions, over: () => boolean, events = 0): Promise<void> {
  for (let i = 0; i < events || !over(); i++) {
    world.produce((i * 7) % USERS, 1 + ((i * 11) % 25));
    while (world.underWay > 10) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await expect.poll(() => world.underWay, PATIENT).toBe(0);
}

/** Each user's versions in the order of the commits, and each batch's digests. */
function problemsOf(world: FlowingPartitions): string[] {
  const versions = new Map<string, number[]>();
  for (const { userId, version } of world.embeddings) versions.set(userId, [...(versions.get(userId) ?? []), version]);
  const gaps = [...versions].filter(([, list]) => list.some((version, i) => version !== i + 1));
  const mixed = world.committed.filter(({ embeddings }) => new Set(embeddings.map((e) => e.lineage.modelDigest)).size > 1);
  return [...gaps.map(([user, list]) => `${user}: ${list}`), ...mixed.map(({ source }) => `mixed: ${source.nextOffset}`)];
}
const digestsOf = (world: FlowingPartitions) => {
  const digests = world.embeddings.map(({ lineage }) => lineage.modelDigest);
  return digests.filter((digest, i) => digest !== digests[i - 1]);
};

describe('a change of the model', { timeout: 60_000 }, () => {
  it('switches under load at a batch boundary, and back: versions without a gap, every output the full encode of its model', async () => {
    const world = flowing();
    await load(world, () => true, 60);
    const before = await world.slot.current.encoder.cachedUsers();
    const first = world.slot.current;
    await world.changes.change('/next');
    expect(world.changes.status).toMatchObject({
      serving: { digest: old.digest },
      change: { bundle: '/next', digest: next.digest },
    });
    await load(world, () => world.served.length === 2);
    await world.changes.settled();
    expect(world.changes.status).toMatchObject({ serving: { digest: next.digest }, change: null, last: { outcome: 'switched' } });
    expect(before).toHaveLength(USERS);
    await expect(first.encoder.stats()).rejects.toThrow('is closed');
    await load(world, () => true, 20);
    await world.changes.change();
    await load(world, () => world.served.length === 3);
    await world.changes.settled();
    await load(world, () => true, 20);
    expect(problemsOf(world)).toEqual([]);
    expect(digestsOf(world)).toEqual([old.digest, next.digest, old.digest]);
    expect(Math.max(...(await world.deviations()))).toBeLessThan(1e-5);
    // The other model's encodes are far away, so that a wrong digest would show.
    const other = await world.deviations((digest) => (digest === old.digest ? next.digest : old.digest));
    expect(Math.min(...other)).toBeGreaterThan(1e-2);
  });

  it('finds the users of the old cache in its own', async () => {
    const world = flowing();
    await load(world, () => true, 60);
    const before = await world.slot.current.encoder.cachedUsers();
    await world.changes.change('/next');
    await world.changes.settled();
    const { encoder } = world.slot.current;
    expect(await encoder.cachedUsers()).toEqual(before);
    const { outcomes: prefilled } = await encoder.stats();
    await load(world, () => true, USERS);
    const { outcomes } = await encoder.stats();
    expect(outcomes.cold).toBe(prefilled.cold);
    expect(problemsOf(world)).toEqual([]);
  });

  it('is refused for an incompatible vocabulary, a bundle that is none, and memory that is not there; the old one goes on', async () => {
    const world = flowing({ availableBytes: 1_000 });
    await load(world, () => true, 20);
    await expect(world.changes.change('/shorter')).rejects.toThrow("entities: 5 removed ('item:26' of place 26, 'item:27'");
    await expect(world.changes.change('/nowhere')).rejects.toThrow('is not a folder');
    await expect(world.changes.change('/next')).rejects.toThrow(/needs about 1 MiB beside .* free: 1 MiB/);
    expect(world.ended.map(({ outcome }) => outcome)).toEqual(['refused', 'refused', 'refused']);
    await load(world, () => true, 20);
    expect(digestsOf(world)).toEqual([old.digest]);
    // What is served already is no change.
    expect((await world.changes.change('/old')).change).toBeNull();
  });

  it('fails when the new thread dies on the way; the old one goes on, and it can be tried again', async () => {
    const world = flowing({ settings: { model: { change: { usersPerSecond: 5 } }, encoder: { kvBudgetBytes: 2 ** 20 } } });
    await load(world, () => true, 40);
    const { status } = world.changes;
    await world.changes.change('/next');
    await expect.poll(() => world.changes.status.change?.users.cached, PATIENT).toBe(1);
    while (world.changes.status.change !== null) {
      await world.crashNext();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await world.changes.settled();
    expect(world.ended.at(-1)).toMatchObject({ outcome: 'failed', problem: expect.stringContaining('died') });
    expect(world.changes.status.serving).toEqual(status.serving);
    await world.changes.change('/next');
    // Called off by asking for what is served.
    await world.changes.change('/old');
    expect(world.ended.at(-1)).toMatchObject({ outcome: 'called off' });
    await load(world, () => true, 10);
    expect(digestsOf(world)).toEqual([old.digest]);
  });

  it('goes through a rebalance, and ends with a shutdown', async () => {
    const world = flowing({ settings: { model: { change: { usersPerSecond: 2 } }, encoder: { kvBudgetBytes: 2 ** 20 } } });
    await load(world, () => true, 40);
    await world.changes.change('/next');
    await expect.poll(() => world.changes.status.change?.phase, PATIENT).toBe('prefilling');
    await world.drain();
    world.start();
    await load(world, () => true, 20);
    expect(world.changes.status.change?.phase).toBe('prefilling');
    await world.close();
    expect(world.ended.at(-1)).toMatchObject({ outcome: 'called off' });
    expect(problemsOf(world)).toEqual([]);
    expect(digestsOf(world)).toEqual([old.digest]);
  });

  it('is hurried where a state is taken over that only the next model can go on with', async () => {
    const world = flowing({ settings: { model: { change: { usersPerSecond: 1 } }, encoder: { kvBudgetBytes: 2 ** 20 } } });
    await load(world, () => true, 40);
    const foreign = signatureOf(wider, 4_096);
    expect(() => world.changes.requireCompatible(foreign, 'partition 0')).toThrow('the state knows 40, the bundle has 30');
    await world.changes.change('/wider');
    await expect.poll(() => world.changes.status.change?.phase, PATIENT).toBe('prefilling');
    await world.drain();
    world.changes.requireCompatible(foreign, 'partition 0');
    expect(world.slot.current.bundle.digest).toBe(wider.digest);
    world.start();
    await world.changes.settled();
    expect(world.ended.at(-1)).toMatchObject({ outcome: 'switched' });
    await load(world, () => true, 20);
    expect(digestsOf(world)).toEqual([old.digest, wider.digest]);
    expect(Math.max(...(await world.deviations()))).toBeLessThan(1e-5);
  });

  it('cannot go back to a model that lacks entities which sequences may hold by now', async () => {
    const world = flowing();
    await world.changes.change('/wider');
    await world.changes.settled();
    await expect(world.changes.change('/old')).rejects.toThrow('entities: 10 removed');
  });
});
