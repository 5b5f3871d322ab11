/** Lag, age and readiness as an instance sees them, by a clock of the test's own. */
import { describe, expect, it } from 'vitest';
import type { EndsFault } from '../../infra/kafka/log-ends.ts';
import type { Standing } from '../../infra/kafka/partition-buffer.ts';
import { PipelineError } from '../../schemas/errors.ts';
import type { LifecycleState } from '../../streams/lifecycle.ts';
import { Trouble } from '../../streams/trouble.ts';
import { type Position, Watch } from '../../streams/watch.ts';

function world() {
  const it = {
    nowMs: 1_000_000,
    ends: new Map<number, number>([[0, 10]]),
    faults: [] as EndsFault[],
    positions: [{ topic: 't', partition: 0, nextOffset: 10, waitingMs: undefined }] as Position[],
    owned: [0] as readonly number[] | undefined,
    standing: [] as Standing[],
  };
  const watch = new Watch({
    ends: {
      endsOf: () => it.ends,
      get faults() {
        return it.faults;
      },
      ageMs: 1_500,
      brokersAway: 0,
    },
    topics: ['t'],
    partitions: 1,
    positions: () => it.positions,
    owned: () => it.owned,
    standing: () => it.standing,
    nowMs: () => it.nowMs,
    now: () => it.nowMs,
  });
  const progress = () =>
    watch.report().progress.map(({ lag, stalledSeconds, oldestSeconds }) => ({ lag, stalledSeconds, oldestSeconds }));
  return { it, watch, progress };
}

describe('a watch', () => {
  it('counts what is written and not done, and for how long nothing was done of it', () => {
    const { it, progress } = world();
    expect(progress()).toEqual([{ lag: 0, stalledSeconds: 0, oldestSeconds: 0 }]);
    it.nowMs += 60_000;
    it.ends.set(0, 14);
    expect(progress()).toEqual([{ lag: 4, stalledSeconds: 0, oldestSeconds: 0 }]);
    it.nowMs += 5_000;
    expect(progress()).toEqual([{ lag: 4, stalledSeconds: 5, oldestSeconds: 5 }]);
    // By its timestamp, where the record that waits is known; none that is a producer's nonsense.
    it.positions = [{ topic: 't', partition: 0, nextOffset: 10, waitingMs: it.nowMs - 9_000 }];
    expect(progress()[0]!.oldestSeconds).toBe(9);
    it.positions = [{ topic: 't', partition: 0, nextOffset: 10, waitingMs: 0 }];
    expect(progress()[0]!.oldestSeconds).toBe(5);
    it.positions = [{ topic: 't', partition: 0, nextOffset: 12, waitingMs: undefined }];
    expect(progress()).toEqual([{ lag: 2, stalledSeconds: 0, oldestSeconds: 0 }]);
  });

  it('goes on counting while a partition is let go of after a fault or the group rebalances, and ends where it is another’s', () => {
    const { it, progress } = world();
    it.ends.set(0, 14);
    progress();
    it.positions = [];
    it.nowMs += 30_000;
    it.ends.set(0, 20);
    expect(progress()).toEqual([{ lag: 10, stalledSeconds: 30, oldestSeconds: 30 }]);
    it.owned = undefined;
    expect(progress()).toHaveLength(1);
    it.owned = [1];
    expect(progress()).toEqual([]);
  });

  it('is not ready where a topic is gone, a partition stands for longer than one fetch, or was added', () => {
    const { it, watch } = world();
    expect(watch.unready()).toEqual([]);
    it.faults = [{ topic: 't', code: 'TOPICS_INVALID', reason: 'the topic t is not there', sinceMs: it.nowMs - 3_000 }];
    expect(watch.unready()).toEqual([
      { code: 'TOPICS_INVALID', message: 'the topic t is not there', topic: 't', sinceMs: it.nowMs - 3_000 },
    ]);
    it.faults = [];
    const stands = { topic: 't', partition: 0, offset: 7, code: 'KAFKA_FAILED' as const, reason: 'no answer' };
    it.standing = [{ ...stands, sinceMs: it.nowMs - 1_000 }];
    expect(watch.unready()).toEqual([]);
    it.standing = [{ ...stands, sinceMs: it.nowMs - 5_000 }];
    expect(watch.unready()).toMatchObject([
      { topic: 't', partition: 0, offset: 7, message: 't/0 stands at offset 7: no answer' },
    ]);
    it.standing = [];
    it.ends.set(1, 3);
    expect(watch.unready()).toMatchObject([
      { code: 'TOPICS_INVALID', message: expect.stringMatching(/t\/1 was added, .*3 records/) },
    ]);
    expect(watch.report().unread).toEqual([{ topic: 't', partition: 1, records: 3 }]);
  });
});

describe('trouble', () => {
  const log = { warn: () => undefined, info: () => undefined } as never;
  const reasons = (trouble: Trouble) => trouble.health.unready.map(({ code }) => code);
  const fault = new PipelineError('STORE_FAILED', 'no space left');
  const become = (trouble: Trouble, ...states: LifecycleState[]) => {
    for (const state of states) trouble.become(state);
  };

  it('of the opening is over when it is open', () => {
    const trouble = new Trouble(log);
    trouble.waits(new PipelineError('KAFKA_UNAVAILABLE', 'no broker answers'));
    expect(reasons(trouble)).toEqual(['KAFKA_UNAVAILABLE']);
    become(trouble, 'RUNNING');
    expect(reasons(trouble)).toEqual([]);
  });

  it('of the work does not flicker while it is begun again and again: a commit ends it, or a while without another', () => {
    let nowMs = 0;
    const trouble = new Trouble(log, () => nowMs);
    become(trouble, 'RUNNING');
    for (let round = 0; round < 3; round++) {
      trouble.recovers(fault);
      become(trouble, 'RESTORING', 'RUNNING');
      nowMs += 2_000;
      expect(reasons(trouble)).toEqual(['STORE_FAILED']);
    }
    expect(trouble.health.unready[0]!.sinceMs).toBe(0);
    trouble.progressed();
    expect(reasons(trouble)).toEqual([]);
    trouble.recovers(fault);
    become(trouble, 'RESTORING', 'RUNNING');
    nowMs += 6_000;
    expect(reasons(trouble)).toEqual([]);
  });
});
