/** Whether the topics of a deployment are fit for it: every problem, with the sentence that mends it. */
import type { KafkaConfig } from '../../schemas/config.ts';
import { PipelineError } from '../../schemas/errors.ts';
import { type TopicSpec, type TopicState, topicSpecs } from './topics.ts';

export interface TopicProblem {
  /** Names of the topics that it is about. */
  readonly topics: readonly string[];
  readonly text: string;
  /** False: nothing is lost by going on, and somebody should know. */
  readonly stops: boolean;
}

type Role = TopicSpec['role'];

/** What each role must not lose: compacted topics to their age, the others to compaction. */
const COMPACTED: Partial<Record<Role, string>> = {
  changelog: 'state would be deleted with its age',
  userEmbeddings: 'embeddings of quiet users would be deleted with their age',
  entities: 'entries of the catalogue would be deleted with their age',
};
const NOT_COMPACTED: Partial<Record<Role, string>> = {
  source: 'of a key only the last action would stay',
  userActions: 'of a user only the last action would stay',
  deadLetters: 'of a user only the last dead letter would stay',
  actionOutcomes: 'of a user only the last outcome would stay',
};
/** Readers tell by the timestamps that we give what an erasure takes of them; the broker's would differ from topic to topic. */
const DATED_BY_US: ReadonlySet<Role> = new Set(['userEmbeddings', 'candidateScores', 'deadLetters', 'actionOutcomes']);
/** Largest record of ordinary users that cannot be done without: a page of the state with ids of full length, an embedding. */
const LEAST_BYTES: Partial<Record<Role, number>> = {
  changelog: 256 * 1024,
  userEmbeddings: 256 * 1024,
  candidateScores: 256 * 1024,
  actionOutcomes: 64 * 1024,
  deadLetters: 64 * 1024,
};

/** @returns every problem; none for topics that are fit */
export function judgeTopics(states: readonly TopicState[], config: KafkaConfig): readonly TopicProblem[] {
  const specs = new Map(topicSpecs(config).map((spec) => [spec.role, spec]));
  return [
    ...missing(states),
    ...unequal(states),
    ...states.flatMap((state) => (state.partitions === undefined ? [] : unfit(state, specs.get(state.role)!))),
    ...datedTwice(states),
  ];
}

/**
 * The partition count of topics that are all there and fit.
 *
 * @param onNotice called for problems that do not stop the deployment. @default they are passed over
 * @throws PipelineError `TOPICS_INVALID` listing every problem
 */
export function checkTopics(
  states: readonly TopicState[],
  config: KafkaConfig,
  onNotice: (problem: string) => void = () => undefined,
): number {
  const problems = judgeTopics(states, config);
  const stopping = problems.filter(({ stops }) => stops);
  if (stopping.length > 0) throw topicsInvalid(stopping);
  for (const { text } of problems) onNotice(text);
  return states.find(({ role }) => role === 'userActions')!.partitions!;
}

export const topicsInvalid = (problems: readonly TopicProblem[]): PipelineError =>
  new PipelineError('TOPICS_INVALID', ['the topics are not fit:', ...problems.map(({ text }) => text)].join('\n  '));

function missing(states: readonly TopicState[]): TopicProblem[] {
  const topics = states.filter(({ partitions }) => partitions === undefined).map(({ name }) => name);
  if (topics.length === 0) return [];
  return [{ topics, text: `missing: ${topics.join(', ')} (make them: hstu-streams topics create)`, stops: true }];
}

/** `entities` holds no users, and those of `source` lie anywhere: they may have any number. */
function unequal(states: readonly TopicState[]): TopicProblem[] {
  const ofUsers = states.filter(({ role }) => role !== 'entities' && role !== 'source');
  const counts = new Set(ofUsers.flatMap(({ partitions }) => partitions ?? []));
  if (counts.size <= 1) return [];
  const list = ofUsers.map(({ name, partitions }) => `${name} ${partitions ?? '-'}`).join(', ');
  const text =
    `partition counts differ: ${list}; a user's actions, requests, state and outputs share a partition number, so they must be equal. ` +
    'A user cannot be moved to another number: topics that were added to are replaced by a new deployment (kafka.applicationId, topics), filled by replay';
  return [{ topics: ofUsers.map(({ name }) => name), text, stops: true }];
}

function unfit(state: TopicState, { settings }: TopicSpec): TopicProblem[] {
  const { name, role, cleanupPolicy = '?', timestampType, maxMessageBytes, deletedHead = 0 } = state;
  const problems: TopicProblem[] = [];
  const problem = (text: string, stops = true) => problems.push({ topics: [name], text: `${name}: ${text}`, stops });
  const policy = COMPACTED[role] ?? NOT_COMPACTED[role];
  const wanted = settings['cleanup.policy']!;
  if (policy !== undefined && cleanupPolicy !== wanted)
    problem(`cleanup.policy is ${cleanupPolicy}, must be ${wanted} (${policy}); ${alter(name, `cleanup.policy=${wanted}`)}`);
  if (timestampType === 'LogAppendTime' && DATED_BY_US.has(role))
    problem(
      `message.timestamp.type is LogAppendTime, must be CreateTime (what an erasure takes of it is told by the timestamps that we give); ${alter(name, 'message.timestamp.type=CreateTime')}`,
    );
  const least = LEAST_BYTES[role];
  const recommended = Number(settings['max.message.bytes'] ?? 0);
  if (least !== undefined && maxMessageBytes !== undefined) {
    const mend = alter(name, `max.message.bytes=${recommended}`);
    if (maxMessageBytes < least) problem(`max.message.bytes is ${maxMessageBytes}, must be at least ${least}; ${mend}`);
    else if (maxMessageBytes < recommended)
      problem(
        `max.message.bytes is ${maxMessageBytes}, the largest record that we may write ${recommended}: ${whatThen(role)}; ${mend}`,
        false,
      );
  }
  if (deletedHead > 0)
    problem(
      `${deletedHead} offsets before its first record were deleted, which compaction does not do: state may be missing from it, and a machine without a local store is refused where it is; hstu-streams reset --to earliest makes it anew`,
      false,
    );
  return problems;
}

function whatThen(role: Role): string {
  if (role === 'deadLetters') return 'of a larger dead letter only the beginning of its original is kept';
  if (role === 'changelog') return 'larger state of one user would end the deployment';
  return 'a larger one is left out, and becomes a dead letter';
}

/** Erasures stand among actions by their timestamps where nobody has read them yet: two clocks would blur it. */
function datedTwice(states: readonly TopicState[]): TopicProblem[] {
  const [actions, erasures] = (['userActions', 'erasures'] as const).map((role) => states.find((state) => state.role === role));
  if (actions?.timestampType === undefined || erasures?.timestampType === undefined) return [];
  if (actions.timestampType === erasures.timestampType) return [];
  const text = `message.timestamp.type is ${actions.timestampType} of ${actions.name} and ${erasures.timestampType} of ${erasures.name}: where an erasure stands among the actions is told by both; ${alter(erasures.name, `message.timestamp.type=${actions.timestampType}`)}`;
  return [{ topics: [actions.name, erasures.name], text, stops: false }];
}

const alter = (topic: string, setting: string): string =>
  `kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name ${topic} --add-config ${setting}`;
