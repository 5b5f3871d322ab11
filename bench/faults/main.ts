/**
 * `npm run faults [-- NAME…]`: the promises of the consumer deployment under faults, at length, against real brokers. `outside` names all
 * that the world outside does.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import colors from 'picocolors';
import { facts, heading } from '../../infra/console/table.ts';
import { startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { type Bundle, loadBundle } from '../../models/hstu/bundle.ts';
import { loadConfig } from '../../streams/load-config.ts';
import { liveBundle } from '../../test/support/live-bundle.ts';
import { LiveWorld } from '../../test/support/live-world.ts';
import { readByJava } from '../../test/support/outside/java-tools.ts';
import { aKilledBackfillGivesTheSame } from '../../test/support/promises/backfill.ts';
import { theLossOfALeaderLosesNothing } from '../../test/support/promises/brokers.ts';
import { theSinkStopsOnAFullDisk, theSinkWaitsForClickHouse } from '../../test/support/promises/clickhouse.ts';
import * as instances from '../../test/support/promises/instances.ts';
import { everyLastEmbeddingEqualsAFullEncode, MOVIELENS_CONFIG, movielens } from '../../test/support/promises/movielens.ts';
import type { Say, Shown } from '../../test/support/promises/promise.ts';
import { spoiltRecordsBecomeDeadLetters } from '../../test/support/promises/records.ts';
import { replayVerifiesLive, syntheticActions, syntheticBundle, syntheticSettings } from '../../test/support/promises/verify.ts';
import { outside } from './outside.ts';
import type { Promised } from './promised.ts';

const FOLDER = fileURLToPath(new URL('../../.hstu/faults', import.meta.url));
const say: Say = (text) => process.stderr.write(colors.dim(`  ${text}\n`));

const atLeastOnce = { kafka: { delivery: 'at-least-once' } };
const promises: Readonly<Record<string, Promised>> = {
  'movielens-equals-full-encode': {
    bundle: movielensBundle,
    settings: { publish: 'every-batch' },
    show: (world) => everyLastEmbeddingEqualsAFullEncode(world, 104_519),
  },
  'replay-verifies-live-movielens': {
    bundle: movielensBundle,
    show: async (world, _, bundle) =>
      replayVerifiesLive(world, { actions: await movielens(104_519), bundle, patienceMs: 600_000, say }),
  },
  'replay-verifies-live-synthetic': {
    bundle: () => liveBundle(syntheticBundle()),
    settings: syntheticSettings,
    show: (world, _, bundle) =>
      replayVerifiesLive(world, { actions: syntheticActions(1_000_000), bundle, patienceMs: 600_000, say }),
  },
  'no-gap-after-kill-9': { show: (world) => instances.nothingLostOrDoubledAfterKill9(world, { rounds: 20, say }) },
  'no-gap-after-kill-9-at-least-once': {
    settings: atLeastOnce,
    show: (world) => instances.nothingLostOrDoubledAfterKill9(world, { rounds: 5, say }),
  },
  'no-gap-by-rebalances': { show: (world) => instances.nothingLostOrDoubledByRebalances(world, { rounds: 10, say }) },
  'state-survives-the-loss-of-the-store': { show: instances.stateSurvivesTheLossOfTheStore },
  'a-damaged-store-is-rebuilt': { show: instances.aDamagedStoreIsFoundAndRebuilt },
  'a-standby-takes-over-warm': { settings: { state: { standby: true } }, show: instances.aStandbyTakesOverWarm },
  'a-zombie-is-fenced': { show: instances.aZombieIsFenced },
  'no-gap-after-the-loss-of-a-leader': {
    brokers: 3,
    settings: { kafka: { replicationFactor: 3 } },
    show: (world, cluster) => theLossOfALeaderLosesNothing(world, { cluster, rounds: 3, say }),
  },
  backfill: {
    show: (world) =>
      aKilledBackfillGivesTheSame(world, {
        places: ['clickhouse', 'kafka', 'parquet', 'jsonl'],
        rounds: 10,
        events: 25_000,
        say,
      }),
  },
  'the-sink-waits-for-clickhouse': { show: (world) => theSinkWaitsForClickHouse(world, { awayMs: 60_000, say }) },
  'the-sink-stops-on-a-full-disk': { show: (world) => theSinkStopsOnAFullDisk(world, { say }) },
  'spoilt-records-become-dead-letters': {
    settings: { kafka: { maxRecordBytes: 65_536 } },
    show: (world) => spoiltRecordsBecomeDeadLetters(world, { spoilt: 100_000, huge: 200, maxBlockedSeconds: 0.2, say }),
  },
  ...outside(say),
};
/** Names that stand for several. */
const groups: Readonly<Record<string, readonly string[]>> = { outside: Object.keys(outside(say)) };

const names = process.argv.slice(2).flatMap((name) => groups[name] ?? [name]);
const unknown = names.filter((name) => !Object.hasOwn(promises, name));
if (unknown.length > 0) {
  process.stderr.write(
    `unknown: ${unknown.join(', ')}\nthere are: ${[...Object.keys(groups), ...Object.keys(promises)].join(', ')}\n`,
  );
  process.exit(2);
}

let broken = 0;
for (const [name, promised] of Object.entries(promises)) {
  if (names.length > 0 && !names.includes(name)) continue;
  console.log(heading(name));
  const began = performance.now();
  const { facts: seen, problems, skipped } = await show(name, promised);
  console.log(
    facts([
      ...Object.entries(seen).map(([key, value]) => [key, String(value)] as const),
      ['seconds', String(Math.round((performance.now() - began) / 1000))],
    ]),
  );
  for (const problem of problems.slice(0, 20)) console.log(colors.red(`  ${problem}`));
  console.log(skipped === undefined ? verdict(problems) : colors.yellow(`  skipped: ${skipped}`));
  if (problems.length > 0) broken += 1;
}
process.exit(broken === 0 ? 0 : 1);

function verdict(problems: readonly string[]): string {
  return problems.length === 0 ? colors.green('  held') : colors.red(`  BROKEN: ${problems.length} problem(s)`);
}

async function movielensBundle(): Promise<{ readonly path: string; readonly bundle: Bundle }> {
  const { bundle: path } = await loadConfig({ file: MOVIELENS_CONFIG });
  return { path, bundle: await loadBundle(path) };
}

async function show(name: string, promised: Promised): Promise<Shown> {
  const { settings, brokers = 1, bundle: bundleOf = liveBundle, show } = promised;
  const jars = join(FOLDER, '..', 'kafka', 'libs');
  const cluster = await startKafka({ folder: join(FOLDER, `kafka-${brokers}`), jars, brokers, basePort: 0 });
  let world: LiveWorld | undefined;
  try {
    const bundle = await bundleOf();
    const distinct = `${name}-${Date.now()}`;
    world = await LiveWorld.create({
      broker: cluster,
      name: distinct,
      bundlePath: bundle.path,
      bundle: bundle.bundle,
      settings: typeof settings === 'function' ? settings(distinct) : settings,
      ...(promised.readByJava === true && { reader: (topic) => readByJava(cluster.bootstrapServers[0]!, topic) }),
    });
    return await show(world, cluster, bundle.bundle);
  } catch (error) {
    return { facts: {}, problems: [error instanceof Error ? (error.stack ?? error.message) : String(error)] };
  } finally {
    await world?.close();
    await cluster.destroy();
  }
}
