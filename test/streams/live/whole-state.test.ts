import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../schemas/config.ts';
import type { StatePosition } from '../../../schemas/state.ts';
import {
  type InputFacts,
  requireKnownStart,
  requireSamePartitions,
  requireSameTopic,
  requireWhole,
} from '../../../streams/live/whole-state.ts';

const config = parseConfig({ bundle: 'none', kafka: { brokers: ['b:1'] } }, 'this test').kafka!;
const position = (more: Partial<StatePosition> = {}): StatePosition => ({
  stateId: 's',
  inputs: { 'user-actions': 200, erasures: 0 },
  signature: { format: 1, window: { maxLength: 1, blockLength: 1 }, seenLimit: 1, vocabulary: { size: 1, digest: 'd' } },
  ...more,
});

describe('a state from the changelog is all that was committed, or nothing goes on', () => {
  const whole = (first: number, records: number, at: StatePosition | undefined) => () =>
    requireWhole(2, config, { first, position: at, records });

  it('the count says so, whatever compaction or a deletion of replaced records has done', () => {
    expect(whole(0, 520, position({ records: 520 }))).not.toThrow();
    expect(whole(90, 520, position({ records: 520 }))).not.toThrow();
    expect(whole(517, 3, position({ records: 520 }))).toThrow(
      /^hstu-streams-changelog\/2: it holds 3 records where 520 were committed; its first 517 offsets were deleted.*reset --to earliest rebuilds the state/,
    );
    expect(whole(0, 521, position({ records: 520 }))).toThrow(expect.objectContaining({ code: 'STATE_LOST', exitCode: 2 }));
  });

  it('state of before it was counted is taken as it is where the changelog has its first record', () => {
    expect(whole(0, 520, position())).not.toThrow();
    expect(whole(1, 520, position())).toThrow(expect.objectContaining({ code: 'STATE_LOST' }));
    expect(whole(0, 0, undefined)).not.toThrow();
    expect(whole(520, 0, undefined)).toThrow(expect.objectContaining({ code: 'STATE_LOST' }));
  });

  it('offsets of a group that has read records have a state behind them', () => {
    expect(() => requireKnownStart(0, config, {})).not.toThrow();
    expect(() => requireKnownStart(0, config, { 'user-actions': 0 })).not.toThrow();
    expect(() => requireKnownStart(0, config, { 'user-actions': 5 })).toThrow(expect.objectContaining({ code: 'STATE_LOST' }));
  });

  it('users are in the partition of their state', () => {
    expect(() => requireSamePartitions(0, config, position(), 4)).not.toThrow();
    expect(() => requireSamePartitions(0, config, position({ partitions: 4 }), 4)).not.toThrow();
    expect(() => requireSamePartitions(0, config, position({ partitions: 2 }), 4)).toThrow(/have 4 partitions.*one of 2/);
  });
});

describe('a position belongs to a topic', () => {
  const DAY = 86_400_000;
  const check = (facts: Partial<InputFacts>) => () =>
    requireSameTopic({
      partition: 0,
      topic: 'user-actions',
      id: 'new',
      first: 0,
      committed: {},
      position: position(),
      positionedAtMs: 0,
      nowMs: DAY / 2,
      ...facts,
    });
  const made = expect.objectContaining({
    code: 'TOPICS_INVALID',
    message: expect.stringMatching(/deleted and made again.*hstu-streams reset/),
  });

  it('another id is another topic, unless nothing of the one before was read', () => {
    const known = position({ topicIds: { 'user-actions': 'old', erasures: 'old' } });
    expect(check({ position: known })).toThrow(made);
    expect(check({ position: known, id: 'old' })).not.toThrow();
    expect(check({ position: known, id: undefined })).not.toThrow();
    expect(check({ position: known, topic: 'erasures' })).not.toThrow();
  });

  it('of state without ids the group offset tells: it goes with the topic', () => {
    expect(check({ committed: { 'user-actions': 200 } })).not.toThrow();
    expect(check({ committed: { 'candidate-requests': 3 }, nowMs: 30 * DAY })).toThrow(made);
    expect(check({ committed: {} })).toThrow(made);
  });

  it('and is no sign where all offsets may have expired, or nothing was ever committed', () => {
    expect(check({ committed: {}, nowMs: 8 * DAY })).not.toThrow();
    expect(check({ first: 200 })).not.toThrow();
    expect(check({ topic: 'erasures' })).not.toThrow();
  });
});
