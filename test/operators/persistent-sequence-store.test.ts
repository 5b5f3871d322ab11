import fc from 'fast-check';
import { from } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { PersistentSequenceStore } from '../../operators/persistent-sequence-store.ts';
import { sequence } from '../../operators/sequence.ts';
import type { SequencedBatch, TakenChanges } from '../../schemas/batch.ts';
import type { StateReader } from '../../schemas/state.ts';
import { decodedBatch, type EventSpec, event, tokenizer } from './fixtures.ts';
import type { ReferenceOptions } from './reference-sequence.ts';
import { eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';
import { give, MapStore, newSequence, sequenceOptions, viewOf } from './state-records.ts';

const options: ReferenceOptions = { maxLength: 8, blockLength: 3, seenLimit: 5 };
const storeOver = (reader: StateReader, hotUsers: number, given = options, users = 0) =>
  new PersistentSequenceStore({ reader, hotUsers, users, ...sequenceOptions(given) });

/** An event of entity -1 erases its user. */
const apply = (store: PersistentSequenceStore, given: ReferenceOptions, events: readonly EventSpec[]): string[] =>
  events.map((spec) =>
    spec.entity < 0
      ? String(store.delete(spec.userId))
      : give(
          store.getOrCreate(spec.userId, () => newSequence(given)),
          spec,
        ),
  );

/** All histories by definition: everything that was not rolled back, in one go, in memory. */
function expectedUsers(given: ReferenceOptions, batches: readonly (readonly EventSpec[])[]) {
  const users = new Map<string, ReturnType<typeof newSequence>>();
  const dispositions = batches.map((events) =>
    events.map((spec) => {
      if (spec.entity < 0) return String(users.delete(spec.userId));
      const user = users.get(spec.userId) ?? newSequence(given);
      users.set(spec.userId, user);
      return give(user, spec);
    }),
  );
  return { users, last: dispositions.at(-1) ?? [] };
}

const stepArbitrary = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('batch' as const), events: fc.integer({ min: 0, max: 30 }) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('commit' as const), events: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('rollback' as const), events: fc.integer({ min: 0, max: 5 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('look' as const), events: fc.constant(0) }) },
);

/** Wrong in one way, to see that the law notices. */
type Fault = 'none' | 'evicts-nothing-pinned' | 'loses-erasures' | 'keeps-rolled-back';

function runScript(
  given: ReferenceOptions,
  hotUsers: number,
  events: readonly EventSpec[],
  steps: readonly { do: string; events: number }[],
  met: Record<string, number>,
  fault: Fault = 'none',
) {
  const reader = new MapStore();
  const store = storeOver(reader, hotUsers, given);
  let committed: EventSpec[][] = [];
  let pending: { events: EventSpec[]; taken: TakenChanges }[] = [];
  let at = 0;
  const next = (count: number) => {
    at += count;
    return events.slice(at - count, at);
  };
  const check = () => {
    const { users } = expectedUsers(given, [...committed, ...pending.map((entry) => entry.events)]);
    for (let i = 1; i <= 6; i++) expect(viewOf(store.get(`u${i}`)), `u${i}`).toEqual(viewOf(users.get(`u${i}`)));
    expect(store.size).toBe(users.size);
  };
  for (const step of steps) {
    if (step.do === 'batch') {
      const batch = next(step.events);
      const dispositions = apply(store, given, batch);
      const taken = store.takeChanges();
      pending.push({ events: batch, taken });
      const expected = expectedUsers(given, [...committed, ...pending.map((entry) => entry.events)]);
      expect(dispositions).toEqual(expected.last);
      if (batch.some(({ entity }) => entity < 0)) met['erased']!++;
      if (pending.length > 1) met['pipelined']!++;
    } else if (step.do === 'commit') {
      const entry = pending.shift();
      if (entry === undefined) continue;
      committed.push(entry.events);
      const { changes, mark } = entry.taken;
      reader.apply(fault === 'loses-erasures' ? changes.filter(({ value }) => value !== null) : changes);
      store.committed(mark);
      if (fault === 'evicts-nothing-pinned') for (const later of pending) store.committed(later.taken.mark);
      met['committed']!++;
    } else if (step.do === 'rollback') {
      // In the middle of a batch.
      apply(store, given, next(step.events));
      if (fault === 'keeps-rolled-back') store.takeChanges();
      else store.rollback();
      const late = pending;
      pending = [];
      if (late.length > 0) met['rolledBack']!++;
      for (const { taken } of late) store.committed(taken.mark);
    }
    check();
    const pinned = new Set(pending.flatMap((entry) => entry.events.map(({ userId }) => userId))).size;
    expect(store.hotSize).toBeLessThanOrEqual(Math.max(hotUsers, pinned));
    if (store.hotSize < store.size) met['cold']!++;
  }
  for (const { events: batch, taken } of pending) {
    committed = [...committed, batch];
    reader.apply(taken.changes);
    store.committed(taken.mark);
  }
  pending = [];
  check();
  // A new process over the same records; an erased user's are gone.
  const { users } = expectedUsers(given, committed);
  const again = storeOver(reader, 1, given, users.size);
  for (let i = 1; i <= 6; i++) expect(viewOf(again.get(`u${i}`))).toEqual(viewOf(users.get(`u${i}`)));
  if (users.size === 0) expect(reader.records.size).toBe(0);
  expect(store.takeChanges().changes).toEqual([]);
}

