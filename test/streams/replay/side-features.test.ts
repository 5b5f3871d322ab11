/** Side features out of actions' contexts: a backfill makes the tokens of them that live makes. */
import { tmpdir } from 'node:os';
import { from, lastValueFrom, toArray } from 'rxjs';
import { afterAll, describe, expect, it } from 'vitest';
import { UserSort } from '../../../infra/files/user-sort.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import { InMemorySequenceStore } from '../../../operators/index.ts';
import type { PositionedAction, UserAction } from '../../../schemas/action.ts';
import { parseConfig } from '../../../schemas/config.ts';
import type { StoredState } from '../../../schemas/stored-state.ts';
import { toSequences } from '../../../streams/pipeline.ts';
import { pipelineModel } from '../../../streams/pipeline-model.ts';
import { bulkFlow } from '../../../streams/replay/bulk-flow.ts';
import { userBatches } from '../../../streams/replay/user-batches.ts';
import { verify } from '../../../streams/replay/verify.ts';
import { CACHEABLE, VOCABULARY } from '../../models/bundles.ts';

const bundle = CACHEABLE['plain']!;
const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
afterAll(() => engine.release());

/** The model's first five entities are languages. */
const LANGUAGES = 5;
const plain = pipelineModel(bundle);
const model = {
  ...plain,
  tokenizer: {
    ...plain.tokenizer,
    token: (action: UserAction) => plain.tokenizer.token({ ...action, entity: action.entity.replace('language:', 'item:') }),
    entityOf: (row: number) => (row <= LANGUAGES ? `language:${row}` : plain.tokenizer.entityOf(row)),
  },
};
const settings = parseConfig(
  { bundle: 'none', scores: { topK: 0 }, sequence: { sideFeatures: { namespaces: ['language'], contextAction: 'view' } } },
  'this test',
);

const actions = Array.from({ length: 300 }, (_, i): PositionedAction => {
  const user = (i * i) % 7;
  const language = 1 + (Math.floor(i / 40) % LANGUAGES);
  return {
    userId: `u${user}`,
    eventId: `e${i}`,
    action: 'view',
    entity: `item:${LANGUAGES + 1 + (i % (VOCABULARY - LANGUAGES))}`,
    eventTimeMs: 1_600_000_000_000 + 60_000 * i - (i % 20 === 3 ? 900_000 : 0),
    position: { topic: 't', partition: 0, offset: i },
    ...(i % 3 !== 0 && { context: { language: String(language) } }),
  };
});

/** Live's sequences: one action a batch. */
async function lived(): Promise<InMemorySequenceStore> {
  const store = new InMemorySequenceStore();
  const decoder = {
    decode: ({ position }: { position: PositionedAction['position'] }) => ({
      ok: true as const,
      actions: [actions[position.offset]!],
    }),
  };
  const batches = actions.map(({ position }, i) => ({
    ...position,
    records: [{ position, value: null }],
    nextOffset: i + 1,
    readAtMs: 0,
    ack: () => undefined,
  }));
  await lastValueFrom(from(batches).pipe(toSequences({ decoder, model, settings, store })));
  return store;
}

function sorted(): UserSort {
  const sort = new UserSort({ folder: tmpdir(), memoryBytes: 20_000 });
  for (const action of actions) sort.add(action, 0);
  return sort;
}

describe('side features in a backfill', () => {
  it('are the tokens that live has, however the histories are cut, and what verify recomputes', async () => {
    const store = await lived();
    for (const maxEvents of [7, 1_000]) {
      const sort = sorted();
      const batches = [...userBatches(sort.sorted(), maxEvents)].map(({ actions: own, continues, nextPosition }) => ({
        source: { topic: 'b', partition: 0, records: [], nextOffset: nextPosition, readAtMs: 0, ack: () => undefined, continues },
        actions: own,
      }));
      sort.close();
      const done = await lastValueFrom(
        from(batches).pipe(
          bulkFlow({
            settings,
            model,
            encoder: engine,
            everyEvent: true,
            ranks: false,
            maxInFlight: 1,
            publisher: { publish: () => Promise.resolve() },
            committer: { commit: () => Promise.resolve() },
            now: () => 0,
          }),
          toArray(),
        ),
      );
      const states = new Map<string, Map<number, StoredState>>();
      for (const { userId, version, embedding, queryTimeMs, lineage } of done.flatMap(({ embeddings }) => embeddings)) {
        const versions = states.get(userId) ?? new Map<number, StoredState>();
        states.set(userId, versions.set(version, { ...lineage, embedding, queryTimeMs }));
      }
      let derived = 0;
      for (const [userId, versions] of states) {
        const sequence = store.get(userId)!;
        const newest = Math.max(...versions.keys());
        expect([newest, versions.get(newest)!.sequenceDigest]).toEqual([sequence.version, sequence.digest]);
        derived += sequence.version - actions.filter((action) => action.userId === userId).length;
      }
      expect(derived).toBeGreaterThan(10);
      const again = sorted();
      const stored = { ofUsers: () => Promise.resolve(states), users: () => Promise.resolve(states.keys()) };
      const result = await verify({ sort: again, stored, model, settings, encoder: engine, everyVersion: false, maxEvents });
      again.close();
      expect(result).toMatchObject({ users: states.size, missing: [], extra: [], mismatches: [] });
      expect(result.compared).toBeGreaterThan(250);
    }
  });
});
