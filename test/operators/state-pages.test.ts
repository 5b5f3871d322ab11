import * as zlib from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tableCrc32 } from '../../operators/state-bytes.ts';
import { isHeadKey, RECORD_KINDS, UserKeys } from '../../operators/state-keys.ts';
import { changesOf, loadSequence } from '../../operators/state-pages.ts';
import { UserSequence } from '../../operators/user-sequence.ts';
import { RESERVED_KEY_PREFIX, type StateChange } from '../../schemas/state.ts';
import type { EventSpec } from './fixtures.ts';
import type { ReferenceOptions } from './reference-sequence.ts';
import { chunksOf, eventsArbitrary, optionsArbitrary } from './sequence-arbitraries.ts';
import { give, MapStore, newSequence, recordsOf, sequenceOptions, viewOf } from './state-records.ts';

const USER = 'user-1';
const sizesArbitrary = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 });
const corrupted = expect.objectContaining({ code: 'STATE_CORRUPTED' });
const incompatible = expect.objectContaining({ code: 'STATE_INCOMPATIBLE' });

const kindOf = ({ key }: StateChange) =>
  Object.entries(RECORD_KINDS).find(([, kind]) => kind === key[key.length - 5])?.[0] ?? 'none';
const pageOf = ({ key }: StateChange) => Buffer.from(key).readUInt32BE(key.length - 4);
const describeAll = (changes: readonly StateChange[]) =>
  changes.map(
    (change) => `${change.value === null ? '-' : '+'}${kindOf(change)}${kindOf(change) === 'head' ? '' : pageOf(change)}`,
  );

/** Gives the same events to a sequence that stays in memory and to one that is read anew for every chunk. */
function compareReloaded(options: ReferenceOptions, chunks: readonly EventSpec[][], met: Record<string, number>): void {
  const store = new MapStore();
  let live = newSequence(options);
  let reloaded = newSequence(options);
  for (const chunk of chunks) {
    const before = viewOf(live);
    for (const event of chunk) {
      if (event.entity < 0) {
        // Stands for an erasure: another sequence takes the records over.
        const [nextLive, nextReloaded] = [newSequence(options), newSequence(options)];
        nextLive.replace(live);
        nextReloaded.replace(reloaded);
        [live, reloaded] = [nextLive, nextReloaded];
        met['erased']!++;
        continue;
      }
      const disposition = give(live, event);
      expect(give(reloaded, event)).toBe(disposition);
      met[disposition]!++;
    }
    const changes = changesOf(USER, live);
    expect(recordsOf(changesOf(USER, reloaded))).toEqual(recordsOf(changes));
    expect(changesOf(USER, live)).toEqual([]);
    if (changes.length === 0) expect(viewOf(live)).toEqual(before);
    else met['changed']!++;
    store.apply(changes);
    const loaded = loadSequence(USER, store, sequenceOptions(options));
    if (live.isEmpty) expect(loaded).toBe(undefined);
    else expect(viewOf(loaded)).toEqual(viewOf(live));
    if (live.windowStart > 0) met['slid']!++;
    if (live.seenStart > 0) met['forgotten']!++;
    reloaded = loaded ?? newSequence(options);
    // Nothing is left behind.
    const full = (start: number, end: number, length: number) => Math.floor(end / length) - Math.floor(start / length);
    const { tokens, kept, seen } = live.parts;
    expect(store.records.size).toBe(
      Number(!live.isEmpty) +
        full(tokens.start, tokens.accepted, 32) +
        full(kept.start, kept.accepted, 32) +
        full(seen.start, seen.end, 64),
    );
  }
}

const newMet = () => ({ appended: 0, inserted: 0, duplicate: 0, late: 0, kept: 0, erased: 0, changed: 0, slid: 0, forgotten: 0 });

