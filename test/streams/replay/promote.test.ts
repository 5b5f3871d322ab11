/** Which runs may become live: every reason against one is named. */
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../schemas/config.ts';
import type { RunRecord } from '../../../schemas/run-record.ts';
import { unfit } from '../../../streams/replay/promote.ts';
import { requireKafka } from '../../../streams/require-kafka.ts';

const config = requireKafka(parseConfig({ bundle: 'none', kafka: { brokers: ['here:1'] } }, 'this test'), 'this test');
const range = { topic: config.kafka.topics.userActions, partition: 0, from: 0, to: 10 };

const run = (facts: Readonly<Record<string, unknown>>, more: Partial<RunRecord> = {}): RunRecord => ({
  runId: 'state-1',
  position: 3,
  total: 10,
  finished: true,
  updatedAtMs: 0,
  facts: {
    mode: 'state',
    modelDigest: 'model',
    settings: { sequence: config.sequence, time: config.time },
    ranges: [range],
    ...facts,
  },
  ...more,
});
const reasons = (one: RunRecord, others: readonly RunRecord[] = []) => unfit(one, config, { digest: 'model' }, others, 100_000);

describe('a run that is to become live', () => {
  it('fits', () => expect(reasons(run({}))).toEqual([]));

  it('fits where files went before a range that begins inside the log', () =>
    expect(reasons(run({ files: ['a.csv'], ranges: [{ ...range, from: 4 }] }))).toEqual([]));

  it.each([
    ['not finished: 3 of 10 events', run({}, { finished: false })],
    ['holds no state', run({ mode: 'as-of' })],
    ['not made of Kafka', run({ ranges: undefined })],
    ['begins at offset 4', run({ ranges: [{ ...range, from: 4 }] })],
    ['it is made of else', run({ ranges: [{ ...range, topic: 'else' }] })],
    ['its model is x', run({ modelDigest: 'x' })],
    ['other settings', run({ settings: {} })],
  ])('is refused: %s', (reason, one) => expect(reasons(one)).toEqual([expect.stringContaining(reason)]));

  it('waits for another of the same range that is being written, and for no other', () => {
    const writing = run({}, { runId: 'state-2', finished: false, updatedAtMs: 90_000 });
    expect(reasons(run({}), [writing])).toEqual([expect.stringContaining('run state-2 of the same range is being written')]);
    expect(reasons(run({}), [{ ...writing, updatedAtMs: 10 }])).toEqual([]);
    expect(reasons(run({}), [{ ...writing, finished: true }])).toEqual([]);
    const elsewhere = { ...writing, facts: { ...writing.facts, ranges: [{ ...range, from: 10, to: 20 }] } };
    expect(reasons(run({}), [elsewhere])).toEqual([]);
  });
});