const scriptArbitrary = [
  optionsArbitrary,
  fc.integer({ min: 1, max: 5 }),
  eventsArbitrary(6, 300),
  fc.array(stepArbitrary, { minLength: 5, maxLength: 40 }),
] as const;

describe('PersistentSequenceStore', () => {
  it('holds what the events make of the users, whatever is evicted, in flight, committed and rolled back', () => {
    const met = { erased: 0, pipelined: 0, committed: 0, rolledBack: 0, cold: 0 };
    fc.assert(
      fc.property(...scriptArbitrary, (given, hotUsers, events, steps) => runScript(given, hotUsers, events, steps, met)),
      { numRuns: 150 },
    );
    for (const [what, count] of Object.entries(met)) expect(count, what).toBeGreaterThan(50);
  });

  it.each(['evicts-nothing-pinned', 'loses-erasures', 'keeps-rolled-back'] as const)(
    'is not what the law accepts: %s',
    (fault) => {
      const met = { erased: 0, pipelined: 0, committed: 0, rolledBack: 0, cold: 0 };
      expect(() =>
        fc.assert(
          fc.property(...scriptArbitrary, (given, hotUsers, events, steps) =>
            runScript(given, hotUsers, events, steps, met, fault),
          ),
          { numRuns: 150, endOnFailure: true, seed: 1 },
        ),
      ).toThrow();
    },
  );

  const taken = (store: PersistentSequenceStore, reader: MapStore) => {
    const { changes, mark } = store.takeChanges();
    reader.apply(changes);
    store.committed(mark);
    return changes.length;
  };

  it('does not evict a user whom the current batch holds', () => {
    const reader = new MapStore();
    const store = storeOver(reader, 1);
    apply(store, options, [event('a', 'e0', 1)]);
    taken(store, reader);
    const held = store.getOrCreate('a', () => newSequence(options));
    for (let i = 0; i < 20; i++) apply(store, options, [event(`b${i}`, 'e', 1)]);
    held.add('e1', 2, 5);
    expect(taken(store, reader)).toBe(21);
    expect(store.hotSize).toBe(1);
    expect(storeOver(reader, 1).get('a')?.version).toBe(2);
  });

  it('evicts the user not asked for the longest', () => {
    const reader = new MapStore();
    const store = storeOver(reader, 2);
    apply(store, options, [event('a', 'e', 1), event('b', 'e', 1)]);
    taken(store, reader);
    store.get('a');
    apply(store, options, [event('c', 'e', 1)]);
    taken(store, reader);
    // Whoever is in memory needs no records.
    reader.records.clear();
    expect(['a', 'b', 'c'].map((userId) => store.get(userId)?.version)).toEqual([1, undefined, 1]);
  });

  it('erases a user who is not in memory, and begins anew over the old records', () => {
    const reader = new MapStore();
    const long = { maxLength: 100, blockLength: 10, seenLimit: 500 };
    const history = Array.from({ length: 80 }, (_, i) => event('a', `e${i}`, i, i + 1));
    const store = storeOver(reader, 1, long);
    apply(store, long, history);
    taken(store, reader);
    apply(store, long, [event('b', 'e', 1)]);
    taken(store, reader);
    expect([store.hotSize, store.size, reader.records.size]).toEqual([1, 2, 5]);
    expect([store.delete('a'), store.delete('a'), store.get('a')]).toEqual([true, false, undefined]);
    const { changes, mark } = store.takeChanges();
    expect(changes.map(({ value }) => value)).toEqual([null, null, null, null]);
    // Not yet committed: the records are still there, the user is not.
    expect([store.get('a'), store.size]).toEqual([undefined, 1]);
    apply(store, long, history.slice(0, 40));
    const { changes: anew, mark: later } = store.takeChanges();
    expect(anew.map(({ value }) => value !== null)).toEqual([true, true]);
    reader.apply(changes);
    store.committed(mark);
    expect(store.get('a')?.version).toBe(40);
    reader.apply(anew);
    store.committed(later);
    expect(storeOver(reader, 1, long).get('a')?.version).toBe(40);
    // Erased and back within one batch: what is not written over is removed.
    apply(store, long, [event('a', 'x', 0, -1), event('a', 'n', 5, 3)]);
    expect(store.takeChanges().changes.map(({ value }) => value !== null)).toEqual([false, true]);
    store.rollback();
    expect(store.get('a')?.version).toBe(40);
  });

  it('gives nothing for a batch that changed nothing', () => {
    const reader = new MapStore();
    const store = storeOver(reader, 9);
    apply(store, options, [event('a', 'e0', 1)]);
    expect(taken(store, reader)).toBe(1);
    apply(store, options, [event('a', 'e0', 1), event('x', 'e', 1, -1)]);
    expect(store.takeChanges().changes).toEqual([]);
    apply(store, options, [event('n', 'e', 1), event('n', 'x', 1, -1)]);
    expect(store.takeChanges().changes).toEqual([]);
    expect([store.hotSize, store.size, store.bytes > 0]).toEqual([1, 1, true]);
  });

  it('says which record is damaged, and does not go on', () => {
    const reader = new MapStore();
    const store = storeOver(reader, 1);
    apply(store, options, [event('a', 'e0', 1)]);
    taken(store, reader);
    for (const [key, value] of reader.records) reader.records.set(key, Uint8Array.from(value).fill(1, 2, 3));
    const damaged = expect.objectContaining({ code: 'STATE_CORRUPTED' });
    const again = storeOver(reader, 1);
    for (const touch of [() => again.get('a'), () => again.delete('a'), () => again.getOrCreate('a', () => newSequence(options))])
      expect(touch).toThrowError(damaged);
    expect(again.takeChanges().changes).toEqual([]);
  });

  it.each([{ hotUsers: 0 }, { seenLimit: 0 }, { window: { maxLength: 1, blockLength: 2 } }])('refuses %o', (wrong) => {
    const right = { reader: new MapStore(), hotUsers: 1, ...sequenceOptions(options) };
    expect(() => new PersistentSequenceStore({ ...right, ...wrong })).toThrowError(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });
});

describe('sequence over stores of records', () => {
  it('takes the store of each batch, and the batch carries what changed', () => {
    const stores = [0, 1].map(() => storeOver(new MapStore(), 5));
    const out: SequencedBatch[] = [];
    const batches = [
      decodedBatch(0, [event('a', 'e0', 1), event('b', 'e1', 1)], 0),
      decodedBatch(0, [event('a', 'e0', 1)], 1),
      decodedBatch(2, [event('a', 'e0', 1)], 0),
    ];
    from(batches)
      .pipe(sequence({ tokenizer, ...sequenceOptions(options), store: ({ partition }) => stores[partition]! }))
      .subscribe((batch) => void out.push(batch));
    expect(out.map(({ state }) => [state?.changes.length, state?.mark])).toEqual([
      [2, 1],
      [1, 1],
      [0, 2],
    ]);
    expect(stores.map(({ size }) => size)).toEqual([2, 1]);
  });
});
