import fc from 'fast-check';
import { from, lastValueFrom, map, toArray } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { gather } from '../../operators/gather.ts';
import { spread } from '../../operators/spread.ts';
import type { ScoredBatch, ScoredUnit, SequencedBatch, UpdateUnit } from '../../schemas/batch.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles, sequencedBatch } from './fixtures.ts';
import { askedOf, unitOf } from './request-fixtures.ts';
import { chunksOf } from './sequence-arbitraries.ts';

const scored = ({ batch, update }: UpdateUnit): ScoredUnit => ({
  batch,
  update: update === null ? null : { update, segments: [], scores: [] },
});
const unitsOf = (batch: SequencedBatch): ScoredUnit[] =>
  batch.updates.length === 0 ? [scored({ batch, update: null })] : batch.updates.map((update) => scored({ batch, update }));
const whole = (batch: SequencedBatch): ScoredBatch => ({ batch, updates: unitsOf(batch).flatMap(({ update }) => update ?? []) });

describe('gather', () => {
  operatorContract('gather', {
    create: () => gather(),
    inputs: () => {
      const [a, b, c] = [sequencedBatch(0, ['a', 'b']), sequencedBatch(2, []), sequencedBatch(2, ['c', 'd'])];
      const units = [a, b, c].flatMap(unitsOf);
      return [units.slice(0, 1), units.slice(1, 4), units.slice(4)];
    },
    view: ({ batch, updates }: ScoredBatch) => [batch.source.nextOffset, updates.map(({ update }) => update.userId)],
  });

  it('lets a batch go with its last unit', () => {
    marbles((_, { cold, expectObservable, expectSubscriptions }) => {
      const [a, b, n] = [sequencedBatch(0, ['a', 'b', 'c']), sequencedBatch(3, ['d']), sequencedBatch(4, [])];
      const units = [a, b, n].flatMap(unitsOf);
      const name = new Map([
        [a, 'a'],
        [b, 'b'],
        [n, 'n'],
      ]);
      const source$ = cold('  -p-q-----r|', { p: units.slice(0, 2), q: units.slice(2, 4), r: units.slice(4) });
      const subscribed = '    ^---------!';
      const expected = '      ---(ab)--n|';
      expectObservable(
        source$.pipe(
          gather(),
          map(({ batch }) => name.get(batch)),
        ),
      ).toBe(expected);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it("keeps a batch's answers with it", async () => {
    const asked = unitOf([askedOf('ann', [1])]);
    const answers = [{ asked: asked.batch.requests![0]!, disposition: 'answered' as const, candidates: [] }];
    const out = await lastValueFrom(from([[{ ...asked, answers }, unitOf(undefined)]]).pipe(gather(), toArray()));
    expect(out.map((batch) => batch.answers)).toEqual([answers, undefined]);
    expect('answers' in out[1]!).toBe(false);
  });

  it('makes a batch wait for those of its partition that came before it, and for no other', () => {
    marbles((_, { cold, expectObservable }) => {
      const [a, b, other] = [sequencedBatch(0, ['a', 'b']), sequencedBatch(2, ['c']), sequencedBatch(0, ['d'], 1)];
      const [a1, a2, b1, o1] = [a, b, other].flatMap(unitsOf);
      const source$ = cold('  p-q-r-s---|', { p: [a1!], q: [b1!], r: [o1!], s: [a2!] });
      const expected = '      ----o-(ab)|';
      const name = new Map([
        [a, 'a'],
        [b, 'b'],
        [other, 'o'],
      ]);
      expectObservable(
        source$.pipe(
          gather(),
          map(({ batch }) => name.get(batch)),
        ),
      ).toBe(expected);
    });
  });

  it('is the inverse of spread, however the units are cut into micro-batches', async () => {
    const batches$ = fc.array(fc.record({ users: fc.nat(4), partition: fc.nat(2) }), { maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(
        batches$,
        fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 4 }),
        async (drawn, sizes) => {
          const batches = drawn.map(({ users, partition }, i) =>
            sequencedBatch(
              10 * i,
              Array.from({ length: users }, (_, u) => `u${u}`),
              partition,
            ),
          );
          const units = await lastValueFrom(from(batches).pipe(spread(), toArray()));
          const out = await lastValueFrom(from(chunksOf(units.map(scored), sizes)).pipe(gather(), toArray()));
          expect(out.length).toBe(batches.length);
          out.forEach((gathered, i) => {
            expect(gathered.batch).toBe(batches[i]);
            expect(gathered).toEqual(whole(batches[i]!));
          });
        },
      ),
    );
  });

  it('keeps the order within each partition, whatever the order of units', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ users: fc.nat(3), partition: fc.nat(2) }), { maxLength: 12 }),
        fc.infiniteStream(fc.nat(1000)),
        async (drawn, random) => {
          const batches = drawn.map(({ users, partition }, i) =>
            sequencedBatch(
              10 * i,
              Array.from({ length: users }, (_, u) => `u${u}`),
              partition,
            ),
          );
          const shuffled = batches.flatMap(unitsOf).map((unit) => ({ unit, at: random.next().value as number }));
          shuffled.sort((a, b) => a.at - b.at);
          const out = await lastValueFrom(from(shuffled.map(({ unit }) => [unit])).pipe(gather(), toArray()));
          for (let partition = 0; partition <= 2; partition++) {
            const arrival = [...new Set(shuffled.map(({ unit }) => unit.batch))].filter(
              ({ source }) => source.partition === partition,
            );
            const left = out.map(({ batch }) => batch).filter(({ source }) => source.partition === partition);
            expect(left.map(({ source }) => source.nextOffset)).toEqual(arrival.map(({ source }) => source.nextOffset));
          }
        },
      ),
    );
  });
});
