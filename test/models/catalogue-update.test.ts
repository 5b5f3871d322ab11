import { afterEach, describe, expect, it } from 'vitest';
import { Catalogue } from '../../models/catalogue/overlay.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { type Bundle, makeBundle } from '../../models/hstu/bundle.ts';
import { randomBundle } from '../../models/hstu/random-bundle.ts';
import { Tokenizer } from '../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../models/worker/engine.ts';

const D = 16;
const V = 40;
const TOP = 30;

const base = randomBundle({
  dimension: D,
  layers: 1,
  heads: 1,
  maxSequenceLength: 8,
  vocabularySize: V,
  content: { dimension: 3 },
  ranking: { tasks: [{ name: 'like', weight: 1 }], hidden: 0 },
});

const segment = {
  windowStart: 0,
  entities: Int32Array.of(1, 2, 3),
  timesS: Float64Array.of(1, 2, 3),
  pageDigests: new Uint32Array(0),
  queryTimeS: 4,
};

/** What the catalogue is after the first `updates` of a fixed list: new entities, other contents, retired and removed ones. */
function grownBy(updates: number): Bundle {
  const catalogue = new Catalogue(base);
  for (let i = 0; i < updates; i++) {
    const content = Float32Array.of(Math.sin(i), Math.cos(3 * i), i / 5);
    catalogue.take({ entity: `new:${i % 7}`, content, ...(i % 5 === 4 && { retired: true }) });
    if (i % 3 === 0) catalogue.take({ entity: `item:${1 + i}`, retired: true });
    if (i % 4 === 3) catalogue.take({ entity: `new:${i % 3}`, removed: true });
  }
  return catalogue.apply();
}

/** The same as a model that was trained with the new rows; what is retired comes back as rows to hide. */
function trainedWith(grown: Bundle): { readonly bundle: Bundle; readonly retired: Int32Array } {
  const { rows, entities, retired } = grown.catalogue!;
  const shape = [V + 1 + entities.length, D];
  const data = Float32Array.from([...base.tensors.get('entity_embedding')!.data, ...rows]);
  const bundle = makeBundle({
    config: { ...base.config, vocabularySize: V + entities.length },
    entities: [...base.entities, ...entities],
    tensors: new Map(base.tensors).set('entity_embedding', { shape, data }),
  });
  return { bundle, retired };
}

/** A user's embedding, the best of the catalogue for it by name, and what the task heads make of each of them. */
async function answers(encoder: HstuEncoder | EncoderEngine, named: Bundle, hidden: Int32Array) {
  const [encoded] = await encoder.encode([{ userId: 'u', segments: [{ ...segment, from: 2 }] }]);
  const { rows } = encoded!.segments[0]!;
  const seen = { targets: Int32Array.of(0), seen: hidden, seenCount: Int32Array.of(hidden.length) };
  const [listed] = await encoder.score([{ rows, ...seen, topK: TOP }]);
  const { topEntities: candidates, topScores } = listed!;
  const [judged] = await encoder.scoreCandidates([{ userId: 'u', segment, candidates }]);
  const tokenizer = new Tokenizer(named);
  return {
    names: Array.from(candidates, (row) => tokenizer.entityOf(row)),
    scores: [...topScores, ...judged!.combined, ...rows],
  };
}

describe('a catalogue that changes under a running encoder', () => {
  const engines: EncoderEngine[] = [];
  const open = (bundle: Bundle) => {
    const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 20 });
    engines.push(engine);
    return engine;
  };
  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.release()));
  });

  it('answers after every update as a model trained with those rows; one that was not told does not', async () => {
    const told = open(base);
    const untold = open(grownBy(1));
    for (const updates of [1, 6, 13]) {
      const grown = grownBy(updates);
      const { bundle, retired } = trainedWith(grown);
      told.useCatalogue(grown.catalogue!);
      const wanted = await answers(open(bundle), bundle, retired);
      const found = await answers(told, grown, new Int32Array(0));
      expect(found.names).toEqual(wanted.names);
      for (const [i, score] of found.scores.entries()) expect(score).toBeCloseTo(wanted.scores[i]!, 4);
      const control = await answers(untold, grown, new Int32Array(0));
      if (updates > 1) expect(control.names).not.toEqual(wanted.names);
    }
    expect(told.stats.outcomes.hit).toBeGreaterThan(0);
  });

  it('is one catalogue a call, for threads that follow dead ones too; rows that it no longer has are refused', async () => {
    const encoder = new HstuEncoder(grownBy(1));
    try {
      const after = grownBy(13);
      const rows = Float32Array.from({ length: D }, (_, d) => Math.cos(d));
      const ask = async () => {
        const none = { targets: Int32Array.of(0), seen: new Int32Array(0), seenCount: Int32Array.of(0) };
        const [listed] = await encoder.score([{ rows, ...none, topK: TOP }]);
        return [...listed!.topEntities];
      };
      const [first, second, , third] = await Promise.all([ask(), ask(), encoder.useCatalogue(after.catalogue!), ask()]);
      expect(second).toEqual(first);
      expect(third).not.toEqual(first);
      await encoder.crash();
      expect(await ask()).toEqual(third);
      const newest = -after.catalogue!.entities.length;
      await encoder.useCatalogue(grownBy(1).catalogue!);
      expect(await ask()).toEqual(first);
      const request = encoder.scoreCandidates([{ userId: 'u', segment, candidates: Int32Array.of(newest) }]);
      await expect(request).rejects.toThrow(`candidate row ${newest}`);
    } finally {
      await encoder.close();
    }
  });
});
