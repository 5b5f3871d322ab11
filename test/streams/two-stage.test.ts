/** Retrieve, then rank: what a bundle with both heads publishes with every embedding. */
import { afterEach, describe, expect, it } from 'vitest';
import { EncoderEngine } from '../../models/worker/engine.ts';
import type { CandidateScores } from '../../schemas/output.ts';
import { TopologyDriver, type TopologyDriverOptions } from '../../streams/topology-driver.ts';
import { RANKING, VOCABULARY } from '../models/bundles.ts';

const bundle = RANKING['STU, additive tokens, values, both biases']!;
const mapping = {
  userId: '{user}',
  action: '{action}',
  entity: 'item:{item}',
  eventTime: { field: 'time', unit: 's' as const },
};
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** The newest published list of a history of 30 events, and all that a full pass says of the whole catalogue at that moment. */
async function publish(scores: NonNullable<TopologyDriverOptions['settings']>['scores']) {
  const target = new TopologyDriver({ bundle, mapping, settings: { scores } });
  closing.push(() => target.close());
  const outputs: CandidateScores[] = [];
  for (let n = 0; n < 30; n++) {
    const kind = ['view', 'like', 'view+buy'][n % 3];
    const event = { user: 'ann', action: kind, item: 1 + ((n * 7) % 20), time: 1_500_000_000 + 3_600 * n };
    outputs.push(...(await target.pipe([JSON.stringify(event)])).scores);
  }
  const engine = new EncoderEngine(bundle, { kvBudgetBytes: 0 });
  closing.push(() => engine.release());
  const window = target.store.get('ann')!.snapshot();
  const segment = { ...window, queryTimeS: window.timesS.at(-1)! };
  const all = Int32Array.from({ length: VOCABULARY }, (_, i) => i + 1);
  const [ranked] = await engine.scoreCandidatesInFull([{ userId: 'ann', segment, candidates: all }]);
  const [encoded] = await engine.encode([{ userId: 'ann', segments: [{ ...segment, from: window.entities.length - 1 }] }]);
  const nothing = new Int32Array(1);
  const request = { rows: encoded!.segments[0]!.rows, targets: nothing, seen: nothing, seenCount: nothing, topK: VOCABULARY };
  const [retrieved] = await engine.score([request]);
  return { last: outputs.at(-1)!, outputs, ranked: ranked!, retrieved: [...retrieved!.topEntities] };
}
const seen = new Set(Array.from({ length: 30 }, (_, n) => 1 + ((n * 7) % 20)));
const rowOf = ({ entity }: { readonly entity: string }) => Number(entity.slice('item:'.length));

describe('a bundle that retrieves and ranks', () => {
  it('publishes the best by combined score of the best by dot product, with every task', async () => {
    const { last, outputs, ranked, retrieved } = await publish({ topK: 4, retrieve: 9 });
    expect(outputs).toHaveLength(30);
    const pool = retrieved.filter((row) => !seen.has(row)).slice(0, 9);
    const best = pool.sort((a, b) => ranked.combined[b - 1]! - ranked.combined[a - 1]!).slice(0, 4);
    expect(last.candidates.map(rowOf)).toEqual(best);
    for (const [i, row] of best.entries()) {
      expect(Math.abs(last.candidates[i]!.score - ranked.combined[row - 1]!)).toBeLessThan(1e-4);
      for (const [task, probabilities] of Object.entries(ranked.tasks))
        expect(Math.abs(last.tasks![task]![i]! - probabilities[row - 1]!)).toBeLessThan(1e-4);
    }
    expect(Object.keys(last.tasks!)).toEqual(['like', 'buy', 'hide']);
    // The second stage matters: by dot product alone others come first.
    expect(best).not.toEqual(retrieved.filter((row) => !seen.has(row)).slice(0, 4));
  });

  it('retrieves five times as many as it publishes unless told otherwise, and never fewer', async () => {
    const { last, ranked, retrieved } = await publish({ topK: 2 });
    const order = (pool: readonly number[]) => [...pool].sort((a, b) => ranked.combined[b - 1]! - ranked.combined[a - 1]!);
    const unseen = retrieved.filter((row) => !seen.has(row));
    expect(last.candidates.map(rowOf)).toEqual(order(unseen.slice(0, 10)).slice(0, 2));
    expect((await publish({ topK: 3, retrieve: 1 })).last.candidates.map(rowOf)).toEqual(order(unseen.slice(0, 3)));
  });
});
