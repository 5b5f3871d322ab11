/** A model as an instance serves it, lists by the index: both stages, with every embedding and as answers to requests. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { firstValueFrom, of } from 'rxjs';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { IndexReport } from '../../../models/worker/index/list-index.ts';
import { InMemorySequenceStore } from '../../../operators/index.ts';
import { createRecordDecoder } from '../../../schemas/avro/record-decoder.ts';
import { parseConfig } from '../../../schemas/config.ts';
import { compileMapping } from '../../../schemas/record-mapping.ts';
import { type ServedModel, serveModel } from '../../../streams/model-change/served-model.ts';
import { pipeline } from '../../../streams/pipeline.ts';
import { RANKING } from '../../models/bundles.ts';

const bundle = RANKING['STU, additive tokens, values, both biases']!;
const mapping = { userId: '{user}', action: 'view', entity: 'item:{item}', eventTime: { field: 'time', unit: 's' as const } };
const topics = { userActions: 'actions', erasures: '', candidateRequests: 'requests' };
const now = () => Date.UTC(2026, 0, 1);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hstu-served-'));
});
afterAll(() => rm(folder, { recursive: true }));

const served = (index: 'exact' | 'hnsw', onIndex: (report: IndexReport) => void): ServedModel =>
  serveModel(bundle, 'given', {
    config: parseConfig({ bundle: 'given', state: { path: folder }, scores: { index, topK: 4, retrieve: 9 } }, 'test'),
    wiring: {
      decoder: compileMapping(mapping, { now }),
      requests: { topic: topics.candidateRequests, decoder: createRecordDecoder({ topics, now }) },
      publisher: { publish: () => Promise.resolve() },
      now,
    },
    onProvider: () => undefined,
    onIndex,
  });

/** What a history of 30 events publishes, and what a request for the best of the catalogue is answered, some of it denied. */
async function listsOf(model: ServedModel) {
  const store = new InMemorySequenceStore();
  const flow = (topic: string, values: readonly object[]) => {
    const records = values.map((value, offset) => ({ position: { topic, partition: 0, offset }, value: JSON.stringify(value) }));
    const batch = { topic, partition: 0, records, nextOffset: records.length, readAtMs: now(), ack: () => undefined };
    const committer = { commit: () => Promise.resolve() };
    return firstValueFrom(of(batch).pipe(pipeline({ ...model.pipeline, store, committer })));
  };
  const actions = Array.from({ length: 30 }, (_, n) => ({
    user: `user-${n % 3}`,
    item: 1 + ((n * 7) % 20),
    time: 1_500_000_000 + 3_600 * n,
  }));
  const published = await flow('actions', actions);
  const ask = { requestId: 'r', userId: 'user-1', entities: [], topK: 5, deny: ['item:31', 'item:40'], queryTimeMs: now() };
  const answered = await flow('requests', [ask]);
  return [...published.scores, ...answered.scores].map(({ userId, candidates, tasks }) => ({ userId, candidates, tasks }));
}

it('publishes and answers what it would by scanning, as far as the index finds it: here all', async () => {
  const reports: IndexReport[] = [];
  const [indexed, scanned] = [
    served('hnsw', (report) => reports.push(report)),
    served('exact', (report) => reports.push(report)),
  ];
  try {
    await vi.waitFor(() => expect(reports).toHaveLength(1), { timeout: 60_000 });
    const [lists, expected] = [await listsOf(indexed), await listsOf(scanned)];
    expect(lists).toHaveLength(4);
    expect(lists.map(({ userId, candidates }) => [userId, candidates.map(({ entity }) => entity)])).toEqual(
      expected.map(({ userId, candidates }) => [userId, candidates.map(({ entity }) => entity)]),
    );
    expect(lists[3]!.candidates.some(({ entity }) => ['item:31', 'item:40'].includes(entity))).toBe(false);
    expect(Object.keys(lists[0]!.tasks!)).toEqual(['like', 'buy', 'hide']);
    const { index } = await indexed.encoder.stats();
    expect(index!.lists + index!.fellBack).toBe(4);
    expect(index!.lists).toBeGreaterThan(0);
    expect((await scanned.encoder.stats()).index).toBeUndefined();
  } finally {
    await Promise.all([indexed.encoder.close(), scanned.encoder.close()]);
  }
});
