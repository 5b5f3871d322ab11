/** Records of the committed topics as rows of the tables they belong to. */
import type { SourcePosition, SourceRecord } from '../../../schemas/action.ts';
import type { AvroCodec } from '../../../schemas/avro/avro-codec.ts';
import type { RecordDecoder } from '../../../schemas/avro/record-decoder.ts';
import type { KafkaConfig } from '../../../schemas/config.ts';
import type { ActionOutcome } from '../../../schemas/output.ts';
import { Fault } from '../../../schemas/record-fields.ts';
import { actionRow, deadLetterRow, embeddingRow, qualityRow, scoresRow, TABLE_COLUMNS, timeText } from '../output-rows.ts';
import type { ErasureCut } from './erasures.ts';

/** Columns of the tables that are fed, in the order of the rows. */
export const FEED_COLUMNS = {
  actions: [...TABLE_COLUMNS.actions, 'recorded_at'],
  embeddings: [...TABLE_COLUMNS.embeddings, 'published_at', 'expires_at'],
  scores: [...TABLE_COLUMNS.scores, 'published_at'],
  quality: [...TABLE_COLUMNS.quality, 'published_at'],
  outcomes: [
    'run_id',
    'user_id',
    'topic',
    'partition',
    'offset',
    'event_time',
    'action',
    'disposition',
    'published_at',
    'event_id',
  ],
  dead_letters: [...TABLE_COLUMNS.dead_letters, 'published_at', 'user_id', 'cut_from'],
} as const;

export type FeedTable = keyof typeof FEED_COLUMNS;
export const FEED_TABLES = Object.keys(FEED_COLUMNS) as readonly FeedTable[];

/** A row with what an erasure asks of it. */
export interface FeedRow {
  readonly userId: string;
  /** When it was published, or, of an action, recorded: the record's timestamp, ms since the epoch. */
  readonly atMs: number;
  /** Of the action that it is about; absent where only its time tells whether an erasure takes it. */
  readonly input?: SourcePosition;
  /** A JSON array in the order of the table's columns. */
  readonly json: string;
}

export interface FeedRows {
  readonly tables: Readonly<Record<FeedTable, FeedRow[]>>;
  readonly cuts: ErasureCut[];
  /** Records that cannot be read: those of `userActions` are dead letters of the stream's as well. */
  unreadable: number;
}

export interface FeedReaderOptions {
  /** `run_id` of every row. */
  readonly runId: string;
  readonly topics: KafkaConfig['topics'];
  readonly codec: AvroCodec;
  readonly decoder: RecordDecoder;
  readonly erasureAction: string;
  readonly embeddingHistoryDays: number;
}

