/** The catalogue of a model that is served, changed while events flow. */
import { afterEach, describe, expect, it } from 'vitest';
import { Catalogue } from '../../../models/catalogue/overlay.ts';
import type { Bundle } from '../../../models/hstu/bundle.ts';
import { randomBundle } from '../../../models/hstu/random-bundle.ts';
import type { UserEmbedding } from '../../../schemas/output.ts';
import { type ServedModel, withCatalogueOf } from '../../../streams/model-change/served-model.ts';
import { FlowingPartitions } from './flowing-partitions.ts';

const D = 8;
const V = 20;
const base = (seed: number) =>
  randomBundle({ dimension: D, layers: 2, heads: 2, maxSequenceLength: 12, vocabularySize: V, seed, content: { dimension: 3 } });
const old = base(1);
const next = base(2);

/** Version `n` of a catalogue, in which no row of a new entity means what it meant before. */
function catalogueOf(bundle: Bundle, n: number): Bundle {
  const catalogue = new Catalogue(bundle);
  for (let i = 0; i < 4; i++) {
    const k = (n + 3 * i) % 11;
    catalogue.take({ entity: `new:${k}`, content: Float32Array.of(Math.sin(1 + k), Math.cos(k), k / 7) });
  }
  catalogue.take({ entity: `item:${1 + (n % V)}`, retired: true });
  return catalogue.apply();
}

/** Every entity that may be listed, with its row. */
function offered({ entities, catalogue, tensors }: Bundle): Map<string, Float32Array> {
  const table = tensors.get('entity_embedding')!.data;
  const row = (of: Float32Array, i: number) => of.subarray(i * D, (i + 1) * D);
  const retired = new Set(catalogue?.retired);
  return new Map([
    ...entities.flatMap((entity, i) => (retired.has(i + 1) ? [] : [[entity, row(table, i + 1)] as const])),
    ...(catalogue?.entities ?? []).map((entity, k) => [entity, row(catalogue!.rows, k)] as const),
  ]);
}

function scoreOf({ embedding }: UserEmbedding, row: Float32Array): number {
  return row.reduce((sum, value, d) => sum + value * embedding[d]!, 0) / Math.max(Math.hypot(...row), 1e-6);
}

const settings = {
  scores: { topK: 100, seenFilter: false, index: 'exact' as const },
  model: { change: { usersPerSecond: 10_000 } },
  encoder: { provider: 'cpu' as const, kvBudgetBytes: 2 ** 20 },
};
const open: FlowingPartitions[] = [];
afterEach(async () => {
  for (const world of open.splice(0)) await world.close();
});

const tell = ({ bundle, encoder }: ServedModel) => {
  if (bundle.catalogue !== undefined) void encoder.useCatalogue(bundle.catalogue);
};

/** Changes the catalogue under load, `times`; all versions in order come back, with the lists' faults against them. */
async function changing(times: number, { inTime = true, switchAt = -1 } = {}) {
  let version = 0;
  const upToDate = (model: ServedModel) => withCatalogueOf(model, catalogueOf(model.bundle, version));
  const bundles = { '/old': old, '/next': next };
  const world = new FlowingPartitions({ bundles, settings, upToDate, ...(inTime && { onServing: tell }) });
  open.push(world);
  for (version = 1; version <= times; version++) {
    for (let i = 0; i < 12; i++) world.produce((version + i * 7) % 5, 1 + ((version * 5 + i) % V));
    const changed = upToDate(world.slot.current);
    // Out of time: while the batches before are still scored, and named by the catalogue before.
    if (!inTime) tell(changed);
    void world.slot.replace(changed);
    if (version === switchAt) await world.changes.change('/next');
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  version = times;
  for (let i = 0; i < 5; i++) world.produce(i, 1 + i);
  await expect.poll(() => world.underWay, { interval: 5, timeout: 20_000 }).toBe(0);
  await world.changes.settled();
  return { world, faults: faultsOf(world, times), last: lastNames(world) };
}

/** Each list is whole one of the versions, not older than that of the list before in its partition, its scores those of the names. */
function faultsOf(world: FlowingPartitions, times: number): string[] {
  const faults: string[] = [];
  const reached = new Map<number, number>();
  const versions = new Map(
    [old, next].map((bundle) => [
      bundle.digest,
      [offered(bundle), ...Array.from({ length: times }, (_, i) => offered(catalogueOf(bundle, i + 1)))],
    ]),
  );
  for (const { source, embeddings, scores } of world.committed) {
    const from = reached.get(source.partition) ?? 0;
    for (const { userId, version, candidates } of scores) {
      const embedding = embeddings.find((one) => one.userId === userId && one.version === version)!;
      const names = candidates.map(({ entity }) => entity);
      const found = versions
        .get(embedding.lineage.modelDigest)!
        .findIndex((rows, i) => i >= from && rows.size === names.length && names.every((name) => rows.has(name)));
      if (found < 0) {
        faults.push(`${userId} ${version}: of no catalogue from ${from} on: ${names}`);
        continue;
      }
      reached.set(source.partition, Math.max(reached.get(source.partition) ?? 0, found));
      const rows = versions.get(embedding.lineage.modelDigest)![found]!;
      const wrong = candidates.find(({ entity, score }) => Math.abs(score - scoreOf(embedding, rows.get(entity)!)) > 1e-4);
      if (wrong !== undefined) faults.push(`${userId} ${version}: ${wrong.entity} is given the score of another`);
    }
  }
  return faults;
}

const lastNames = (world: FlowingPartitions) =>
  world.committed.slice(-1).flatMap(({ scores }) => scores.at(-1)!.candidates.map(({ entity }) => entity));

describe('a catalogue that is changed between two batches', { timeout: 60_000 }, () => {
  it('is one catalogue a list, whole; embeddings are exact all the while, and the cache is hit as before', async () => {
    const { world, faults, last } = await changing(20);
    expect(faults).toEqual([]);
    expect(new Set(last)).toEqual(new Set(offered(catalogueOf(old, 20)).keys()));
    expect(Math.max(...(await world.deviations()))).toBeLessThan(1e-5);
    const { outcomes } = await world.slot.current.encoder.stats();
    expect(outcomes.cold).toBe(5);
  });

  it('gives new rows the names of old ones where the encoder is told before the batches are through', async () => {
    const { faults } = await changing(20, { inTime: false });
    expect(faults.length).toBeGreaterThan(0);
  });

  it('is that of the next model too, which takes the place between two changes of it', async () => {
    const { world, faults, last } = await changing(20, { switchAt: 10 });
    expect(faults).toEqual([]);
    expect(world.ended.map(({ outcome }) => outcome)).toEqual(['switched']);
    expect(new Set(last)).toEqual(new Set(offered(catalogueOf(next, 20)).keys()));
    expect(Math.max(...(await world.deviations()))).toBeLessThan(1e-5);
  });
});
