/** What a verification sees: all that is wrong, and nothing else. */
import { tmpdir } from 'node:os';
import { from, lastValueFrom, toArray } from 'rxjs';
import { afterAll, describe, expect, it } from 'vitest';
import { UserSort } from '../../../infra/files/user-sort.ts';
import { CatalogueFields } from '../../../models/catalogue/catalogue-fields.ts';
import { Tokenizer } from '../../../models/hstu/tokenizer.ts';
import { EncoderEngine } from '../../../models/worker/engine.ts';
import { sequence, spread } from '../../../operators/index.ts';
import type { PositionedAction } from '../../../schemas/action.ts';
import { parseConfig } from '../../../schemas/config.ts';
import type { StoredState } from '../../../schemas/stored-state.ts';
import { isVerified, verify } from '../../../streams/replay/verify.ts';
import { CACHEABLE, VOCABULARY } from '../../models/bundles.ts';

const bundle = CACHEABLE['plain']!;
const engine = new EncoderEngine(bundle, { kvBudgetBytes: 2 ** 22 });
const settings = parseConfig({ bundle: 'none' }, 'this test');
const model = {
  digest: bundle.digest,
  window: bundle.config.window,
  tokenizer: new Tokenizer(bundle),
  fields: new CatalogueFields(bundle),
};
afterAll(() => engine.release());

const actions = Array.from(
  { length: 400 },
  (_, i): PositionedAction => ({
    userId: `u${(i * i) % 7}`,
    eventId: `e${i % 390}`,
    action: i === 250 ? 'erase' : 'view',
    entity: `item:${1 + (i % VOCABULARY)}`,
    eventTimeMs: 1_600_000_000_000 + 60_000 * i - (i % 20 === 3 ? 900_000 : 0),
    position: { topic: 't', partition: 0, offset: i },
  }),
);

/** What live would have published, event by event. */
async function published(): Promise<Map<string, Map<number, StoredState>>> {
  const batches = actions.map((action, i) => ({
    source: { topic: 't', partition: 0, records: [], nextOffset: i + 1, readAtMs: 0, ack: () => undefined },
    actions: [action],
    deadLetters: [],
  }));
  const units = await lastValueFrom(
    from(batches).pipe(sequence({ ...model, ...settings.sequence, publish: 'every-event' }), spread(), toArray()),
  );
  const states = new Map<string, Map<number, StoredState>>();
  for (const { batch, update } of units) {
    for (const userId of batch.erased ?? []) states.delete(userId);
    if (update === null) continue;
    const [encoded] = await engine.encode([update.request]);
    const versions = states.get(update.userId) ?? new Map<number, StoredState>();
    states.set(update.userId, versions);
    const [{ version, segment, sequenceDigest, queryTimeMs }] = update.publish as [(typeof update.publish)[number]];
    const embedding = encoded!.segments[segment]!.rows.slice(-bundle.config.dimension);
    versions.set(version, { embedding, sequenceDigest, queryTimeMs, modelDigest: bundle.digest });
  }
  return states;
}

async function verified(states: Map<string, Map<number, StoredState>>, of = actions, maxEvents = 33) {
  const sort = new UserSort({ folder: tmpdir(), memoryBytes: 20_000, erasureAction: 'erase' });
  try {
    for (const action of of) sort.add(action, 0);
    return await verify({
      sort,
      stored: { ofUsers: () => Promise.resolve(states), users: () => Promise.resolve(states.keys()) },
      model,
      settings,
      encoder: engine,
      everyVersion: true,
      maxEvents,
    });
  } finally {
    sort.close();
  }
}

describe('verify', () => {
  it.each([7, 33, 1000])('finds what was published every event in order, cut into batches of %i', async (maxEvents) => {
    const result = await verified(await published(), actions, maxEvents);
    expect(result).toMatchObject({ missing: [], extra: [], mismatches: [] });
    expect(result.maxDelta).toBeLessThanOrEqual(1e-5);
    expect(result.compared).toBeGreaterThan(200);
    expect(isVerified(result)).toBe(true);
  });

  it('sees a number, a missing version, an extra version, other tokens, another model, an unknown user', async () => {
    const states = await published();
    const versions = states.get('u1')!;
    const [first, second, third, fourth] = [...versions.keys()];
    versions.get(first!)!.embedding[0]! += 2e-5;
    versions.delete(second!);
    versions.set(third!, { ...versions.get(third!)!, sequenceDigest: '0'.repeat(16) });
    versions.set(fourth!, { ...versions.get(fourth!)!, modelDigest: 'another' });
    versions.set(9_999, versions.get(fourth!)!);
    states.set('nobody', new Map([[1, versions.get(fourth!)!]]));
    const result = await verified(states);
    expect(result.missing).toEqual([`u1/${second}`]);
    expect([...result.extra].sort()).toEqual(['nobody', 'u1/9999']);
    expect(result.mismatches.map(({ version, because }) => [version, because])).toEqual(
      expect.arrayContaining([
        [first, 'numbers'],
        [third, 'tokens'],
        [fourth, 'model'],
      ]),
    );
    expect(result.mismatchCount).toBe(3);
    expect(isVerified(result)).toBe(false);
  });

  it('sees one event more or less', async () => {
    expect(isVerified(await verified(await published(), actions.slice(1)))).toBe(false);
    expect(isVerified(await verified(await published(), actions.slice(0, -1)))).toBe(false);
  });

  it('does not pass for having compared nothing', async () => {
    expect(isVerified(await verified(new Map(), []))).toBe(false);
  });
});
