import { describe, expect, it } from 'vitest';
import { partitionsFor } from '../../../infra/kafka/change-topics.ts';
import { checkTopics, judgeTopics } from '../../../infra/kafka/check-topics.ts';
import { type TopicState, topicSpecs } from '../../../infra/kafka/topics.ts';
import { parseConfig } from '../../../schemas/config.ts';

const configOf = (kafka: Record<string, unknown> = {}) =>
  parseConfig(
    { bundle: 'none', kafka: { brokers: ['b:1'], topics: { entities: 'entities', actionOutcomes: 'outcomes' }, ...kafka } },
    'this test',
  ).kafka!;
const config = configOf();

/** As `topics create` makes them, but for what `changes` says of some. */
const states = (changes: Partial<Record<TopicState['role'], Partial<TopicState>>> = {}): TopicState[] =>
  topicSpecs(config).map(({ name, role, settings }) => ({
    name,
    role,
    partitions: 4,
    replicas: 1,
    cleanupPolicy: settings['cleanup.policy']!,
    maxMessageBytes: Number(settings['max.message.bytes'] ?? 1_048_588),
    timestampType: 'CreateTime',
    ...changes[role],
  }));

const problemsOf = (changes: Parameters<typeof states>[0]) => judgeTopics(states(changes), config);

describe('topics are judged as they are', () => {
  it('those that topics create makes have no problem', () => {
    expect(problemsOf({})).toEqual([]);
    expect(checkTopics(states(), config)).toBe(4);
  });

  it.each(['changelog', 'userEmbeddings', 'entities'] as const)('%s must be compacted and nothing else', (role) => {
    for (const cleanupPolicy of ['compact,delete', 'delete,compact', 'delete']) {
      const [problem, ...more] = problemsOf({ [role]: { cleanupPolicy } });
      expect(more).toEqual([]);
      expect(problem).toMatchObject({ stops: true });
      expect(problem!.text).toContain(`cleanup.policy is ${cleanupPolicy}, must be compact`);
      expect(problem!.text).toMatch(/kafka-configs\.sh .* --entity-name \S+ --add-config cleanup\.policy=compact$/);
    }
  });

  it.each(['userActions', 'deadLetters', 'actionOutcomes'] as const)('%s must not be compacted', (role) => {
    expect(problemsOf({ [role]: { cleanupPolicy: 'compact' } })).toMatchObject([{ stops: true }]);
  });

  it('outputs keep the timestamps that we give; inputs may have either, and are told where they differ', () => {
    for (const role of ['userEmbeddings', 'candidateScores', 'deadLetters', 'actionOutcomes'] as const)
      expect(problemsOf({ [role]: { timestampType: 'LogAppendTime' } })).toMatchObject([
        { stops: true, text: expect.stringContaining('--add-config message.timestamp.type=CreateTime') },
      ]);
    const both = { timestampType: 'LogAppendTime' };
    expect(problemsOf({ userActions: both, erasures: both, changelog: both, candidateRequests: both })).toEqual([]);
    expect(problemsOf({ userActions: both })).toMatchObject([{ stops: false, topics: ['user-actions', 'erasures'] }]);
  });

  it('a topic of the broker default goes on and is told; one without room for an ordinary record is refused', () => {
    const [told] = problemsOf({ deadLetters: { maxMessageBytes: 1_048_588 } });
    expect(told).toMatchObject({ stops: false, topics: ['dead-letters'] });
    expect(told!.text).toContain('--add-config max.message.bytes=12582912');
    expect(problemsOf({ userEmbeddings: { maxMessageBytes: 200_000 } })).toMatchObject([
      { stops: true, text: expect.stringContaining('max.message.bytes is 200000, must be at least 262144') },
    ]);
    expect(problemsOf({ userActions: { maxMessageBytes: 1_000 } })).toEqual([]);
  });

  it('a changelog whose first records were deleted is told, with how many', () => {
    expect(problemsOf({ changelog: { deletedHead: 517 } })).toMatchObject([
      { stops: false, text: expect.stringMatching(/^hstu-streams-changelog: 517 offsets before its first record were deleted/) },
    ]);
  });

  it('every problem is listed at once, and says what mends it', () => {
    const bad = states({ erasures: { partitions: 6 }, changelog: { cleanupPolicy: 'compact,delete' } });
    const { partitions: _, ...gone } = bad.find(({ role }) => role === 'candidateScores')!;
    const some = bad.map((state) => (state.role === 'candidateScores' ? gone : state));
    const refused = () => checkTopics(some, config);
    expect(refused).toThrow(/missing: candidate-scores .*\n.*erasures 6.*\n.*must be compact/);
    expect(refused).toThrow(expect.objectContaining({ code: 'TOPICS_INVALID' }));
    // What holds no users may have any number.
    expect(problemsOf({ entities: { partitions: 1 } })).toEqual([]);
  });
});

describe('topics that are made', () => {
  const there = (partitions: number) => states({ userActions: { partitions } }).filter(({ role }) => role === 'userActions');

  it('have as many partitions as those that are there, as configured where there are none, else 4', () => {
    expect(partitionsFor(there(6), config)).toBe(6);
    expect(partitionsFor([], configOf({ partitions: 9 }))).toBe(9);
    expect(partitionsFor([], config)).toBe(4);
  });

  it('are not made where the configuration says another number: the setting is named', () => {
    expect(() => partitionsFor(there(6), configOf({ partitions: 4 }))).toThrow(
      /^user-actions has 6 partitions, and kafka\.partitions is 4: nothing was made\. Set kafka\.partitions: 6/,
    );
  });
});
