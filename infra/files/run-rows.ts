/** What a batch of a backfill gives, as JSON lines: the rows of its files, in ClickHouse's names, each with its run and lineage. */
import type { DeadLetter } from '../../schemas/action.ts';
import type { OutputBatch } from '../../schemas/batch.ts';
import type { CandidateScores, Lineage, PrequentialRank, UserEmbedding } from '../../schemas/output.ts';
import { originalText } from '../clickhouse/output-rows.ts';

export const RUN_FILES = ['embeddings', 'scores', 'quality', 'dead_letters'] as const;
export type RunFile = (typeof RUN_FILES)[number];
export type RunLines = Record<RunFile, string[]>;

/**
 * The lines of a batch. Nothing in them says when or how they were computed: the same events and model, the same bytes.
 */
export const runLines = (runId: string, { embeddings, scores, quality, deadLetters }: OutputBatch): RunLines => ({
  embeddings: embeddings.map((item) => embeddingLine(runId, item)),
  scores: scores.map((item) => scoresLine(runId, item)),
  quality: quality.map((item) => qualityLine(runId, item)),
  dead_letters: deadLetters.map((item) => deadLetterLine(runId, item)),
});

function embeddingLine(runId: string, item: UserEmbedding): string {
  return JSON.stringify({
    run_id: runId,
    user_id: item.userId,
    version: item.version,
    embedding: numbers(item.embedding),
    sequence_length: item.sequenceLength,
    last_event_time: timeOf(item.lastEventTimeMs),
    query_time: timeOf(item.queryTimeMs),
    ...lineageOf(item.lineage),
  });
}

function scoresLine(runId: string, { userId, version, candidates, lineage }: CandidateScores): string {
  return JSON.stringify({
    run_id: runId,
    user_id: userId,
    version,
    entities: candidates.map(({ entity }) => entity),
    scores: numbers(candidates.map(({ score }) => score)),
    ...lineageOf(lineage),
  });
}

function qualityLine(runId: string, item: PrequentialRank): string {
  return JSON.stringify({
    run_id: runId,
    user_id: item.userId,
    event_id: item.eventId,
    event_time: timeOf(item.eventTimeMs),
    action: item.action,
    entity: item.entity,
    prior_events: item.priorEvents,
    rank: item.rank,
    ...lineageOf(item.lineage),
  });
}

function deadLetterLine(runId: string, { position, code, step, message, original }: DeadLetter): string {
  const [text, encoding] = originalText(original ?? '');
  return JSON.stringify({ run_id: runId, ...position, code, step, message, original: text, encoding });
}

const lineageOf = ({ sequenceDigest, modelDigest, topic, partition, offset }: Lineage) => ({
  sequence_digest: sequenceDigest,
  model_digest: modelDigest,
  topic,
  partition,
  offset,
});

const timeOf = (ms: number): string => new Date(ms).toISOString();

/** Nine digits are what a float32 is read back from, bit by bit. JSON has no NaN and no infinities: they are text, as ClickHouse reads them. */
const numbers = (values: Iterable<number>): (number | string)[] =>
  Array.from(values, (value) => (Number.isFinite(value) ? Number(value.toPrecision(9)) : String(value).toLowerCase()));
