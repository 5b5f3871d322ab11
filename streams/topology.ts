/** The steps of a stream by name, what passes between them, and what bounds them: the text and the picture of `explain`. */
import type { Config, KafkaConfig } from '../schemas/config.ts';

export interface Step {
  /** The one id of this step: in metrics, dead letters, spans and this list. */
  readonly id: string;
  readonly input: string;
  readonly output: string;
  /** What it promises, in a line. */
  readonly does: string;
  /** What limits its memory or delay, with the values in force. */
  readonly bounds: string;
  readonly file: string;
  /** A topic that changes what it does, read whole by every instance. */
  readonly follows?: string;
}

/** The steps in order: of the consumer deployment where Kafka is configured, else of a replay of files. */
export function topology(config: Config): readonly Step[] {
  const { encoder, scores, sequence } = config;
  const follows = config.kafka?.topics.entities;
  const ends = config.kafka === undefined ? replayEnds(config) : liveEnds(config.kafka, config.state.hotUsers);
  return [
    ...ends.repartition,
    ends.source,
    {
      id: 'decode',
      input: 'SourceBatch',
      output: 'DecodedBatch',
      does: 'maps records to actions; bad ones become dead letters',
      bounds: `${(config.kafka ?? config.source)?.maxRecordBytes ?? '-'} bytes a record`,
      file: 'operators/decode.ts',
    },
    {
      id: 'sequence',
      input: 'DecodedBatch',
      output: 'SequencedBatch',
      does: 'keeps each user in event-time order; drops duplicates, inserts late events',
      bounds: `one block window a user, ${sequence.seenLimit} seen entities${ends.state}`,
      file: 'operators/sequence.ts',
    },
    {
      id: 'spread',
      input: 'SequencedBatch',
      output: 'UpdateUnit',
      does: 'lets users travel alone',
      bounds: 'none held',
      file: 'operators/spread.ts',
    },
    {
      id: 'microBatch',
      input: 'UpdateUnit',
      output: 'UpdateUnit[]',
      does: 'groups users of all batches for one run of the model',
      bounds: `${encoder.maxBatchUsers} users${encoder.maxDelayMs === 0 ? ', at once' : ` or ${encoder.maxDelayMs} ms`}`,
      file: 'operators/micro-batch.ts',
    },
    {
      id: 'encode',
      input: 'UpdateUnit[]',
      output: 'EncodedUnit[]',
      does: 'computes only the rows that the KV cache does not hold',
      bounds: `${encoder.workers} worker(s), ${Math.round(encoder.kvBudgetBytes / 2 ** 20)} MiB of KV, ${encoder.maxInFlight} calls in flight`,
      file: 'operators/encode.ts',
    },
    {
      id: 'score',
      input: 'EncodedUnit[]',
      output: 'ScoredUnit[]',
      does: 'ranks what happened, lists the best entities',
      bounds: `top ${scores.topK}${scores.seenFilter === false ? '' : scores.seenFilter === true ? ' unseen' : ` without ${(scores.seenFilter.actions ?? ['anything done']).join(', ')}${scores.seenFilter.forDays === undefined ? '' : ` of ${scores.seenFilter.forDays} days`}`}${follows === undefined ? '' : `; catalogue by ${follows}, changed between batches`}`,
      file: 'operators/score.ts',
      ...(follows !== undefined && { follows }),
    },
    ...ends.answer,
    {
      id: 'gather',
      input: 'ScoredUnit[]',
      output: 'ScoredBatch',
      does: 'puts every batch together again',
      bounds: 'the batches in flight',
      file: 'operators/gather.ts',
    },
    {
      id: 'assemble',
      input: 'ScoredBatch',
      output: 'OutputBatch',
      does: 'embeddings, scores and ranks with their lineage',
      bounds: 'none held',
      file: 'operators/assemble.ts',
    },
    ends.publish,
    ends.commit,
  ];
}

/** What differs between the deployments: where batches come from, and where what they give goes. */
interface Ends {
  /** What writes the topic of the actions, where it is ours. */
  readonly repartition: readonly Step[];
  readonly source: Step;
  readonly publish: Step;
  readonly commit: Step;
  /** Where requests for candidates are answered, if there are any. */
  readonly answer: readonly Step[];
  /** What bounds the state beside what bounds it everywhere. */
  readonly state: string;
}