describe('a sequence read from its records', () => {
  it('goes on as if it had never left memory, whatever the history and wherever it is cut', () => {
    const met = newMet();
    fc.assert(
      fc.property(optionsArbitrary, eventsArbitrary(1, 200), sizesArbitrary, (options, events, sizes) =>
        compareReloaded(options, chunksOf(events, sizes), met),
      ),
      { numRuns: 150 },
    );
    for (const [what, count] of Object.entries(met)) expect(count, what).toBeGreaterThan(100);
  });

  it.each([
    { maxLength: 8, blockLength: 3, seenLimit: 5 },
    { maxLength: 200, blockLength: 50, seenLimit: 100 },
    { maxLength: 64, blockLength: 32, seenLimit: 4096 },
  ])('does so over many pages: $maxLength / $blockLength / $seenLimit', (options) => {
    const met = newMet();
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 90 }), sizesArbitrary, (seed, late, sizes) => {
        let state = seed | 1;
        const random = (below: number) => {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          return Math.floor((state / 2 ** 32) * below);
        };
        const events = Array.from({ length: 700 }, (_, i) => ({
          userId: USER,
          eventId: random(50) === 0 ? `id-${random(i + 1)}` : `id-${i}`,
          timeMs: 1.7e12 + 250 * (random(20) === 0 ? i - random(late) : i),
          entity: random(3) === 0 ? 0 : random(700) === 0 ? -1 : 1 + random(150),
        }));
        compareReloaded(options, chunksOf(events, sizes), met);
      }),
      { numRuns: 15 },
    );
    expect(met.inserted).toBeGreaterThan(50);
    expect(met.slid).toBeGreaterThan(50);
    expect(met.changed).toBeGreaterThan(100);
  });

  it('keeps times and ids of every kind', () => {
    const times = [-5, 0, 0.5, 1.7e12 + 0.25, 2 ** 52, 1e300, -1e300, -0];
    const ids = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('', '\0', '\ud800', '\udfff!', 'a\ud83d', '\u00ff', '😀'),
    );
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            eventId: ids,
            timeMs: fc.constantFrom(...times),
            entity: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
          }),
        ),
        ids,
        (events, userId) => {
          const options = { maxLength: 5, blockLength: 2, seenLimit: 50 };
          const store = new MapStore();
          const sequence = newSequence(options);
          for (const { eventId, timeMs, entity } of events) sequence.add(eventId, timeMs, entity);
          store.apply(changesOf(userId, sequence));
          const loaded = loadSequence(userId, store, sequenceOptions(options));
          if (events.length > 0) expect(viewOf(loaded)).toEqual(viewOf(sequence));
          for (const { eventId } of events) expect(loaded?.classify(eventId, 1e301)).toBe(sequence.classify(eventId, 1e301));
        },
      ),
    );
  });
});

