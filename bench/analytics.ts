/** How long each named query takes on a generated live run of 1,000,000 events: 20,000 users by a heavy tail, 12 days, 64 numbers an embedding. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ClickHouse } from '../infra/clickhouse/clickhouse.ts';
import { connect } from '../infra/clickhouse/connect.ts';
import { listQueries, runQuery } from '../infra/clickhouse/queries.ts';
import { median } from './measure.ts';

export interface AnalyticsFigure {
  readonly query: string;
  /** Of the parameters other than the run and the user. */
  readonly parameters: string;
  readonly rows: number;
  readonly firstMs: number;
  readonly medianMs: number;
}

const RUN = 'live';
const EVENTS = 1_000_000;
const USERS = EVENTS / 50;
const ENTITIES = 10_000;
const DIMENSION = 64;
const REPEATS = 5;

export async function benchAnalytics(onProgress: (label: string) => void): Promise<AnalyticsFigure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-bench-'));
  const clickhouse = await connect({ path: join(folder, 'store'), database: 'hstu' });
  try {
    onProgress('generating');
    for (const sql of GENERATE) await clickhouse.command(sql);
    const figures: AnalyticsFigure[] = [];
    for (const { name, parameters } of await listQueries()) {
      onProgress(name);
      const needsUser = parameters.some((parameter) => parameter.name === 'user_id' && parameter.default === undefined);
      const user = needsUser ? { user_id: 'user-0' } : {};
      for (const more of name === 'quality-by' ? ['hour', 'action', 'length', 'age'].map((by) => ({ by })) : [{}])
        figures.push(await figureOf(clickhouse, name, { run_id: RUN, ...user, ...more }, Object.values(more).join()));
    }
    return figures;
  } finally {
    await clickhouse.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  }
}

async function figureOf(
  clickhouse: ClickHouse,
  query: string,
  given: Readonly<Record<string, unknown>>,
  parameters: string,
): Promise<AnalyticsFigure> {
  const times: number[] = [];
  let rows = 0;
  for (let i = 0; i < REPEATS; i++) {
    const began = performance.now();
    rows = (await runQuery(clickhouse, query, given)).length;
    times.push(Math.round(performance.now() - began));
  }
  return { query, parameters, rows, firstMs: times[0]!, medianMs: median(times) };
}

/** Item `n` of a popularity that falls with the cube. */
const item = (share: string, power: number) =>
  `concat('item:', toString(1 + toUInt32(${ENTITIES - 1} * pow(${share}, ${power}))))`;
const LINEAGE = "digest, 'model', 'user-actions', partition, offset";

const GENERATE: readonly string[] = [
  `CREATE TABLE generated ENGINE = MergeTree ORDER BY (user_id, version) AS
   SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY offset) AS version
   FROM
   (
       SELECT
           number AS offset,
           concat('user-', toString(toUInt32(${USERS} * pow(rand(1) / 4294967296., 2)))) AS user_id,
           fromUnixTimestamp64Milli((toUnixTimestamp(now()) - 12 * 86400 + toInt64(number)) * 1000) AS event_time,
           concat('e', toString(number)) AS event_id,
           ['view', 'like', 'purchase'][1 + rand(4) % 3] AS action,
           ${item('rand(5) / 4294967296.', 3)} AS entity,
           toUInt32(cityHash64(user_id) % 4) AS partition,
           event_time + toIntervalMillisecond(50 + rand(7) % 400) AS published_at,
           leftPad(lower(hex(number)), 16, '0') AS digest
       FROM numbers(${EVENTS})
   )`,
  `INSERT INTO entities
   SELECT 'model', concat('item:', toString(number)), arrayMap(d -> toFloat32(sin(number * d * 0.713) / 6), range(1, ${DIMENSION + 1}))
   FROM numbers(1, ${ENTITIES})`,
  `INSERT INTO actions (run_id, user_id, event_time, event_id, action, entity, disposition, topic, partition, offset, recorded_at)
   SELECT '${RUN}', user_id, event_time, event_id, action, entity, '', 'user-actions', partition, offset, event_time FROM generated`,
  `INSERT INTO outcomes
   SELECT '${RUN}', user_id, 'user-actions', partition, offset, event_time, action,
       multiIf(offset % 50 = 7, 'duplicate', offset % 40 = 3, 'inserted', offset % 90 = 5, 'late', 'appended'), published_at
   FROM generated`,
  `INSERT INTO quality
   SELECT '${RUN}', user_id, event_time, event_id, action, entity, version - 1, 1 + toUInt32(2000 * pow(rand(11) / 4294967296., 2)),
       ${LINEAGE}, published_at
   FROM generated WHERE version > 1`,
  `INSERT INTO embeddings
   SELECT '${RUN}', user_id, version,
       arrayMap(d -> toFloat32(sin(cityHash64(user_id) % 1000 * d) + 0.2 * sin(offset * d * 0.37)), range(1, ${DIMENSION + 1})),
       version, event_time, event_time, ${LINEAGE}, published_at, 5 + rand(3) % 50, 2,
       multiIf(offset % 10 = 0, 'cold', offset % 33 = 0, 'window', 'hit'), published_at, toDateTime(published_at) + 30 * 86400
   FROM generated`,
  `INSERT INTO scores (run_id, user_id, version, request_id, entities, scores, sequence_digest, model_digest, topic, partition, offset, computed_at, published_at)
   SELECT '${RUN}', user_id, version, '',
       arrayMap(i -> ${item('(cityHash64(user_id, i, version) % 1000000) / 1000000.', 2)}, range(10)),
       arrayMap(i -> toFloat32(1 - i * 0.05), range(10)), ${LINEAGE}, published_at, published_at
   FROM generated`,
  `INSERT INTO dead_letters
   SELECT '${RUN}', 'user-actions', partition, offset, 'FIELD_MISSING', 'decode', 'm', '{}', 'text', published_at, user_id
   FROM generated WHERE offset % 500 = 0`,
  `INSERT INTO erasures
   SELECT '${RUN}', lower(hex(SHA256(concat('gone-', toString(number))))), 'outputs', 'user-embeddings', 0, NULL, now64(3)
   FROM numbers(500)`,
  `INSERT INTO health
   SELECT '${RUN}', 'user-actions', number % 4, now() - number * 10, number, number % 100, 'i' FROM numbers(8000)`,
  'DROP TABLE generated',
];
