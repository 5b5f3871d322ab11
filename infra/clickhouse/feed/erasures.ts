/** Users who were erased: their rows removed, and kept out when they are read again. */
import { createHash } from 'node:crypto';
import type { SourcePosition } from '../../../schemas/action.ts';
import type { ClickHouse } from '../clickhouse.ts';
import { timeText } from '../output-rows.ts';
import type { FeedRow, FeedTable } from './feed-rows.ts';

/** Where a user's rows end. */
export interface ErasureCut {
  readonly userId: string;
  /** What it ends: what the stream published (a tombstone says so), or the user's own actions (the erasure itself does). */
  readonly scope: 'outputs' | 'actions';
  /** Of the record that says it. */
  readonly position: SourcePosition;
  /** Whether it ends at the record's offset in the same topic partition, rather than at its time in any. */
  readonly byOffset: boolean;
  /** The record's timestamp, ms since the epoch. */
  readonly erasedAtMs: number;
}

interface StoredCut {
  readonly user_hash: string;
  readonly scope: ErasureCut['scope'];
  readonly topic: string;
  readonly partition: number;
  readonly offset: number | null;
  readonly erased_ms: number;
}

const COLUMNS = ['run_id', 'user_hash', 'scope', 'topic', 'partition', 'offset', 'erased_at'] as const;
/** Which tables an erasure of a scope takes from; `embeddings_current` is written by a view, and read by ourselves only. */
const OUTPUTS = ['embeddings', 'embeddings_current', 'scores', 'quality', 'outcomes', 'dead_letters'] as const;
const ACTIONS = ['actions', 'dead_letters'] as const;
/** Users of one statement: their ids are part of its text. */
const MAX_USERS = 1_000;

/** Says who was erased without saying who it was. */
export const userHash = (userId: string): string => createHash('sha256').update(userId).digest('hex');

export class Erasures {
  readonly #clickhouse: ClickHouse;
  readonly #runId: string;
  #any = false;

  constructor(clickhouse: ClickHouse, runId: string) {
    this.#clickhouse = clickhouse;
    this.#runId = runId;
  }

  /** Looks whether there are any: as long as there are none, rows need not be asked about. */
  async load(): Promise<void> {
    const [row] = await this.#clickhouse.rows<{ n: number }>(
      'SELECT count() AS n FROM (SELECT 1 FROM erasures WHERE run_id = {runId:String} LIMIT 1)',
      { runId: this.#runId },
    );
    this.#any = (row?.n ?? 0) > 0;
  }

  /** Remembers the cuts, then removes what they take. Done again, it changes nothing. */
  async apply(cuts: readonly ErasureCut[]): Promise<void> {
    if (cuts.length === 0) return;
    const rows = cuts.map(({ userId, scope, position, byOffset, erasedAtMs }) =>
      JSON.stringify([
        this.#runId,
        userHash(userId),
        scope,
        position.topic,
        position.partition,
        byOffset ? position.offset : null,
        timeText(erasedAtMs),
      ]),
    );
    // First: a removal that is cut short is found again, and what is inserted meanwhile is kept out.
    await this.#clickhouse.insert('erasures', COLUMNS, rows);
    this.#any = true;
    const inTime = newest(
      cuts.filter(({ byOffset }) => !byOffset),
      ({ scope }) => scope,
    );
    for (const [scope, group] of inTime)
      for (const table of scope === 'outputs' ? OUTPUTS : ACTIONS) {
        const before = scope === 'outputs' ? '<' : '<=';
        const time = table === 'actions' ? 'recorded_at' : 'published_at';
        await this.#delete(table, `toUnixTimestamp64Milli(${time}) ${before}`, group, ({ erasedAtMs }) => erasedAtMs);
      }
    const byPlace = newest(
      cuts.filter(({ byOffset }) => byOffset),
      ({ position }) => `${position.partition}/${position.topic}`,
    );
    for (const group of byPlace.values()) {
      const { topic, partition } = group[0]!.position;
      const place = { topic, partition };
      for (const table of ACTIONS)
        await this.#delete(
          table,
          'topic = {topic:String} AND partition = {partition:UInt32} AND toInt64(offset) <=',
          group,
          ({ position }) => position.offset,
          place,
        );
    }
  }

  /** Of these rows, those that no erasure takes. */
  async keep(tables: Readonly<Record<FeedTable, readonly FeedRow[]>>): Promise<Readonly<Record<FeedTable, readonly FeedRow[]>>> {
    if (!this.#any) return tables;
    const users = new Map<string, string>();
    for (const rows of Object.values(tables)) for (const { userId } of rows) users.set(userHash(userId), userId);
    const cutsOf = new Map<string, StoredCut[]>();
    const hashes = [...users.keys()];
    for (let i = 0; i < hashes.length; i += 10_000) {
      const found = await this.#clickhouse.rows<StoredCut>(
        `SELECT user_hash, scope, topic, partition, offset, toUnixTimestamp64Milli(erased_at) AS erased_ms
         FROM erasures WHERE run_id = {runId:String} AND user_hash IN {hashes:Array(String)}`,
        { runId: this.#runId, hashes: hashes.slice(i, i + 10_000) },
      );
      for (const cut of found) {
        const userId = users.get(cut.user_hash)!;
        cutsOf.set(userId, [...(cutsOf.get(userId) ?? []), cut]);
      }
    }
    if (cutsOf.size === 0) return tables;
    const lives = (table: FeedTable) => (row: FeedRow) => cutsOf.get(row.userId)?.some((cut) => takes(cut, table, row)) !== true;
    return Object.fromEntries(
      Object.entries(tables).map(([table, rows]) => [table, rows.filter(lives(table as FeedTable))]),
    ) as unknown as Record<FeedTable, readonly FeedRow[]>;
  }

  /** `condition` ends in a comparison with the cut of the row's user. */
  async #delete(
    table: string,
    condition: string,
    cuts: readonly ErasureCut[],
    endOf: (cut: ErasureCut) => number,
    params: Readonly<Record<string, unknown>> = {},
  ): Promise<void> {
    for (let i = 0; i < cuts.length; i += MAX_USERS) {
      const part = cuts.slice(i, i + MAX_USERS);
      await this.#clickhouse.command(
        `DELETE FROM ${table} WHERE run_id = {runId:String} AND user_id IN {users:Array(String)}
           AND ${condition} transform(user_id, {users:Array(String)}, {ends:Array(Int64)}, toInt64(-1))`,
        { ...params, runId: this.#runId, users: part.map(({ userId }) => userId), ends: part.map(endOf) },
      );
    }
  }
}

/** By group, the last cut of each user. */
function newest(cuts: readonly ErasureCut[], groupOf: (cut: ErasureCut) => string): Map<string, ErasureCut[]> {
  const groups = new Map<string, Map<string, ErasureCut>>();
  for (const cut of cuts) {
    const group = groups.get(groupOf(cut)) ?? new Map<string, ErasureCut>();
    groups.set(groupOf(cut), group);
    const before = group.get(cut.userId);
    if (before === undefined || before.position.offset < cut.position.offset) group.set(cut.userId, cut);
  }
  return new Map([...groups].map(([name, users]) => [name, [...users.values()]]));
}

function takes(cut: StoredCut, table: FeedTable, { atMs, input }: FeedRow): boolean {
  if (cut.scope === 'outputs') return table !== 'actions' && atMs < cut.erased_ms;
  if (table !== 'actions' && table !== 'dead_letters') return false;
  if (cut.offset === null) return atMs <= cut.erased_ms;
  return input?.topic === cut.topic && input.partition === cut.partition && input.offset <= cut.offset;
}
