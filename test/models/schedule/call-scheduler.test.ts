/** The scheduler's promises, with a thread that answers when it is told to: order, turns, bounds, deadlines, and what goes together. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CallScheduler, type ScheduleOptions } from '../../../models/schedule/call-scheduler.ts';
import type { ScheduledName } from '../../../models/schedule/waiting-call.ts';
import { type CallTerms, type EncodeRequest, type EncodeResult, WORK_CLASSES } from '../../../schemas/encoding.ts';
import { type ErrorCode, PipelineError } from '../../../schemas/errors.ts';

interface Run {
  readonly name: ScheduledName;
  readonly requests: readonly unknown[];
  readonly answer: () => Promise<void>;
  readonly fail: (code: ErrorCode) => Promise<void>;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const users = (...userIds: string[]): EncodeRequest[] => userIds.map((userId) => ({ userId, segments: [] }));
const answered = (results: readonly EncodeResult[]): string[] => results.map(({ userId }) => userId);
const code = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => 'answered',
    (error: unknown) => (error as PipelineError).code,
  );

/** Answers with the requests themselves; `runMs` passes with every answer. */
function world(options: ScheduleOptions = {}, runMs = 1) {
  const runs: Run[] = [];
  let [atMs, answeredRuns] = [0, 0];
  const send = (name: ScheduledName, requests: readonly unknown[]) =>
    new Promise<readonly unknown[]>((resolve, reject) => {
      const settle = (end: () => void) => {
        atMs += runMs;
        end();
        return turn();
      };
      runs.push({
        name,
        requests,
        answer: () => settle(() => resolve(requests)),
        fail: (failure) => settle(() => reject(new PipelineError(failure, 'told to'))),
      });
    });
  const scheduler = new CallScheduler({ send, clock: () => atMs, now: () => atMs }, options);
  return {
    scheduler,
    runs,
    encode: (terms: CallTerms, ...userIds: string[]) => scheduler.submit('encode', users(...userIds), terms),
    sent: () => runs.map(({ requests }) => requests.map((request) => (request as EncodeRequest).userId).join(' ')),
    later: (ms: number) => {
      atMs += ms;
    },
    /** Answers the oldest run that is not answered, until there is none, or so many. */
    answerAll: async (atMost = Number.POSITIVE_INFINITY) => {
      await turn();
      for (let i = 0; i < atMost && answeredRuns < runs.length; i++) await runs[answeredRuns++]!.answer();
    },
  };
}

describe('what goes together', () => {
  it('is sent at once to a thread that has nothing to do, and gathers while it is busy', async () => {
    const { encode, sent, answerAll } = world({ maxRunUsers: 4 });
    const calls = [encode({}, 'a')];
    await turn();
    expect(sent()).toEqual(['a']);
    for (const userId of ['b', 'c']) {
      calls.push(encode({}, userId));
      await turn();
    }
    expect(sent()).toEqual(['a']);
    await answerAll();
    expect(sent()).toEqual(['a', 'b c']);
    expect((await Promise.all(calls)).map(answered)).toEqual([['a'], ['b'], ['c']]);
  });

  it('is of one kind and at most a full run; a call is never cut', async () => {
    const { scheduler, encode, sent, answerAll } = world({ maxRunUsers: 3 });
    const calls = [
      encode({}, 'a', 'b'),
      encode({}, 'c', 'd'),
      scheduler.submit('encodeInBulk', users('z'), { workClass: 'update' }),
    ];
    calls.push(encode({}, 'e'), encode({}, 'f', 'g', 'h', 'i'));
    await answerAll();
    expect(sent().toSorted()).toEqual(['a b', 'c d e', 'f g h i', 'z']);
    expect((await Promise.all(calls)).map(answered)).toEqual([['a', 'b'], ['c', 'd'], ['z'], ['e'], ['f', 'g', 'h', 'i']]);
  });
});

const script = fc.array(
  fc.record({
    users: fc.uniqueArray(fc.constantFrom(...'abcde'), { minLength: 1, maxLength: 3 }),
    workClass: fc.constantFrom(...WORK_CLASSES),
    key: fc.nat(2),
    name: fc.constantFrom('encode' as const, 'encodeInBulk' as const),
    answers: fc.nat(2),
  }),
  { maxLength: 40 },
);

