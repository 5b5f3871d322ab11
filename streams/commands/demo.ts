/** `hstu-streams demo`: the whole job on MovieLens, and the evidence that it worked. */
import { stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import colors from 'picocolors';
import { runQuery } from '../../infra/clickhouse/queries.ts';
import { countRows, latestEmbeddings, latestScores, sequenceEvents } from '../../infra/clickhouse/readers.ts';
import { count, duration, mebibytes, percent, scientific } from '../../infra/console/format.ts';
import { rssOf } from '../../infra/console/memory.ts';
import { facts, heading, table } from '../../infra/console/table.ts';
import { openRawRows } from '../../infra/files/read-records.ts';
import { servesRetrieval } from '../../schemas/bundle-config.ts';
import type { Config } from '../../schemas/config.ts';
import type { Candidate } from '../../schemas/output.ts';
import { loadConfig } from '../load-config.ts';
import { SHADOW_TOLERANCE, shadowCheck } from '../shadow-check.ts';
import { INTERRUPTED } from './interrupt.ts';
import { collect, positiveInteger, wholeNumber } from './options.ts';
import { runReplay, stoppedAt, type WatchedReplay } from './run-replay.ts';
import { describeStages, twoStages } from './two-stage-story.ts';

interface DemoOptions {
  readonly limit?: number;
  readonly seed: number;
  readonly data?: string;
  readonly bundle?: string;
  readonly fresh?: true;
  readonly set: string[];
}

/** The demo's configuration, in a checkout and in the package. */
const CONFIG = ['../../examples/movielens/replay.yaml', '../../../examples/movielens/replay.yaml'];
/** Folder of the ranking bundle beside it. */
const EXAMPLE_RANKING = 'ranking';
/** Users of the shadow check. */
const SHADOW_USERS = 100;
/** Events of the user shown. */
const STORY_EVENTS = 8;
/** Slack over the memory budget that the demo allows. */
const MEMORY_SLACK = 1.25;

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('replay MovieLens through exact incremental HSTU into the embedded ClickHouse, and show that it worked')
    .option('--limit <events>', 'stop after this many events', positiveInteger)
    .option('--seed <n>', 'which users the shadow check takes and which one is shown', wholeNumber, 1)
    .option('--data <folder>', 'folder with ratings.csv, tags.csv and movies.csv of MovieLens')
    .option('--bundle <name>', "'ranking', the example that also ranks what it retrieves, or a bundle's folder")
    .option('--fresh', 'begin anew instead of going on where an earlier demo stopped')
    .option('--set <key=value>', 'override a setting (repeatable)', collect, [])
    .action(async (options: DemoOptions) => {
      const config = await demoConfig(options);
      const result = await runReplay(config, options);
      try {
        await report(config, result, options);
      } finally {
        await result.clickhouse.close();
      }
    });
}

async function demoConfig({ data, bundle, set }: DemoOptions): Promise<Config> {
  const candidates = CONFIG.map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const exists = await Promise.all(candidates.map((path) => stat(path).then(Boolean, () => false)));
  const file = candidates[exists.indexOf(true)] ?? candidates[0]!;
  const folder = bundle === EXAMPLE_RANKING ? join(dirname(file), bundle) : bundle && resolve(bundle);
  const loaded = await loadConfig({ file, environment: process.env, assignments: set });
  const config = folder === undefined ? loaded : { ...loaded, bundle: folder };
  if (data === undefined || config.source === undefined) return config;
  const files = config.source.files.map((file) => ({ ...file, path: join(resolve(data), file.path.split(/[\\/]/).at(-1)!) }));
  return { ...config, source: { ...config.source, files } };
}

