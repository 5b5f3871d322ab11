/** A backfill that is killed at random moments, and gone on with, gives what one does that nobody disturbed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { connect } from '../../../infra/clickhouse/connect.ts';
import { readManifest, runsIn } from '../../../infra/files/run-folder.ts';
import { readRunRecords, runTopicsOf } from '../../../infra/kafka/run-topics.ts';
import type { RunPlace } from '../../../streams/replay/backfill-output.ts';
import { openOutput } from '../../../streams/replay/open-output.ts';
import type { LiveConfig } from '../../../streams/require-kafka.ts';
import { compiledCli } from '../compiled-cli.ts';
import { liveEvents } from '../live-bundle.ts';
import type { LiveWorld } from '../live-world.ts';
import { type Say, type Shown, sleep } from './promise.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** Runs that may end before they are killed, beyond one a round. */
const PATIENCE = 5;

export interface KilledBackfillOptions {
  readonly places: readonly RunPlace[];
  readonly rounds: number;
  readonly events: number;
  readonly say: Say;
}

/** Every place of outputs in turn: the rows of a run that was killed `rounds` times against those of one that was not. */
export async function aKilledBackfillGivesTheSame(world: LiveWorld, options: KilledBackfillOptions): Promise<Shown> {
  const { places, rounds, events, say } = options;
  await world.produce(liveEvents({ events, users: Math.ceil(events / 60) }), 2_000);
  const problems: string[] = [];
  const facts: Record<string, string | number> = { events, rounds };
  for (const place of places) {
    const config: LiveConfig = {
      ...world.config,
      state: { ...world.config.state, path: join(world.folder, 'state') },
      clickhouse: { ...world.config.clickhouse, path: join(world.folder, 'clickhouse') },
      backfill: { to: place, path: join(world.folder, 'runs'), partBytes: 2 ** 20 },
    };
    const file = join(world.folder, `${place}.yaml`);
    await mkdir(world.folder, { recursive: true });
    await writeFile(file, stringify(config));
    const began = performance.now();
    const whole = await run(file);
    const wholeMs = performance.now() - began;
    if (whole.code !== 0) return { facts, problems: [`${place}: ended with ${whole.code}:\n${whole.log.slice(-3000)}`] };
    const expected = await rowsOf(world, config, place);
    await dropAll(config);
    let killed = 0;
    let ended = 0;
    while (killed < rounds && ended <= rounds + PATIENCE) {
      // From before it reads until just before it would end, sooner where it was quicker than that; what is done moves on, kill by kill.
      const afterMs = 300 + (Math.random() * wholeMs) / 2 ** Math.max(0, ended - killed);
      const { code } = await run(file, afterMs);
      if (code === null) {
        killed += 1;
        say(`${place}, ${killed} of ${rounds}: kill -9 after ${Math.round(afterMs)} ms of ${Math.round(wholeMs)}`);
        continue;
      }
      // It came to its end first: the next is to be killed on its way.
      ended += 1;
      await dropAll(config);
    }
    if (killed < rounds) problems.push(`${place}: only ${killed} of ${rounds} kills`);
    const resumed = await run(file);
    if (resumed.code !== 0) problems.push(`${place}: the resumed run ended with ${resumed.code}:\n${resumed.log.slice(-3000)}`);
    const found = await rowsOf(world, config, place);
    facts[`${place}: rows, kills, ends between`] = `${found.rows}, ${killed}, ${ended}`;
    if (expected.rows < events / 2) problems.push(`${place}: only ${expected.rows} rows of ${events} events`);
    if (found.rows !== expected.rows || found.digest !== expected.digest)
      problems.push(`${place}: ${found.rows} rows (${found.digest}), undisturbed ${expected.rows} (${expected.digest})`);
    await dropAll(config);
  }
  return { facts, problems };
}

/** @param killAfterMs `kill -9` when it has not ended by then */
function run(file: string, killAfterMs?: number): Promise<{ readonly code: number | null; readonly log: string }> {
  const args = ['replay', '-c', file, '--mode', 'every-event', '--from', 'kafka', '--nice', '0'];
  const child: ChildProcess = spawn(process.execPath, [compiledCli(), ...args], {
    cwd: ROOT,
    env: { ...process.env, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  return new Promise((resolve) => {
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, log });
    });
  });
}

async function dropAll(config: LiveConfig): Promise<void> {
  const output = await openOutput(config);
  try {
    for (const { runId } of await output.runs()) await output.drop(runId);
    const left = await output.runs();
    if (left.length > 0) throw new Error(`dropped, and still there: ${left.map(({ runId }) => runId).join()}`);
  } finally {
    await output.close();
  }
  await sleep(0);
}

interface Rows {
  readonly rows: number;
  readonly digest: string;
}

/** All rows of the one run that is there, when and how they were computed left out. */
async function rowsOf(world: LiveWorld, config: LiveConfig, place: RunPlace): Promise<Rows> {
  const hash = createHash('sha256');
  let rows = 0;
  const add = (bytes: Uint8Array | string, count = 1) => {
    hash.update(bytes);
    rows += count;
  };
  if (place === 'jsonl' || place === 'parquet') {
    const [manifest] = await runsIn(config.backfill.path, place);
    const folder = join(config.backfill.path, manifest!.runId);
    for (const part of (await readManifest(folder))!.parts) add(await readFile(join(folder, part.name)), part.rows);
  } else if (place === 'clickhouse') {
    const clickhouse = await connect(config.clickhouse);
    const found = await clickhouse.rows<object>(
      'SELECT * EXCEPT (computed_at, latency_ms, rows_computed, outcome) FROM embeddings FINAL ORDER BY user_id, version',
    );
    for (const row of found) add(JSON.stringify(row));
    await clickhouse.close();
  } else {
    const [record] = await readRunRecords(world.kafka, config.kafka);
    const topics = runTopicsOf(config.kafka, record!.runId);
    for (const { key, value, record } of await world.outputs(topics.embeddings, 'UserEmbedding'))
      add(`${record.position.partition} ${key} ${JSON.stringify({ ...value, computedAtMs: 0, latencyMs: 0 })}`);
    for (const { key, value } of await world.read(topics.state)) {
      add(key as Uint8Array, 0);
      add((value ?? '') as Uint8Array, 0);
    }
  }
  return { rows, digest: hash.digest('hex').slice(0, 16) };
}