describe('changesOf', () => {
  const options = { maxLength: 400, blockLength: 100, seenLimit: 4096 };
  const fill = (count: number) => {
    const sequence = newSequence(options);
    for (let i = 0; i < count; i++) sequence.add(`e${i}`, 1000 * i, i + 1);
    changesOf(USER, sequence);
    return sequence;
  };

  it('writes the head for an append, and the pages that it fills', () => {
    const sequence = fill(0);
    let records = 0;
    for (let i = 0; i < 400; i++) {
      sequence.add(`e${i}`, 1000 * i, i + 1);
      const changes = describeAll(changesOf(USER, sequence));
      const expected = [
        ...((i + 1) % 32 === 0 ? [`+tokens${(i + 1) / 32 - 1}`] : []),
        ...((i + 1) % 64 === 0 ? [`+seen${(i + 1) / 64 - 1}`] : []),
        '+head',
      ];
      expect(changes).toEqual(expected);
      records += changes.length;
    }
    expect(records).toBeLessThan(1.1 * 400);
  });

  it('writes small records, however long the history', () => {
    const sequence = newSequence(options);
    let largest = 0;
    for (let i = 0; i < 2000; i++) {
      sequence.add(`user-actions/3/${1_000_000 + 17 * i}`, 1.7e12 + 60_000 * i, i % 500);
      for (const { value } of changesOf(USER, sequence)) largest = Math.max(largest, value?.length ?? 0);
    }
    expect(largest).toBeLessThan(700);
  });

  it('rewrites the pages from the place of a late event on', () => {
    const sequence = fill(150);
    expect(sequence.add('late', 1000 * 70 + 1, 9)).toBe('inserted');
    expect(describeAll(changesOf(USER, sequence))).toEqual(['+tokens2', '+tokens3', '+head']);
    expect(sequence.add('later', 1000 * 149 - 1, 9)).toBe('inserted');
    expect(describeAll(changesOf(USER, sequence))).toEqual(['+head']);
  });

  it('removes the pages before the window when it slides, and leaves the others alone', () => {
    const sequence = fill(400);
    sequence.add('e400', 1000 * 400, 401);
    expect(sequence.windowStart).toBe(100);
    expect(describeAll(changesOf(USER, sequence))).toEqual(['-tokens0', '-tokens1', '-tokens2', '+head']);
  });

  it('gives nothing for duplicates, and for a user without events', () => {
    const sequence = fill(40);
    expect([sequence.add('e3', 1, 1), sequence.keep('e4', 1)]).toEqual(['duplicate', 'duplicate']);
    expect(changesOf(USER, sequence)).toEqual([]);
    expect(changesOf(USER, newSequence(options))).toEqual([]);
  });

  it('removes every record of a sequence that an empty one replaces', () => {
    const sequence = fill(100);
    const empty = newSequence(options);
    empty.replace(sequence);
    expect(describeAll(changesOf(USER, empty))).toEqual(['-tokens0', '-tokens1', '-tokens2', '-seen0', '-head']);
    expect(changesOf(USER, empty)).toEqual([]);
  });
});

describe('a damaged record', () => {
  const options = { maxLength: 100, blockLength: 10, seenLimit: 4096 };
  const stored = () => {
    const store = new MapStore();
    const sequence = newSequence(options);
    for (let i = 0; i < 70; i++) sequence.add(`e${i}`, 1000 * i, i + 1);
    for (let i = 0; i < 40; i++) sequence.keep(`k${i}`, 1000 * i);
    store.apply(changesOf(USER, sequence));
    return store;
  };
  const load = (store: MapStore) => loadSequence(USER, store, sequenceOptions(options));

  it('is found for every bit of every kind of record', () => {
    const store = stored();
    expect(load(store)?.version).toBe(70);
    expect(store.records.size).toBe(5);
    for (const [key, record] of store.records) {
      for (let bit = 0; bit < 8 * record.length; bit++) {
        const flipped = Uint8Array.from(record);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        store.records.set(key, flipped);
        expect(() => load(store), `${key} bit ${bit}`).toThrowError(corrupted);
      }
      store.records.set(key, record);
    }
    expect(load(store)?.version).toBe(70);
  });

  it('is found where it is missing, cut off, or under the key of another', () => {
    const store = stored();
    const all = [...store.records];
    for (const [key, record] of all) {
      for (let length = 0; length < record.length; length += 7) {
        store.records.set(key, record.subarray(0, length));
        expect(() => load(store)).toThrowError(corrupted);
      }
      for (const [otherKey, other] of all) {
        if (otherKey === key) continue;
        store.records.set(key, other);
        expect(() => load(store)).toThrowError(corrupted);
      }
      store.records.delete(key);
      // Without a head there is no user.
      if (isHeadKey(Buffer.from(key, 'hex'))) expect(load(store)).toBe(undefined);
      else expect(() => load(store)).toThrowError(expect.objectContaining({ message: expect.stringContaining(key) }));
      store.records.set(key, record);
    }
  });

  it('is found where a page is as it was before the head', () => {
    const store = stored();
    const old = new Map(store.records);
    const sequence = load(store)!;
    sequence.add('late', 500, 77);
    store.apply(changesOf(USER, sequence));
    const [page] = [...store.records.keys()].filter((key) => Buffer.from(key, 'hex').at(-5) === RECORD_KINDS.tokens);
    store.records.set(page!, old.get(page!)!);
    expect(() => load(store)).toThrowError(corrupted);
  });

  it('differs from one that was written with other settings, or by another version', () => {
    const store = stored();
    for (const other of [
      { ...options, maxLength: 69 },
      { ...options, seenLimit: 30 },
    ])
      expect(() => loadSequence(USER, store, sequenceOptions(other))).toThrowError(incompatible);
    const key = new UserKeys(USER).key('head');
    const record = Buffer.from(store.get(key)!);
    record[0] = 2;
    record.writeUInt32LE(tableCrc32(record.subarray(0, -4), tableCrc32(key)), record.length - 4);
    store.apply([{ key, value: record }]);
    expect(() => load(store)).toThrowError(incompatible);
  });
});