async function report(config: Config, result: WatchedReplay, { seed }: DemoOptions): Promise<void> {
  const { clickhouse, runId, store, bundle } = result;
  const runParameter = { run_id: runId };
  const print = (title: string, text: string) => console.log(`${heading(title)}\n${text}`);

  print(`What was done (run ${runId})`, facts(workFacts(result)));
  print('Rows in ClickHouse', table([await countRows(clickhouse, runId)]));
  const letters = await runQuery(clickhouse, 'dead-letter-summary', runParameter);
  if (letters.length > 0) print('Dead letters', table(letters));

  const unseen = unseenUsersOf(bundle.config.training);
  print(
    'Prequential quality by year: each event ranked among all unseen-by-the-user entities, before the model saw it',
    `${table(await runQuery(clickhouse, 'prequential-by-year', { ...runParameter, unseen_users: unseen }))}\n` +
      colors.dim(fairness(unseen, bundle.config.training)),
  );

  const users = await publishedUsers(result);
  const shown = users[seed % Math.max(1, users.length)];
  const told = shown === undefined ? undefined : await story(config, result, shown);
  if (told !== undefined) print(`User ${shown}`, told.text);
  print(
    'Latency, from reading an event to its embedding (at full replay speed, so mostly waiting in line)',
    table(await runQuery(clickhouse, 'latency-quantiles', runParameter)),
  );
  print('Cache', table(await runQuery(clickhouse, 'cache-outcomes', runParameter)));

  const sample = seededSample(users, SHADOW_USERS, seed);
  const shadow = await shadowCheck(bundle, store, await latestEmbeddings(clickhouse, runId, sample));
  const exact = shadow.maxDelta <= SHADOW_TOLERANCE && shadow.digestMismatches === 0;
  const ranked = told?.rankingDelta === undefined || told.rankingDelta <= SHADOW_TOLERANCE;
  const engineRss = clickhouse.enginePid === undefined ? undefined : rssOf(clickhouse.enginePid);
  const withinMemory = result.peakRssBytes <= MEMORY_SLACK * config.memoryBudgetBytes;
  print(
    'Checks',
    facts([
      [
        'exact',
        `${verdict(exact)} max |Δ| ${scientific(shadow.maxDelta)} against a full re-encode of ${shadow.users} users (allowed ${scientific(SHADOW_TOLERANCE)})` +
          (shadow.digestMismatches > 0 ? `; ${shadow.digestMismatches} users' embeddings are of other events` : ''),
      ],
      [
        'memory',
        `${verdict(withinMemory)} peak ${mebibytes(result.peakRssBytes)}, budget ${mebibytes(config.memoryBudgetBytes)} + 25 %`,
      ],
      ...(told?.rankingDelta === undefined
        ? []
        : ([
            [
              'ranking',
              `${verdict(ranked)} max |Δ| ${scientific(told.rankingDelta)} between the list published last and both stages done anew (allowed ${scientific(SHADOW_TOLERANCE)})`,
            ],
          ] as const)),
      ...(engineRss === undefined ? [] : ([['ClickHouse', `its own process, ${mebibytes(engineRss)}`]] as const)),
    ]),
  );
  if (!exact || !ranked || !withinMemory) process.exitCode = 1;
  if (result.interrupted) {
    console.log(`\n${stoppedAt(result)}`);
    process.exitCode = INTERRUPTED;
  }
}

function workFacts({ totals, start, position, total, elapsedMs, encoder }: WatchedReplay): (readonly [string, string])[] {
  const rate = (1000 * totals.events) / Math.max(1, elapsedMs);
  const now =
    totals.events === 0
      ? 'nothing: this run was complete already (--fresh begins anew)'
      : `${count(totals.events)} in ${duration(elapsedMs)}, ${count(rate)}/s`;
  return [
    ['events now', now],
    ['position', `${count(position)} of ${count(total)}${start > 0 ? `, continued from ${count(start)}` : ''}`],
    ['embeddings', count(totals.embeddings)],
    ['cache hits', percent(totals.cacheHits / totals.embeddings)],
    ['rows an event', (totals.rowsComputed / Math.max(1, totals.tokens)).toFixed(2)],
    [
      'KV cache',
      `${mebibytes(encoder.kvBytesUsed)} of ${mebibytes(encoder.kvBytesBudget)}, ${count(encoder.users)} users, ${count(encoder.evictions)} evictions`,
    ],
  ];
}

interface Story {
  readonly text: string;
  /** Of a bundle with two stages: largest |score published − score computed anew|, place by place. */
  readonly rankingDelta?: number;
}

