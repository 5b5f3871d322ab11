/** What every operator promises, whatever it does: run by the test of each. */
import {
  concat,
  NEVER,
  Observable,
  type OperatorFunction,
  of,
  type SchedulerLike,
  Subject,
  take,
  VirtualTimeScheduler,
} from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

export interface OperatorUnderTest<In, Out> {
  /** The operator, on this clock; collaborators (encoder, publisher …) resolve at once. */
  readonly create: (scheduler: SchedulerLike) => OperatorFunction<In, Out>;
  /** Two inputs or more, made anew by every call, that give at least one output. */
  readonly inputs: () => readonly In[];
  /** What of an output is compared. @default all of it */
  readonly view?: (output: Out) => unknown;
}

interface Run<In> {
  readonly source$: Subject<In>;
  readonly outputs: unknown[];
  readonly errors: unknown[];
  completions: number;
  readonly unsubscribe: () => void;
}

const microtasks = async () => {
  for (let i = 0; i < 50; i++) await Promise.resolve();
};

export function operatorContract<In, Out>(
  name: string,
  { create, inputs, view = (output) => output }: OperatorUnderTest<In, Out>,
): void {
  describe(`${name} keeps the operator contract`, () => {
    let clock: VirtualTimeScheduler;

    beforeEach(() => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval', 'setImmediate'] });
      clock = new VirtualTimeScheduler();
    });
    afterEach(() => vi.useRealTimers());

    const subscribe = (operator: OperatorFunction<In, Out>): Run<In> => {
      const source$ = new Subject<In>();
      const subscription = operator(source$).subscribe({
        next: (output) => run.outputs.push(view(output)),
        error: (error) => run.errors.push(error),
        complete: () => run.completions++,
      });
      const run: Run<In> = { source$, outputs: [], errors: [], completions: 0, unsubscribe: () => subscription.unsubscribe() };
      return run;
    };

    const expectNothingLeft = (run: Run<In>) => {
      expect(run.source$.observed, 'still subscribed to its source').toBe(false);
      expect(clock.actions.length, 'timers left on its scheduler').toBe(0);
      expect(vi.getTimerCount(), 'timers left outside its scheduler').toBe(0);
    };

    const alone = async (): Promise<unknown[]> => {
      const run = subscribe(create(clock));
      for (const input of inputs()) run.source$.next(input);
      run.source$.complete();
      await microtasks();
      return run.outputs;
    };

    it('does not touch its source before it is subscribed to', () => {
      let subscriptions = 0;
      const source$ = new Observable<In>(() => void subscriptions++);
      const out$ = source$.pipe(create(clock));
      expect(subscriptions).toBe(0);
      out$.subscribe();
      out$.subscribe();
      expect(subscriptions).toBe(2);
    });

    it('gives out everything when its source completes, then completes once, without waiting for a timer', async () => {
      const run = subscribe(create(clock));
      for (const input of inputs()) run.source$.next(input);
      run.source$.complete();
      await microtasks();
      expect(run.completions).toBe(1);
      expect(run.errors).toEqual([]);
      expect(run.outputs.length).toBeGreaterThan(0);
      expectNothingLeft(run);

      // With all the time in the world it gives no more than that.
      const slow = subscribe(create(clock));
      for (const input of inputs()) slow.source$.next(input);
      await microtasks();
      clock.flush();
      await microtasks();
      slow.source$.complete();
      await microtasks();
      expect(slow.outputs.length).toBe(run.outputs.length);
    });

    it('completes on an empty source and gives nothing', async () => {
      const run = subscribe(create(clock));
      run.source$.complete();
      await microtasks();
      expect(run.outputs).toEqual([]);
      expect(run.completions).toBe(1);
      expectNothingLeft(run);
    });

    it('unsubscribes from its source and leaves no timer when it is unsubscribed', async () => {
      for (let count = 0; count <= inputs().length; count++) {
        const run = subscribe(create(clock));
        for (const input of inputs().slice(0, count)) run.source$.next(input);
        run.unsubscribe();
        expectNothingLeft(run);
        const before = run.outputs.length;
        clock.flush();
        await microtasks();
        expect(run.outputs.length, 'gave something after it was unsubscribed').toBe(before);
        expect(run.completions).toBe(0);
      }
    });

    it('unsubscribes from its source when its receiver has enough', async () => {
      let closed = 0;
      const source$ = new Observable<In>((subscriber) => {
        const inner = concat(of(...inputs()), NEVER).subscribe(subscriber);
        return () => {
          closed++;
          inner.unsubscribe();
        };
      });
      source$.pipe(create(clock), take(1)).subscribe();
      await microtasks();
      clock.flush();
      await microtasks();
      expect(closed).toBe(1);
      expect(clock.actions.length).toBe(0);
    });

    it('forwards the error of its source, the same one, and leaves nothing behind', async () => {
      const failure = new Error('the source failed');
      for (let count = 0; count <= inputs().length; count++) {
        const run = subscribe(create(clock));
        for (const input of inputs().slice(0, count)) run.source$.next(input);
        run.source$.error(failure);
        expect(run.errors.length).toBe(1);
        expect(run.errors[0]).toBe(failure);
        expectNothingLeft(run);
        const before = run.outputs.length;
        clock.flush();
        await microtasks();
        expect(run.outputs.length, 'gave something after its error').toBe(before);
        expect(run.completions).toBe(0);
      }
    });

    it('shares no state between two subscriptions', async () => {
      const expected = await alone();
      const all = inputs().length;
      for (let split = 0; split <= all; split++) {
        const operator = create(clock);
        const first = subscribe(operator);
        const second = subscribe(operator);
        const [forFirst, forSecond] = [inputs(), inputs()];
        for (const input of forFirst.slice(0, split)) first.source$.next(input);
        for (const input of forSecond) second.source$.next(input);
        for (const input of forFirst.slice(split)) first.source$.next(input);
        first.source$.complete();
        second.source$.complete();
        await microtasks();
        expect(first.outputs).toEqual(expected);
        expect(second.outputs).toEqual(expected);
      }
    });
  });
}