describe('keys', () => {
  const idArbitrary = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 6 }),
    fc
      .array(fc.constantFrom('\0', '\u0001', '\u0002', '\ud800', '\udc00', 'a', 'ÿ'), { maxLength: 6 })
      .map((parts) => parts.join('')),
    fc.integer({ min: 1020, max: 1030 }).map((length) => 'x'.repeat(length)),
    fc.constantFrom('😀'.repeat(512), '\ud800'.repeat(600), '€'.repeat(1024)),
  );

  it('differ for any two users, kinds and pages, and fit a local store', () => {
    const keyArbitrary = fc.record({
      id: idArbitrary,
      kind: fc.constantFrom('head' as const, 'tokens' as const, 'kept' as const, 'seen' as const),
      page: fc.constantFrom(0, 1, 0x01000000, 0x02020202, 2 ** 32 - 1),
    });
    fc.assert(
      fc.property(fc.array(keyArbitrary, { maxLength: 40 }), (specs) => {
        const names = new Set(specs.map(({ id, kind, page }) => JSON.stringify([id, kind, page])));
        const keys = specs.map(({ id, kind, page }) => new UserKeys(id).key(kind, page));
        expect(new Set(keys.map((key) => key.toString('hex'))).size).toBe(names.size);
        for (const [i, key] of keys.entries()) {
          expect(key.length).toBeLessThan(1978);
          expect(key[0]).not.toBe(RESERVED_KEY_PREFIX);
          expect(isHeadKey(key)).toBe(specs[i]!.kind === 'head');
        }
      }),
    );
    expect(isHeadKey(Uint8Array.of(RESERVED_KEY_PREFIX, 1, 0, 0, 0, 0))).toBe(false);
  });

  it('hashes long ids, and knows whose records they are', () => {
    const options = { maxLength: 9, blockLength: 3, seenLimit: 9 };
    const long = 'é'.repeat(1024);
    const store = new MapStore();
    const sequence = newSequence(options);
    sequence.add('e', 1, 1);
    store.apply(changesOf(long, sequence));
    expect(viewOf(loadSequence(long, store, sequenceOptions(options)))).toEqual(viewOf(sequence));
    // As if two ids had one hash: the head tells them apart.
    const [key] = new UserKeys(long).hashed ? [new UserKeys(long).key('head')] : [];
    const other = new UserSequence(sequenceOptions(options));
    other.add('e', 1, 1);
    const twin = `${long}!`;
    const [head] = changesOf(twin, other);
    const body = Buffer.from(head!.value!);
    body.writeUInt32LE(zlib.crc32(body.subarray(0, -4), zlib.crc32(key!)), body.length - 4);
    store.apply([{ key: key!, value: body }]);
    expect(() => loadSequence(long, store, sequenceOptions(options))).toThrowError(corrupted);
  });

  it('has a checksum of its own for a Node without one', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.uint8Array(), (a, b) => {
        expect(tableCrc32(b, tableCrc32(a))).toBe(zlib.crc32(b, zlib.crc32(a)));
      }),
    );
  });
});