/** A user's last actions, and the best titles before and after the last one. */
async function story(config: Config, { clickhouse, runId, bundle }: WatchedReplay, userId: string): Promise<Story> {
  const titles = await readTitles(config);
  const titleOf = (entity: string) => titles.get(entity) ?? entity;
  const actions = await runQuery(clickhouse, 'user-story', { run_id: runId, user_id: userId, limit: STORY_EVENTS });
  const events = actions.map((row) => ({
    time: row['event_time'],
    action: row['action'],
    title: titleOf(String(row['entity'])),
    value: row['value'],
    disposition: row['disposition'],
  }));
  const after = await latestScores(clickhouse, runId, userId);
  const { topK, retrieve = 5 * topK } = config.scores;
  if (bundle.config.ranking !== undefined && servesRetrieval(bundle.config) && topK > 0) {
    const stages = await twoStages(bundle, await sequenceEvents(clickhouse, runId, userId), { topK, retrieve });
    const rankingDelta = largestGap(after?.candidates ?? [], stages.after.ranked);
    return { text: `${table(events)}\n${describeStages(stages, titleOf)}`, rankingDelta };
  }
  const before = after && (await latestScores(clickhouse, runId, userId, after.version));
  const column = (candidates: readonly Candidate[] | undefined, place: number) => {
    const candidate = candidates?.[place];
    return candidate === undefined ? '–' : `${titleOf(candidate.entity)} ${candidate.score.toFixed(3)}`;
  };
  const top = Array.from({ length: topK }, (_, place) => ({
    place: place + 1,
    'before the last event': column(before?.candidates, place),
    'after it': column(after?.candidates, place),
  }));
  return { text: `${table(events)}\n${table(top)}` };
}

/** Largest difference of scores place by place; infinite where one list is longer. */
function largestGap(published: readonly Candidate[], anew: readonly Candidate[]): number {
  if (published.length !== anew.length) return Number.POSITIVE_INFINITY;
  return Math.max(0, ...published.map(({ score }, i) => Math.abs(score - anew[i]!.score)));
}

async function readTitles(config: Config): Promise<Map<string, string>> {
  const folder = config.source?.files[0]?.path.replace(/[^\\/]+$/, '') ?? '';
  const titles = new Map<string, string>();
  const { chunks, toValue } = await openRawRows({ path: join(folder, 'movies.csv'), format: 'csv' });
  for await (const chunk of chunks) {
    for (const row of chunk) {
      const value = toValue(row);
      if (typeof value === 'object' && value !== null && 'movieId' in value)
        titles.set(`movie:${value['movieId']}`, String(value['title']));
    }
  }
  return titles;
}

/** Users with a published embedding, in a stable order. */
async function publishedUsers({ clickhouse, runId }: WatchedReplay): Promise<string[]> {
  const rows = await clickhouse.rows<{ user_id: string }>(
    'SELECT DISTINCT user_id FROM embeddings WHERE run_id = {runId:String} ORDER BY cityHash64(user_id), user_id',
    { runId },
  );
  return rows.map((row) => row.user_id);
}

/** `size` users spread evenly over all, beginning where the seed says. */
function seededSample(users: readonly string[], size: number, seed: number): string[] {
  const taken = Math.min(size, users.length);
  return Array.from({ length: taken }, (_, i) => users[(seed + Math.floor((i * users.length) / taken)) % users.length]!);
}

/** Which of the figures are fair, by how the model was trained. */
function fairness(unseenUsers: readonly string[], training: Readonly<Record<string, unknown>> | undefined): string {
  const cutTimeS = training?.['cutTime'];
  if (unseenUsers.length > 0)
    return `"unseen": the ${unseenUsers.length} users that training never saw, the fair figure. "seen": users of the training set, for comparison only.`;
  if (typeof cutTimeS !== 'number') return 'The bundle does not say which events it was trained on.';
  return `Trained on the events before ${new Date(1000 * cutTimeS).toISOString().slice(0, 10)}: later ones are the fair figure.`;
}

function unseenUsersOf(training: Readonly<Record<string, unknown>> | undefined): string[] {
  const listed = training?.['unseenUsers'];
  return Array.isArray(listed) ? listed.map(String) : [];
}

const verdict = (ok: boolean): string => (ok ? '✓' : '✗');