const DAY_S = 86_400;
/** ClickHouse's `DateTime` ends in 2106. */
const MAX_TIME_S = 4_294_967_295;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class FeedReader {
  readonly #options: FeedReaderOptions;
  readonly #take: ReadonlyMap<string, (record: SourceRecord, rows: FeedRows) => boolean>;

  constructor(options: FeedReaderOptions) {
    this.#options = options;
    const { topics } = options;
    this.#take = new Map([
      [topics.userActions, (record: SourceRecord, rows: FeedRows) => this.#action(record, rows)],
      [topics.erasures, (record: SourceRecord, rows: FeedRows) => this.#action(record, rows)],
      [topics.userEmbeddings, (record: SourceRecord, rows: FeedRows) => this.#embedding(record, rows)],
      [topics.candidateScores, (record: SourceRecord, rows: FeedRows) => this.#scores(record, rows)],
      [topics.deadLetters, (record: SourceRecord, rows: FeedRows) => this.#deadLetter(record, rows)],
      ...(topics.actionOutcomes === undefined
        ? []
        : [[topics.actionOutcomes, (record: SourceRecord, rows: FeedRows) => this.#outcome(record, rows)] as const]),
    ]);
  }

  /** The topics that are read. */
  get topics(): readonly string[] {
    return [...this.#take.keys()];
  }

  /** The rows of these records, in order. What cannot be read is counted and left out: never an error. */
  read(records: Iterable<SourceRecord>): FeedRows {
    const rows: FeedRows = {
      tables: { actions: [], embeddings: [], scores: [], quality: [], outcomes: [], dead_letters: [] },
      cuts: [],
      unreadable: 0,
    };
    for (const record of records)
      if (record.fault !== undefined || this.#take.get(record.position.topic)?.(record, rows) !== true) rows.unreadable += 1;
    return rows;
  }

  #action(record: SourceRecord, { tables, cuts }: FeedRows): boolean {
    const decoded = this.#options.decoder.decode(record);
    if (!decoded.ok) return false;
    const atMs = timeOf(record);
    const { topics, erasureAction, runId } = this.#options;
    for (const action of decoded.actions) {
      const { userId, position } = action;
      if (action.action === erasureAction)
        cuts.push({ userId, scope: 'actions', position, byOffset: position.topic === topics.userActions, erasedAtMs: atMs });
      else {
        const json = withCells(actionRow(runId, action, ''), timeText(atMs));
        tables.actions.push({ userId, atMs, input: position, json });
      }
    }
    return true;
  }

  #embedding(record: SourceRecord, { tables, cuts }: FeedRows): boolean {
    const atMs = timeOf(record);
    if (record.value === null) {
      const userId = textOf(record.key);
      if (userId === undefined) return false;
      cuts.push({ userId, scope: 'outputs', position: record.position, byOffset: false, erasedAtMs: atMs });
      return true;
    }
    const { codec, runId, embeddingHistoryDays } = this.#options;
    const embedding = codec.decode('UserEmbedding', record.value as Uint8Array);
    if (embedding instanceof Fault) return false;
    const expiresAt = Math.min(MAX_TIME_S, Math.floor(atMs / 1000) + embeddingHistoryDays * DAY_S);
    const json = withCells(embeddingRow(runId, embedding), timeText(atMs), expiresAt);
    tables.embeddings.push({ userId: embedding.userId, atMs, json });
    return true;
  }

  #scores(record: SourceRecord, { tables }: FeedRows): boolean {
    // The tombstone of an erased user, who is erased by the one among the embeddings.
    if (record.value === null) return true;
    const scores = this.#decode('CandidateScores', record);
    if (scores instanceof Fault) return false;
    const atMs = timeOf(record);
    tables.scores.push({
      userId: scores.userId,
      atMs,
      json: withCells(scoresRow(this.#options.runId, scores), timeText(atMs)),
    });
    return true;
  }

  #outcome(record: SourceRecord, { tables }: FeedRows): boolean {
    const outcome = this.#decode('ActionOutcome', record);
    if (outcome instanceof Fault) return false;
    const atMs = timeOf(record);
    const at = { userId: outcome.userId, atMs };
    tables.outcomes.push({ ...at, json: outcomeRow(this.#options.runId, outcome, atMs) });
    const { ranked, position, ...action } = outcome;
    if (ranked === undefined) return true;
    const { rank, priorEvents, sequenceDigest, modelDigest } = ranked;
    const lineage = { ...position, sequenceDigest, modelDigest };
    const json = withCells(qualityRow(this.#options.runId, { ...action, rank, priorEvents, lineage }), timeText(atMs));
    tables.quality.push({ ...at, json });
    return true;
  }

  #deadLetter(record: SourceRecord, { tables }: FeedRows): boolean {
    const letter = this.#decode('DeadLetter', record);
    if (letter instanceof Fault) return false;
    const atMs = timeOf(record);
    const userId = textOf(record.key) ?? (letter.keyCut === undefined ? textOf(letter.originalKey) : undefined) ?? '';
    const cutFrom = (letter.originalCut ?? letter.keyCut)?.bytes ?? 0;
    const json = withCells(deadLetterRow(this.#options.runId, letter), timeText(atMs), userId, cutFrom);
    tables.dead_letters.push({ userId, atMs, input: letter.position, json });
    return true;
  }

  #decode<N extends 'CandidateScores' | 'ActionOutcome' | 'DeadLetter'>(name: N, { value }: SourceRecord) {
    if (!(value instanceof Uint8Array)) return new Fault('RECORD_MALFORMED', 'no value');
    return this.#options.codec.decode(name, value);
  }
}

function outcomeRow(
  runId: string,
  { userId, eventId, position, eventTimeMs, action, disposition }: ActionOutcome,
  atMs: number,
): string {
  const { topic, partition, offset } = position;
  return JSON.stringify([
    runId,
    userId,
    topic,
    partition,
    offset,
    timeText(eventTimeMs),
    action,
    disposition,
    timeText(atMs),
    eventId,
  ]);
}

const timeOf = ({ timestampMs = 0 }: SourceRecord): number => Math.max(0, timestampMs);

/** A row with cells after its own. */
const withCells = (row: string, ...cells: readonly (string | number)[]): string =>
  `${row.slice(0, -1)},${JSON.stringify(cells).slice(1)}`;

function textOf(key: Uint8Array | null | undefined): string | undefined {
  if (key === null || key === undefined) return undefined;
  try {
    return utf8.decode(key);
  } catch {
    return undefined;
  }
}
