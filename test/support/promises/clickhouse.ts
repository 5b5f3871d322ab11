/** Faults of ClickHouse under live load: away, and without room. The stream goes on, the sink loses nothing. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { ClickHouse } from '../../../infra/clickhouse/clickhouse.ts';
import { connect } from '../../../infra/clickhouse/connect.ts';
import { type EngineLease, openEngine } from '../../../infra/clickhouse/engine/open-engine.ts';
import { rssOf } from '../../../infra/console/memory.ts';
import { messageOf } from '../../../schemas/errors.ts';
import { embeddedIn, until } from '../clickhouse-store.ts';
import type { LiveWorld } from '../live-world.ts';
import { Door, SinkProcess } from '../sink-world.ts';
import { SmallDisk } from '../small-disk.ts';
import { Load, type Say, type Shown, settle, sleep } from './promise.ts';

const LOAD = { perSecond: 500, users: 200 };
/** Less than what comes in a minute: a sink that waits must stop reading. */
const MAX_BUFFERED_BYTES = 2 * 2 ** 20;
/** How long the stream goes on beside a full disk. */
const FULL_MS = 10_000;
/** What the sink may grow by while it waits, beside its buffers, bytes. */
const MAX_GROWTH_BYTES = 150 * 2 ** 20;

/** An embedded engine behind a door, and sinks of a world's topics that go through it. */
class Storage {
  readonly clickhouse: ClickHouse;
  readonly door: Door;
  readonly #world: LiveWorld;
  readonly #lease: EngineLease;

  /** @param folder of the engine */
  static async open(world: LiveWorld, folder: string): Promise<Storage> {
    const clickhouse = await connect(embeddedIn(folder));
    const lease = await openEngine(folder);
    return new Storage(world, clickhouse, lease, await Door.open(Number(new URL(lease.url).port)));
  }

  private constructor(world: LiveWorld, clickhouse: ClickHouse, lease: EngineLease, door: Door) {
    this.#world = world;
    this.clickhouse = clickhouse;
    this.#lease = lease;
    this.door = door;
  }

  async sink(): Promise<SinkProcess> {
    const { config, folder } = this.#world;
    const file = join(folder, 'sink.yaml');
    const sink = { ...config.sink, port: 0, maxBufferedBytes: MAX_BUFFERED_BYTES };
    const { username, password } = this.#lease;
    await writeFile(file, stringify({ ...config, sink, clickhouse: { url: this.door.url, username, password } }));
    return new SinkProcess(file);
  }

  async count(table: string): Promise<number> {
    const runId = this.#world.config.kafka.applicationId;
    const sql = `SELECT count() AS n FROM ${table} FINAL WHERE run_id = {runId:String}`;
    return (await this.clickhouse.rows<{ n: number }>(sql, { runId }))[0]!.n;
  }