type Script = typeof script extends fc.Arbitrary<infer T> ? T : never;

/**
 * Carries a script out, and checks that every call gets its own answers.
 *
 * @param seen whether the scheduler sees whose the requests are: the control does not show it
 * @returns whether every user's calls were sent in the order they were made
 */
async function keepsOrder(calls: Script, seen: boolean): Promise<boolean> {
  const { scheduler, runs, answerAll } = world({ maxRunUsers: 4 });
  const answers: Promise<readonly unknown[]>[] = [];
  for (const [at, { users: userIds, workClass, key, name, answers: settled }] of calls.entries()) {
    const requests = userIds.map((of) => ({ of, at, segments: [], ...(seen && { userId: of }) }));
    answers.push(scheduler.submit(name, requests as never, { workClass, key }));
    await answerAll(settled);
  }
  await answerAll();
  for (const [at, all] of (await Promise.all(answers)).entries())
    expect(all).toMatchObject(calls[at]!.users.map((of) => ({ of, at })));
  expect(scheduler.load).toEqual(world().scheduler.load);
  const newest = new Map<string, number>();
  return runs
    .flatMap(({ requests }) => requests as readonly { readonly of: string; readonly at: number }[])
    .every(({ of, at }) => {
      const inOrder = at > (newest.get(of) ?? -1);
      newest.set(of, at);
      return inOrder;
    });
}

describe('order', () => {
  it('of a user is that of the calls, whatever their class, key and kind, and every call gets its own answers', async () => {
    await fc.assert(
      fc.asyncProperty(script, (calls) => keepsOrder(calls, true)),
      { numRuns: 60 },
    );
  });

  it('negative control: the law notices a scheduler that is not told whose a call is', async () => {
    const calls = (['backfill', 'backfill', 'update', 'request'] as const).map((workClass) => ({
      users: ['a'],
      workClass,
      key: 0,
      name: 'encode' as const,
      answers: 0,
    }));
    expect(await keepsOrder(calls, true)).toBe(true);
    expect(await keepsOrder(calls, false)).toBe(false);
  });

  it('a call that waits behind a less urgent one of its user takes it along', async () => {
    const { encode, sent, answerAll } = world({ maxRunUsers: 1 });
    for (const userId of ['a', 'b', 'c', 'd', 'e']) void encode({ workClass: 'backfill' }, userId);
    void encode({}, 'x');
    void encode({ workClass: 'request' }, 'e');
    await answerAll();
    expect(sent().indexOf('e')).toBeLessThan(sent().indexOf('x'));
    expect(sent().filter((of) => of === 'e')).toHaveLength(2);
    expect(sent().lastIndexOf('e')).toBeLessThan(5);
  });

  it('flush sends what waits, of one user or of all, before whatever comes', async () => {
    const { scheduler, encode, sent } = world({ maxRunUsers: 1 });
    for (const userId of ['a', 'b', 'c', 'd', 'c']) void encode({}, userId);
    scheduler.flush('c');
    expect(sent()).toEqual(['c', 'c']);
    scheduler.flush('nobody');
    scheduler.flush();
    expect(sent()).toEqual(['c', 'c', 'a', 'b', 'd']);
    await turn();
    expect(sent()).toHaveLength(5);
  });
});

