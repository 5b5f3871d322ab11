/** A commit whose answer did not come: done once, whatever became of the first attempt. */
import { describe, expect, it } from 'vitest';
import type { Commit } from '../../../infra/kafka/partition-producer.ts';
import { PipelineError } from '../../../schemas/errors.ts';
import { commitAgain, outcomeOf } from '../../../streams/live/commit-again.ts';

const cut = new PipelineError('KAFKA_FAILED', 'Closed connection');
const commit: Commit = { records: new Map(), inputs: { actions: 7 } };
const bytes = (text: string) => Buffer.from(text);
const logged = [
  { key: bytes('user'), value: bytes('state') },
  { key: bytes('\0position'), value: bytes('{"writer":"mine"}') },
];

/** A partition of a broker's log with one transaction at a time, whose faults come in a script. */
function world(faults: readonly ('before' | 'after' | 'reopen' | undefined)[]) {
  const script = [...faults];
  const calls: string[] = [];
  const log: { readonly value: Buffer; readonly position: { offset: number; topic: string; partition: number } }[] = [];
  const write = () => {
    for (const { value } of logged) log.push({ value, position: { offset: 10 + log.length, topic: 'log', partition: 0 } });
    return new Map([['log', 10 + log.length]]);
  };
  const producer = {
    commit: async () => {
      calls.push('commit');
      const fault = script.shift();
      if (fault === 'before') throw cut;
      const ends = write();
      if (fault === 'after') throw cut;
      return ends;
    },
    reopen: async () => {
      calls.push('reopen');
      if (script[0] !== 'reopen') return;
      script.shift();
      throw cut;
    },
  };
  const { signal } = new AbortController();
  const changelog = {
    readToEnd: async ({ apply }: { apply: (part: never, end: number) => Promise<void> }) => {
      calls.push('look');
      if (log.length > 0) await apply({ records: log, nextOffset: 10 + log.length } as never, 10 + log.length);
      return 10 + log.length;
    },
  };
  const outcome = () => outcomeOf(logged, { changelog: changelog as never, topic: 'log', partition: 0, from: 10, signal });
  const again: string[] = [];
  const run = (withinMs?: number) =>
    commitAgain({
      producer,
      commit,
      outcome,
      signal,
      onAgain: ({ code }) => again.push(code),
      ...(withinMs !== undefined && { withinMs }),
    });
  return { run, calls, log, again };
}

describe('a commit without an answer', () => {
  it.each([
    ['was not done: it is done by another producer', ['before'], ['commit', 'reopen', 'look', 'commit']],
    ['was done: it is not done again', ['after'], ['commit', 'reopen', 'look']],
    [
      'and a producer that is cut off while it opens',
      ['before', 'reopen', 'reopen'],
      ['commit', 'reopen', 'reopen', 'reopen', 'look', 'commit'],
    ],
    ['failed twice, and was done the second time', ['before', 'after'], ['commit', 'reopen', 'look', 'commit', 'reopen', 'look']],
  ] as const)('%s', async (_, faults, calls) => {
    const it = world(faults);
    expect(await it.run()).toEqual(new Map([['log', 12]]));
    expect(it.calls).toEqual(calls);
    // Once, whatever happened.
    expect(it.log).toHaveLength(logged.length);
    expect(it.again).toHaveLength(faults.length);
  });

  it('that another instance has overtaken is refused, and not done', async () => {
    const it = world(['before']);
    it.log.push({ value: bytes('{"writer":"another"}'), position: { offset: 10, topic: 'log', partition: 0 } });
    await expect(it.run()).rejects.toMatchObject({ code: 'PRODUCER_FENCED' });
    expect(it.log).toHaveLength(1);
  });

  it('is given up after its time, with the fault', async () => {
    await expect(world(Array(50).fill('before')).run(50)).rejects.toBe(cut);
  });

  it('and what trying again does not mend is thrown at once', async () => {
    const refused = new PipelineError('KAFKA_REFUSED', 'too large');
    const calls: string[] = [];
    const producer = { commit: () => Promise.reject(refused), reopen: async () => void calls.push('reopen') };
    const { signal } = new AbortController();
    const done = commitAgain({ producer, commit, outcome: async () => undefined, signal, onAgain: () => undefined });
    await expect(done).rejects.toBe(refused);
    expect(calls).toEqual([]);
  });
});
