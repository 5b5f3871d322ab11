import fc from 'fast-check';
import { from, lastValueFrom, map, of, range, Subject, take, toArray, VirtualTimeScheduler } from 'rxjs';
import type { TestScheduler } from 'rxjs/testing';
import { describe, expect, it, vi } from 'vitest';
import { type Committer, orderedCommit } from '../../operators/ordered-commit.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { operatorContract } from '../support/operator-contract.ts';
import { marbles, outputBatch, virtualPromise } from './fixtures.ts';

const instant: Committer = { commit: async () => {} };
const taking = (scheduler: TestScheduler | VirtualTimeScheduler, delayMs: number): Committer => ({
  commit: () => virtualPromise(scheduler, delayMs, () => {}),
});

describe('orderedCommit', () => {
  operatorContract('orderedCommit', {
    create: () => orderedCommit({ committer: instant }),
    inputs: () => [outputBatch(0), outputBatch(2), outputBatch(2, 0), outputBatch(4)],
    view: ({ source }: OutputBatch) => source.nextOffset,
  });

  it('commits the batches of a partition one after another', () => {
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: outputBatch(0), b: outputBatch(1), c: outputBatch(2) };
      const source$ = cold('  ab-------c|', batches);
      const subscribed = '    ^---------!';
      const expected = '      ---a--b-----(c|)';
      //                      ......   ...
      expectObservable(source$.pipe(orderedCommit({ committer: taking(scheduler, 3) }))).toBe(expected, batches);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
  });

  it("does not let partitions wait for each other; one number in two topics is one: its users' state is one", () => {
    marbles((scheduler, { cold, expectObservable }) => {
      const c = outputBatch(2, 0);
      const batches = { a: outputBatch(0, 0), b: outputBatch(1, 1), c: { ...c, source: { ...c.source, topic: 'others' } } };
      const source$ = cold('  abc--|', batches);
      const expected = '      ---ab-(c|)';
      expectObservable(source$.pipe(orderedCommit({ committer: taking(scheduler, 3) }))).toBe(expected, batches);
    });
  });

  it('acknowledges once, after the commit and before the batch is let on', async () => {
    const log: string[] = [];
    const batch = outputBatch(0, 0, () => log.push('ack'));
    const committer = { commit: async () => void log.push('commit') };
    await lastValueFrom(of(batch).pipe(orderedCommit({ committer }))).then(() => log.push('done'));
    expect(log).toEqual(['commit', 'ack', 'done']);
  });

  it('passes the error of a commit and acknowledges neither it nor what is behind it', () => {
    const failure = new PipelineError('STORE_FAILED', 'disk full');
    const acks = [vi.fn(), vi.fn(), vi.fn()] as const;
    marbles((scheduler, { cold, expectObservable, expectSubscriptions }) => {
      const batches = { a: outputBatch(0, 0, acks[0]), b: outputBatch(1, 0, acks[1]), c: outputBatch(2, 0, acks[2]) };
      const committer: Committer = {
        commit: (batch) =>
          virtualPromise(scheduler, 2, () => {
            if (batch === batches.b) throw failure;
          }),
      };
      const source$ = cold('  abc-----|', batches);
      const subscribed = '    ^---!';
      const expected = '      --a-#';
      expectObservable(source$.pipe(orderedCommit({ committer }))).toBe(expected, batches, failure);
      expectSubscriptions(source$.subscriptions).toBe(subscribed);
    });
    expect(acks.map((ack) => ack.mock.calls.length)).toEqual([1, 0, 0]);
  });

  it('passes an error that the acknowledgement or the committer throws', async () => {
    const failure = new Error('source is gone');
    const thrower = () => {
      throw failure;
    };
    await expect(lastValueFrom(of(outputBatch(0, 0, thrower)).pipe(orderedCommit({ committer: instant })))).rejects.toBe(failure);
    await expect(lastValueFrom(of(outputBatch(0)).pipe(orderedCommit({ committer: { commit: thrower } })))).rejects.toBe(failure);
  });

  it('neither acknowledges nor lets on after it was unsubscribed', () => {
    const scheduler = new VirtualTimeScheduler();
    const ack = vi.fn();
    const source$ = new Subject<OutputBatch>();
    const subscription = source$.pipe(orderedCommit({ committer: taking(scheduler, 3) })).subscribe();
    source$.next(outputBatch(0, 0, ack));
    subscription.unsubscribe();
    scheduler.flush();
    expect(ack).not.toHaveBeenCalled();
  });

  it('acknowledges no later batch either, whose commit began after an earlier one ended', () => {
    const scheduler = new VirtualTimeScheduler();
    const acks = [vi.fn(), vi.fn()] as const;
    const source$ = new Subject<OutputBatch>();
    const subscription = source$.pipe(orderedCommit({ committer: taking(scheduler, 3) })).subscribe();
    acks.forEach((ack, i) => {
      source$.next(outputBatch(i, 0, ack));
    });
    scheduler.schedule(() => subscription.unsubscribe(), 4);
    scheduler.flush();
    expect(acks.map((ack) => ack.mock.calls.length)).toEqual([1, 0]);
  });

  it('begins no commit once its receiver has enough', () => {
    const scheduler = new VirtualTimeScheduler();
    const commit = vi.fn(taking(scheduler, 3).commit);
    const source$ = new Subject<OutputBatch>();
    source$.pipe(orderedCommit({ committer: { commit } }), take(1)).subscribe();
    for (let i = 0; i < 3; i++) source$.next(outputBatch(i));
    scheduler.flush();
    expect(commit).toHaveBeenCalledTimes(1);
  });

  it('may be fed, and ended, from within its own output', async () => {
    const source$ = new Subject<OutputBatch>();
    const offsets: number[] = [];
    const done = new Promise<void>((resolve) => {
      source$.pipe(orderedCommit({ committer: instant })).subscribe({
        next: ({ source }) => {
          offsets.push(source.nextOffset);
          if (source.nextOffset < 3) source$.next(outputBatch(source.nextOffset + 1));
          else source$.complete();
        },
        complete: resolve,
      });
    });
    source$.next(outputBatch(0));
    await done;
    expect(offsets).toEqual([0, 1, 2, 3]);
  });

  it('stops a source that emits while it is being subscribed to', async () => {
    // Done before `commit` has returned.
    const committer: Committer = { commit: () => of(undefined) as unknown as Promise<void> };
    let read = 0;
    const batches$ = range(0, 100).pipe(map(() => outputBatch(read++)));
    const out = await lastValueFrom(batches$.pipe(orderedCommit({ committer }), take(2), toArray()));
    expect([out.length, read]).toEqual([2, 2]);
  });

  it('commits every batch once, in order, one at a time in its partition, for any durations', () => {
    const jobs = fc.array(fc.record({ partition: fc.nat(2), gapMs: fc.nat(3), tookMs: fc.nat(8) }), { maxLength: 40 });
    fc.assert(
      fc.property(jobs, (drawn) => {
        const scheduler = new VirtualTimeScheduler();
        const acked: number[] = [];
        const inputs = drawn.map(({ partition }, i) => outputBatch(i, partition, () => acked.push(i)));
        const running = new Set<number>();
        const committed: number[] = [];
        let waited = 0;
        const committer: Committer = {
          commit: ({ source: { partition, nextOffset } }) => {
            expect(running.has(partition)).toBe(false);
            running.add(partition);
            return virtualPromise(scheduler, drawn[nextOffset]!.tookMs, () => {
              running.delete(partition);
              committed.push(nextOffset);
            });
          },
        };
        const source$ = new Subject<OutputBatch>();
        const out: number[] = [];
        let completed = false;
        source$.pipe(orderedCommit({ committer })).subscribe({
          next: ({ source }) => {
            out.push(source.nextOffset);
            expect(acked).toEqual(out);
          },
          complete: () => {
            completed = true;
          },
        });
        inputs.forEach((batch, i) => {
          waited += drawn[i]!.gapMs;
          scheduler.schedule(() => source$.next(batch), waited);
        });
        scheduler.schedule(() => source$.complete(), waited);
        scheduler.flush();
        expect(completed).toBe(true);
        expect(out).toEqual(committed);
        for (let p = 0; p <= 2; p++) {
          const of = (list: readonly number[]) => list.filter((i) => drawn[i]!.partition === p);
          expect(of(out)).toEqual(of(inputs.map((_, i) => i)));
        }
      }),
    );
  });

  it('gives nothing for nothing', async () => {
    expect(await lastValueFrom(from([] as OutputBatch[]).pipe(orderedCommit({ committer: instant }), toArray()))).toEqual([]);
  });
});
