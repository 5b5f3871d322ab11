import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SourceRecord } from '../../../schemas/action.ts';
import {
  decodePlace,
  type ErasurePlace,
  PLACE_KEYS,
  placedOffset,
  placeKey,
  placeRecord,
} from '../../../schemas/erasure-place.ts';
import { nextOfMerged, type WaitingRecords } from '../../../streams/live/erasure-order.ts';
import { ErasurePlaces } from '../../../streams/live/erasure-places.ts';
import { LogOrder } from '../../../streams/replay/log-order.ts';

const record = (topic: string, offset: number, timestampMs: number): SourceRecord => ({
  position: { topic, partition: 0, offset },
  key: null,
  value: null,
  timestampMs,
});
const logOf = (topic: string, timestamps: readonly number[]): SourceRecord[] =>
  timestamps.map((timestampMs, offset) => record(topic, offset, timestampMs));

/** What was taken, `a3` and `e0`, in order. */
type Taken = readonly string[];

/** Reads two logs as an instance does: some records are fetched, some are taken. `steps` says how many, over and over. */
function read(
  actions: readonly SourceRecord[],
  erasures: readonly SourceRecord[],
  {
    steps = [1_000],
    places = [],
    bufferRecords = 1_000,
  }: { readonly steps?: readonly number[]; readonly places?: readonly ErasurePlace[]; readonly bufferRecords?: number } = {},
): { readonly taken: Taken; readonly places: readonly ErasurePlace[] } {
  const known = new ErasurePlaces(places, 0, 0);
  const decided = new Map(places.map((place) => [place.offset, place]));
  const logs = { actions, erasures };
  const at = { actions: { taken: 0, fetched: 0 }, erasures: { taken: 0, fetched: 0 } };
  const waiting = (of: 'actions' | 'erasures'): WaitingRecords => ({
    records: logs[of].slice(at[of].taken, at[of].fetched),
    nextOffset: at[of].taken,
    atEnd: at[of].fetched === logs[of].length,
    full: at[of].fetched - at[of].taken >= bufferRecords,
  });
  const taken: string[] = [];
  for (let i = 0, idle = 0; idle < 100; i++) {
    const step = steps[i % steps.length]!;
    for (const of of ['actions', 'erasures'] as const)
      at[of].fetched = Math.min(logs[of].length, at[of].taken + bufferRecords, at[of].fetched + step);
    const next = nextOfMerged(waiting('actions'), waiting('erasures'), known.placeOf);
    const records =
      next === undefined ? [] : waiting(next.from).records.filter(({ position }) => position.offset < next.beforeOffset);
    const some = records.slice(0, step);
    idle = some.length === 0 ? idle + 1 : 0;
    if (next === undefined) continue;
    at[next.from].taken += some.length;
    for (const { position } of some) taken.push(`${next.from[0]}${position.offset}`);
    if (next.from === 'actions') continue;
    for (const { key, value } of known.changesOf(some, at.actions.taken)) {
      const place = decodePlace(key, value)!;
      decided.set(place.offset, place);
    }
    known.committed(some);
  }
  return { taken, places: [...decided.values()] };
}

/** What a replay sorts to. */
function replayed(actions: readonly SourceRecord[], erasures: readonly SourceRecord[], places: readonly ErasurePlace[] = []) {
  const log = new LogOrder(erasures, places);
  const all = actions.map((action, i) => ({ what: `a${action.position.offset}`, order: log.ofAction(action), i }));
  const found: ErasurePlace[] = [];
  for (const { record: erasure, order, place } of log.erasures()) {
    all.push({ what: `e${erasure.position.offset}`, order, i: all.length });
    found.push(place);
  }
  return { taken: all.sort((a, b) => a.order - b.order || a.i - b.i).map(({ what }) => what), places: found };
}

const MINUTE = 60_000;
const timestamps = fc.array(fc.oneof(fc.integer({ min: 0, max: 30 }), fc.constantFrom(-1, 0, 50 * MINUTE, 1.7e15)), {
  maxLength: 25,
});
const steps = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 });