const inputNames = (source: Config['source']): string =>
  source === undefined
    ? 'records'
    : [...source.files.map(({ path }) => path.split(/[\\/]/).at(-1)), ...source.clickhouse.map(({ name }) => name)].join(' + ');

function replayEnds({ source, clickhouse }: Config): Ends {
  const inFlight = 'the batches in flight';
  return {
    repartition: [],
    source: {
      id: 'source',
      input: inputNames(source),
      output: 'SourceBatch',
      does: 'reads in event-time order',
      bounds: `${source?.batchEvents ?? '-'} events a batch, ${source?.maxInFlightBatches ?? '-'} batches in flight`,
      file: 'streams/batch-source.ts',
    },
    publish: {
      id: 'publish',
      input: 'OutputBatch',
      output: 'OutputBatch',
      does: `writes to ClickHouse (${clickhouse.url ?? 'embedded'}), idempotent`,
      bounds: inFlight,
      file: 'operators/publish.ts',
    },
    commit: {
      id: 'commit',
      input: 'OutputBatch',
      output: 'OutputBatch',
      does: 'moves the position, in order; the source goes on',
      bounds: inFlight,
      file: 'operators/ordered-commit.ts',
    },
    answer: [],
    state: '',
  };
}

function liveEnds(kafka: KafkaConfig, hotUsers: number): Ends {
  const { source, userActions, erasures, candidateRequests } = kafka.topics;
  const atOnce = kafka.delivery === 'at-least-once';
  const inFlight = `${kafka.maxInFlightBatches} batches in flight a partition`;
  return {
    repartition:
      source === undefined
        ? []
        : [
            {
              id: 'repartition',
              input: source,
              output: userActions,
              does: "writes records keyed by anything to their user's partition, exactly once",
              bounds: `${kafka.batchEvents} records a transaction, ${Math.round(kafka.maxBufferedBytes / 2 ** 20)} MiB buffered a partition`,
              file: 'streams/repartition/repartition-stream.ts',
            },
          ],
    source: {
      id: 'source',
      input: [userActions, erasures, candidateRequests].join(' + '),
      output: 'SourceBatch',
      does: 'fetches the partitions of this instance, committed records only',
      bounds: `${kafka.batchEvents} events a batch, ${inFlight}, ${Math.round(kafka.maxBufferedBytes / 2 ** 20)} MiB buffered`,
      file: 'streams/live/partition-source.ts',
    },
    publish: {
      id: 'publish',
      input: 'OutputBatch',
      output: 'OutputBatch',
      does: atOnce ? 'sends outputs at once, before the commit' : 'leaves outputs to the commit, exactly once',
      bounds: inFlight,
      file: atOnce ? 'infra/kafka/output-producer.ts' : 'operators/publish.ts',
    },
    commit: {
      id: 'commit',
      input: 'OutputBatch',
      output: 'OutputBatch',
      does: `one transaction: ${atOnce ? '' : 'outputs, '}state, offsets; then the local store`,
      bounds: 'one a partition at a time',
      file: 'streams/live/partition-task.ts',
    },
    answer: [
      {
        id: 'answer',
        input: 'ScoredUnit[]',
        output: 'ScoredUnit[]',
        does: 'answers requests for candidates, each partition in order',
        bounds: '512 candidates a call, one call at a time a batch',
        file: 'operators/answer.ts',
      },
    ],
    state: `, ${hotUsers} users in memory`,
  };
}

/** The steps as a Mermaid flow chart. */
export function mermaid(steps: readonly Step[]): string {
  const live = steps.some(({ file }) => file.startsWith('streams/live/'));
  const lines = ['flowchart TD', `  input[/${steps[0]!.input}/] --> ${steps[0]!.id}`];
  for (const step of steps) lines.push(`  ${step.id}["${step.id}<br/><small>${step.does}<br/>${step.bounds}</small>"]`);
  for (const [i, step] of steps.slice(1).entries())
    lines.push(`  ${steps[i]!.id} -->|${step.input.replace('[]', ' list')}| ${step.id}`);
  for (const { id, follows } of steps) if (follows !== undefined) lines.push(`  ${id}Follows[/${follows}/] -.-> ${id}`);
  lines.push(
    '  decode & sequence -.->|DeadLetter| publish',
    ...(live
      ? ['  commit --> outputs[/embeddings, scores, dead letters/]', '  commit <--> state[(changelog and local store)]']
      : ['  publish --> clickhouse[(ClickHouse)]']),
    '  commit -.->|ack| source',
  );
  return `${lines.join('\n')}\n`;
}
