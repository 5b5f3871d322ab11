import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PagePool, type PageRun } from '../../../models/kv-cache/page-pool.ts';

const FLOATS = 3;

/** What the pool must be, kept naively: one owner a page. */
class Model {
  readonly pages: number;
  /** The pages of each array, by number. */
  readonly #arrays: readonly (readonly number[])[];
  readonly held = new Map<number, PageRun>();
  #next = 1;

  /** @param longest pages that one array holds */
  constructor(pages: number, longest: number) {
    this.pages = pages;
    const size = Math.min(pages, longest);
    this.#arrays = Array.from({ length: pages === 0 ? 0 : Math.ceil(pages / size) }, (_, array) =>
      Array.from({ length: Math.min(size, pages - array * size) }, (_, i) => array * (size + 1) + i),
    );
  }

  get taken(): Set<number> {
    const pages = [...this.held.values()].flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
    expect(new Set(pages).size, 'runs overlap').toBe(pages.length);
    for (const page of pages) expect(this.#arrays.flat(), `page ${page}`).toContain(page);
    return new Set(pages);
  }

  /** Length of the longest stretch of free pages. */
  get longestFree(): number {
    const { taken } = this;
    let longest = 0;
    for (const array of this.#arrays) {
      let length = 0;
      for (const page of array) {
        length = taken.has(page) ? 0 : length + 1;
        longest = Math.max(longest, length);
      }
    }
    return longest;
  }

  /** Free pages of the array that has the most. */
  get mostFree(): number {
    const { taken } = this;
    return Math.max(0, ...this.#arrays.map((array) => array.filter((page) => !taken.has(page)).length));
  }

  add(run: PageRun): number {
    this.held.set(this.#next, run);
    return this.#next++;
  }
}

const stamp = (pool: PagePool, run: PageRun, owner: number): void => {
  for (const [i] of pool.view(run).entries()) pool.view(run)[i] = owner * 1_000 + i;
};

function check(pool: PagePool, model: Model): void {
  expect(pool.freePages).toBe(model.pages - model.taken.size);
  for (const [owner, run] of model.held)
    expect([...pool.view(run)]).toEqual(Array.from({ length: run.count * FLOATS }, (_, i) => owner * 1_000 + i));
}

type Command =
  | { readonly do: 'allocate'; readonly count: number }
  | { readonly do: 'free'; readonly which: number }
  | { readonly do: 'compact' };
const command: fc.Arbitrary<Command> = fc.oneof(
  { arbitrary: fc.record({ do: fc.constant('allocate' as const), count: fc.integer({ min: 1, max: 6 }) }), weight: 5 },
  { arbitrary: fc.record({ do: fc.constant('free' as const), which: fc.nat() }), weight: 4 },
  { arbitrary: fc.record({ do: fc.constant('compact' as const) }), weight: 1 },
);

const pageCounts = fc.integer({ min: 0, max: 24 });

describe('PagePool', () => {
  it('lends no page twice, keeps what runs hold, finds room whenever there is a run of it, and counts what is free', () => {
    fc.assert(
      fc.property(
        pageCounts,
        fc.integer({ min: 1, max: 30 }),
        fc.array(command, { maxLength: 60, size: 'max' }),
        (pages, longest, commands) => {
          const pool = new PagePool(pages, FLOATS, {
            maxFloats: longest * FLOATS + 1,
            allocate: (floats) => new Float32Array(floats),
          });
          const model = new Model(pages, longest);
          for (const step of commands) {
            if (step.do === 'allocate') {
              const run = pool.allocate(step.count);
              expect(run !== null, `a run of ${step.count}`).toBe(model.longestFree >= step.count);
              if (run === null) continue;
              expect(run.count).toBe(step.count);
              stamp(pool, run, model.add(run));
            } else if (step.do === 'free') {
              const owner = [...model.held.keys()][step.which % Math.max(1, model.held.size)];
              if (owner === undefined) continue;
              pool.free(model.held.get(owner)!);
              model.held.delete(owner);
            } else {
              const owners = [...model.held.keys()].reverse();
              const moved = pool.compact(owners.map((owner) => model.held.get(owner)!));
              for (const [i, owner] of owners.entries()) model.held.set(owner, moved[i]!);
              expect(model.longestFree, 'all free pages of an array in one run').toBe(model.mostFree);
            }
            check(pool, model);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('gives back everything when everything is freed', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 10 }), fc.infiniteStream(fc.nat()), (counts, order) => {
        const pool = new PagePool(20, FLOATS);
        const runs = counts.map((count) => pool.allocate(count)).filter((run) => run !== null);
        while (runs.length > 0) pool.free(runs.splice(order.next().value! % runs.length, 1)[0]!);
        expect(pool.freePages).toBe(20);
        expect(pool.allocate(20)).toEqual({ first: 0, count: 20 });
      }),
    );
  });

  it('is full at no pages', () => {
    const pool = new PagePool(0, FLOATS);
    expect(pool.freePages).toBe(0);
    expect(pool.allocate(1)).toBeNull();
  });
});