  /** What the tables hold against what the topics hold, once they are as many, or a while has passed. */
  async problems(actions: number, timeoutMs: number): Promise<string[]> {
    const { userEmbeddings, candidateScores } = this.#world.config.kafka.topics;
    const embeddings = (await this.#world.outputs(userEmbeddings, 'UserEmbedding')).length;
    const scores = (await this.#world.outputs(candidateScores, 'CandidateScores')).length;
    const wanted = JSON.stringify({ actions, embeddings, scores });
    let found = '';
    const same = async () => {
      const [a, e, s] = await Promise.all(['actions', 'embeddings', 'scores'].map((table) => this.count(table)));
      found = JSON.stringify({ actions: a, embeddings: e, scores: s });
      return found === wanted;
    };
    const held = await until(same, timeoutMs).then(
      () => true,
      () => false,
    );
    return held ? [] : [`ClickHouse holds ${found}, the topics ${wanted}`];
  }

  async close(): Promise<void> {
    await this.door.close();
    this.#lease.release();
    await this.clickhouse.close();
  }
}

export interface AwayOptions {
  readonly awayMs: number;
  readonly say: Say;
}

/** ClickHouse is away for a while: the stream does not notice, the sink waits within its memory and goes on by itself. */
export async function theSinkWaitsForClickHouse(world: LiveWorld, { awayMs, say }: AwayOptions): Promise<Shown> {
  const folder = await mkdtemp(join(tmpdir(), 'hstu-away-'));
  const storage = await Storage.open(world, join(folder, 'clickhouse'));
  const sink = await storage.sink();
  try {
    const instance = await world.start('a');
    await instance.untilRunning();
    const load = new Load(world).start(LOAD);
    await until(async () => (await storage.count('embeddings')) > 0, 60_000);
    say(`ClickHouse goes away for ${awayMs / 1000} s`);
    await storage.door.close();
    await sink.untilLogged(/ClickHouse is away/, 60_000);
    const [rss, consumed, stored] = [rssOf(sink.pid)!, await world.consumed(), await storage.count('actions')];
    let worst = rss;
    for (const until = performance.now() + awayMs; performance.now() < until; await sleep(250))
      worst = Math.max(worst, rssOf(sink.pid) ?? 0);
    const problems: string[] = [];
    const meanwhile = (await world.consumed()) - consumed;
    if (meanwhile < 1) problems.push('the stream stood still while ClickHouse was away');
    if ((await storage.count('actions')) > stored) problems.push('rows came although ClickHouse was away');
    if (worst - rss > MAX_GROWTH_BYTES)
      problems.push(`the sink grew by ${Math.round((worst - rss) / 2 ** 20)} MiB while it waited`);
    say('ClickHouse comes back');
    await storage.door.open();
    const began = performance.now();
    await sink.untilLogged(/ClickHouse is back/, 60_000);
    const actions = await load.stop();
    const shown = await settle(world, actions);
    problems.push(...shown.problems, ...(await storage.problems(actions.length, 90_000)));
    const caughtUpMs = performance.now() - began;
    const code = await sink.stop();
    if (code !== 0) problems.push(`the sink ended with ${code}:\n${sink.log.slice(-3_000)}`);
    return {
      facts: {
        ...shown.facts,
        'consumed while it was away': meanwhile,
        'growth of the sink, MiB': Math.round((worst - rss) / 2 ** 20),
        'seconds until all was stored': (caughtUpMs / 1000).toFixed(1),
      },
      problems,
    };
  } finally {
    await sink.kill();
    await storage.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

const DISK_MEBIBYTES = 128;

/** The disk is full under load: a clear error, a clean stop, and after room was made a sink goes on where it stood. */
export async function theSinkStopsOnAFullDisk(world: LiveWorld, { say }: Pick<AwayOptions, 'say'>): Promise<Shown> {
  let disk: SmallDisk;
  try {
    disk = await SmallDisk.mount(DISK_MEBIBYTES);
  } catch (error) {
    return { facts: {}, problems: [], skipped: `a small disk cannot be mounted here (${messageOf(error)})` };
  }
  try {
    const storage = await Storage.open(world, join(disk.folder, 'clickhouse'));
    try {
      return await stopAndGoOn(world, { storage, disk, say });
    } finally {
      await storage.close();
    }
  } finally {
    await disk.unmount();
  }
}

async function stopAndGoOn(
  world: LiveWorld,
  { storage, disk, say }: { readonly storage: Storage; readonly disk: SmallDisk; readonly say: Say },
): Promise<Shown> {
  const sinks = [await storage.sink()];
  try {
    const instance = await world.start('a');
    await instance.untilRunning();
    const load = new Load(world).start(LOAD);
    await until(async () => (await storage.count('embeddings')) > 0, 60_000);
    say('the disk is full');
    await disk.fill();
    const began = performance.now();
    const code = await sinks[0]!.ended();
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const [stored, consumed] = [await storage.count('actions'), await world.consumed()];
    const problems: string[] = [];
    if (code !== 1) problems.push(`the sink ended with ${code}, not 1`);
    const [error] = /STORE_FAILED.*its disk is full: make room, and start again/.exec(sinks[0]!.log) ?? [];
    if (error === undefined) problems.push(`the sink did not say what is wrong:\n${sinks[0]!.log.slice(-3_000)}`);
    await sleep(FULL_MS);
    const meanwhile = (await world.consumed()) - consumed;
    if (meanwhile < 1) problems.push('the stream stood still while the disk was full');
    say('room is made');
    await disk.makeRoom();
    sinks.push(await storage.sink());
    await until(async () => (await storage.count('actions')) > stored, 60_000);
    const actions = await load.stop();
    const shown = await settle(world, actions);
    problems.push(...shown.problems, ...(await storage.problems(actions.length, 90_000)));
    const ended = await sinks[1]!.stop();
    if (ended !== 0) problems.push(`the sink that went on ended with ${ended}:\n${sinks[1]!.log.slice(-3_000)}`);
    return {
      facts: {
        ...shown.facts,
        'seconds until the sink ended': seconds,
        'stored when the disk was full': stored,
        'consumed while it was full': meanwhile,
      },
      problems,
    };
  } finally {
    for (const sink of sinks) await sink.kill();
  }
}