describe('where an erasure stands among the actions', () => {
  it('behind those that are not younger, of a backlog', () => {
    const { taken, places } = read(logOf('actions', [10, 20, 30, 40]), logOf('erasures', [20, 35]));
    expect(taken).toEqual(['a0', 'a1', 'e0', 'a2', 'e1', 'a3']);
    expect(places.map(({ before }) => before)).toEqual([2, 3]);
  });

  it('a timestamp ahead of its time moves no action behind an erasure', () => {
    const actions = logOf('actions', [50 * MINUTE, 10, 20, 99]);
    expect(read(actions, logOf('erasures', [30])).taken).toEqual(['a0', 'a1', 'a2', 'e0', 'a3']);
    expect(replayed(actions, logOf('erasures', [30])).taken).toEqual(['a0', 'a1', 'a2', 'e0', 'a3']);
  });

  it('waits while an older action may still be fetched', () => {
    const ahead = logOf('actions', [50 * MINUTE]);
    const erasures: WaitingRecords = { records: logOf('erasures', [30]), nextOffset: 0, atEnd: true, full: false };
    const next = (atEnd: boolean, full: boolean) =>
      nextOfMerged({ records: ahead, nextOffset: 0, atEnd, full }, erasures, () => undefined);
    expect(next(false, false)).toBeUndefined();
    expect(next(true, false)).toEqual({ from: 'erasures', beforeOffset: 1 });
    expect(next(false, true)).toEqual({ from: 'erasures', beforeOffset: 1 });
  });

  it('where it stood when it was carried out, whatever the timestamps say', () => {
    const actions = logOf('actions', [10, 20, 30, 40]);
    const erasures = logOf('erasures', [15]);
    const places = [{ offset: 0, timestampMs: 15, before: 3 }];
    expect(read(actions, erasures, { places }).taken).toEqual(['a0', 'a1', 'a2', 'e0', 'a3']);
    expect(replayed(actions, erasures, places).taken).toEqual(['a0', 'a1', 'a2', 'e0', 'a3']);
    // Without it another order: the place is what decides.
    expect(read(actions, erasures).taken).toEqual(['a0', 'e0', 'a1', 'a2', 'a3']);
  });

  it('a place of another record at the same offset says nothing', () => {
    const places = [{ offset: 0, timestampMs: 99, before: 4 }];
    expect(read(logOf('actions', [10, 20]), logOf('erasures', [15]), { places }).taken).toEqual(['a0', 'e0', 'a1']);
    expect(replayed(logOf('actions', [10, 20]), logOf('erasures', [15]), places).taken).toEqual(['a0', 'e0', 'a1']);
  });

  it('a place that the actions never come to holds nothing up, and is decided anew', () => {
    const places = [{ offset: 0, timestampMs: 15, before: 7 }];
    const again = read(logOf('actions', [10, 20]), logOf('erasures', [15]), { places });
    expect(again.taken).toEqual(['a0', 'a1', 'e0']);
    expect(again.places).toEqual([{ offset: 0, timestampMs: 15, before: 2 }]);
  });

  it('law: all is taken once; read again from the start, cut otherwise, live and as a replay, the order is the same', () => {
    fc.assert(
      fc.property(
        timestamps,
        timestamps,
        steps,
        steps,
        fc.integer({ min: 1, max: 8 }),
        (acting, erasing, first, second, bufferRecords) => {
          const actions = logOf('actions', acting);
          const erasures = logOf('erasures', erasing);
          const live = read(actions, erasures, { steps: first, bufferRecords });
          expect([...live.taken].sort()).toEqual([...actions.map((_, i) => `a${i}`), ...erasures.map((_, i) => `e${i}`)].sort());
          expect(live.places).toHaveLength(erasures.length);
          expect(read(actions, erasures, { steps: second, places: live.places }).taken).toEqual(live.taken);
          const replay = replayed(actions, erasures, live.places);
          expect(replay.taken).toEqual(live.taken);
          expect(replay.places).toEqual([...live.places].sort((a, b) => a.offset - b.offset));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('law: what a replay decided, live goes by', () => {
    fc.assert(
      fc.property(timestamps, timestamps, steps, (acting, erasing, cut) => {
        const actions = logOf('actions', acting);
        const erasures = logOf('erasures', erasing);
        const replay = replayed(actions, erasures);
        expect(read(actions, erasures, { steps: cut, places: replay.places }).taken).toEqual(replay.taken);
      }),
      { numRuns: 500 },
    );
  });

  it('law: of a first reading, no action that is not younger than an erasure comes behind it', () => {
    fc.assert(
      fc.property(timestamps, timestamps, (acting, erasing) => {
        const actions = logOf('actions', acting);
        const erasures = logOf('erasures', erasing);
        for (const { taken } of [read(actions, erasures), replayed(actions, erasures)])
          for (const [e, erasure] of erasures.entries())
            for (const [a, action] of actions.entries())
              if (action.timestampMs! <= erasure.timestampMs!)
                expect(taken.indexOf(`a${a}`)).toBeLessThan(taken.indexOf(`e${e}`));
      }),
    );
  });
});

describe('the record of a place', () => {
  it('comes back as it was written; keys stand in the order of offsets', () => {
    const place = { offset: 2 ** 40, timestampMs: 1.7e12, before: 12 };
    const { key, value } = placeRecord(place);
    expect(decodePlace(key, value)).toEqual(place);
    expect(placedOffset(Buffer.from('user'))).toBeUndefined();
    expect(decodePlace(key, null)).toBeUndefined();
    expect(Buffer.compare(placeKey(255), placeKey(256))).toBe(-1);
    expect(Buffer.compare(PLACE_KEYS.first, placeKey(0))).toBe(-1);
    expect(Buffer.compare(placeKey(2 ** 52), PLACE_KEYS.last)).toBe(-1);
  });

  it('is removed when retention has deleted its erasure, with the next commit of erasures', () => {
    const places = [0, 1, 2].map((offset) => ({ offset, timestampMs: 5, before: 9 }));
    const known = new ErasurePlaces(places, 3, 2);
    expect(known.changesOf([record('erasures', 3, 7)], 11)).toEqual([
      { key: placeKey(0), value: null },
      { key: placeKey(1), value: null },
      placeRecord({ offset: 3, timestampMs: 7, before: 11 }),
    ]);
    known.committed([record('erasures', 3, 7)]);
    expect(known.changesOf([], 11)).toEqual([]);
  });
});