describe('turns', () => {
  it('are by weight where every class has work, and none is starved', async () => {
    const { encode, sent, answerAll } = world({ maxRunUsers: 1 });
    for (let i = 0; i < 200; i++) for (const workClass of WORK_CLASSES) void encode({ workClass }, `${workClass} ${i}`);
    await answerAll(84);
    const of = (workClass: string) => sent().filter((user) => user.startsWith(workClass)).length;
    expect(of('request')).toBeGreaterThanOrEqual(58);
    expect(of('update')).toBeGreaterThanOrEqual(14);
    expect(of('backfill')).toBeGreaterThanOrEqual(3);
  });

  it('come next to a class that had nothing to do', async () => {
    const { encode, sent, answerAll } = world({ maxRunUsers: 1 });
    for (let i = 0; i < 50; i++) void encode({}, `update ${i}`);
    await answerAll(20);
    const before = sent().length;
    void encode({ workClass: 'request' }, 'urgent');
    await answerAll(1);
    expect(sent()[before]).toBe('urgent');
  });

  it('go round the keys of a class: who asks for much does not hold up who asks for little', async () => {
    const { encode, sent, answerAll } = world({ maxRunUsers: 2 });
    for (let i = 0; i < 100; i++) void encode({ key: 'much' }, `much ${i}`);
    for (let i = 0; i < 3; i++) void encode({ key: 'little' }, `little ${i}`);
    await answerAll();
    expect(sent().findLastIndex((run) => run.includes('little'))).toBeLessThan(4);
  });
});

describe('bounds', () => {
  it('refuse requests above the limit, retriably, and count them; what was taken is answered', async () => {
    const { scheduler, encode, answerAll } = world({ maxRunUsers: 1, maxWaiting: 3 });
    const terms = { workClass: 'request' } as const;
    const taken = [encode(terms, 'a'), encode(terms, 'b'), encode(terms, 'c')].map(code);
    const refused = code(encode(terms, 'd', 'e'));
    expect(new PipelineError('ENCODER_BUSY', '').retriable).toBe(true);
    const updates = Array.from({ length: 9 }, (_, i) => code(encode({}, `update ${i}`)));
    expect(scheduler.load).toMatchObject({ request: { waiting: 3, busy: 2 }, update: { waiting: 9, busy: 0 } });
    expect(await refused).toBe('ENCODER_BUSY');
    await answerAll();
    expect(await Promise.all([...taken, ...updates])).toEqual(new Array(12).fill('answered'));
    const large = code(encode(terms, 'a', 'b', 'c', 'd', 'e'));
    await answerAll();
    expect(await large).toBe('answered');
  });

  it('of time: what has not begun by its deadline fails and is counted; what has begun is answered', async () => {
    const { scheduler, encode, sent, later, answerAll } = world({ maxRunUsers: 1 });
    const begun = code(encode({ deadlineMs: 5 }, 'begun'));
    await turn();
    const waiting = [encode({}, 'x'), encode({}, 'y'), encode({ deadlineMs: 5 }, 'late', 'too'), encode({ deadlineMs: 99 }, 'z')];
    await turn();
    later(10);
    const ends = Promise.all(waiting.map(code));
    await answerAll();
    expect(await begun).toBe('answered');
    expect(await ends).toEqual(['answered', 'answered', 'DEADLINE_PASSED', 'answered']);
    expect(sent()).toEqual(['begun', 'x', 'y', 'z']);
    expect(scheduler.load.update).toEqual({ waiting: 0, busy: 0, late: 2 });
  });
});

describe('a run that fails', () => {
  it('fails the call at fault, not those it was sent with', async () => {
    const { encode, runs, sent, answerAll } = world();
    const first = code(encode({}, 'a'));
    await turn();
    const [good, bad] = [code(encode({}, 'good')), code(encode({}, 'bad'))];
    await answerAll(1);
    expect(sent()).toEqual(['a', 'good bad']);
    await runs[1]!.fail('ENCODER_FAILED');
    await runs[2]!.answer();
    await runs[3]!.fail('ENCODER_FAILED');
    expect(sent().slice(2)).toEqual(['good', 'bad']);
    expect(await Promise.all([first, good, bad])).toEqual(['answered', 'answered', 'ENCODER_FAILED']);
  });

  it('with its thread fails retriably, and what waits goes to the next', async () => {
    const { encode, runs, answerAll } = world({ maxRunUsers: 2 });
    const lost = code(encode({}, 'a'));
    await turn();
    const waiting = code(encode({}, 'b'));
    await runs[0]!.fail('WORKER_CRASHED');
    await runs[1]!.answer();
    await answerAll();
    expect(await Promise.all([lost, waiting])).toEqual(['WORKER_CRASHED', 'answered']);
  });
});
