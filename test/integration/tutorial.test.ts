/** docs/tutorial.md, command by command as it stands there, on fewer events; and whether what comes out is what really happened. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LocalKafka } from '../../infra/kafka/broker/local-kafka.ts';
import { startKafka } from '../../infra/kafka/broker/start-kafka.ts';
import { kafkaClient } from '../../infra/kafka/kafka-client.ts';
import { readRanges, resolveRanges } from '../../infra/kafka/range-reader.ts';
import { committedBy } from '../../infra/kafka/request-erasure.ts';
import { AvroCodec } from '../../schemas/avro/avro-codec.ts';
import { Fault } from '../../schemas/record-fields.ts';
import { loadConfig } from '../../streams/load-config.ts';
import { requireKafka } from '../../streams/require-kafka.ts';
import { until } from '../support/clickhouse-store.ts';
import { compiledCli } from '../support/compiled-cli.ts';
import { kafkaIsPossible } from '../support/kafka-broker.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SHOP = join(ROOT, '.hstu/shop');
const EVENTS = 12_000;
/** For the second opinion. */
const pythonIsThere = spawnSync('python3', ['--version']).status === 0;

/** The lines of the page's `sh` blocks. */
async function commandsOf(page: string): Promise<string[]> {
  const text = await readFile(join(ROOT, page), 'utf8');
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block]) => block!.trim().split('\n'));
}

describe.skipIf(!kafkaIsPossible)('the tutorial', { timeout: 180_000 }, () => {
  let broker: LocalKafka;
  let running: ChildProcess | undefined;
  beforeAll(async () => {
    broker = await startKafka({
      folder: join(ROOT, '.hstu/tutorial-kafka'),
      jars: join(ROOT, '.hstu/kafka/libs'),
      brokers: 1,
      basePort: 0,
    });
  }, 120_000);
  afterAll(async () => {
    running?.kill('SIGKILL');
    await broker?.destroy();
    await rm(SHOP, { recursive: true, force: true });
  });

  const env = () => ({
    ...process.env,
    NO_COLOR: '1',
    HSTU_KAFKA__BROKERS: broker.bootstrapServers[0]!,
    HSTU_TELEMETRY__PORT: '0',
  });
  /** The page's command for this test's broker, its number of events, and the compiled command line. */
  const here = (command: string): string =>
    command
      .replace('--events 200000', `--events ${EVENTS}`)
      .replace('127.0.0.1:19092', broker.bootstrapServers[0]!)
      .replace('npm run -s cli --', `"${process.execPath}" "${compiledCli()}"`);

  function start(command: string): { readonly child: ChildProcess; readonly said: () => string } {
    const child = spawn('bash', ['-c', `exec ${here(command)}`.replace('exec cd', 'cd')], {
      cwd: ROOT,
      env: env(),
      detached: true,
    });
    let said = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
    return { child, said: () => said };
  }
  async function ends(command: string): Promise<string> {
    const { child, said } = start(command);
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    expect(code, `${command}\n${said()}`).toBe(0);
    return said();
  }

  it('goes from raw files and a raw topic to fresh lists, and everybody’s embedding is a full encode of what happened', async () => {
    const said = new Map<string, string>();
    for (const command of await commandsOf('docs/tutorial.md')) {
      // A broker is there.
      if (/^npm run -s (up|down)/.test(command)) continue;
      if (!pythonIsThere && (command.startsWith('python3') || command.includes(' encode '))) continue;
      if (command.includes(' run -c ')) {
        const run = start(command);
        running = run.child;
        await until(async () => run.said().includes('"state":"RUNNING"'), 30_000);
      } else if (command.includes('read.mjs')) {
        const reader = start(command);
        await until(
          async () => /"topic":"user-embeddings"/.test(reader.said()) && /"topic":"candidate-scores"/.test(reader.said()),
          30_000,
        );
        process.kill(-reader.child.pid!, 'SIGKILL');
      } else {
        if (command.includes(' erase ') && pythonIsThere) await compare();
        said.set(command, await ends(command));
        if (command.includes(' send ')) await untilProcessed();
      }
    }
    const planted = JSON.parse(await readFile(join(SHOP, 'planted.json'), 'utf8')).planted.history as Record<string, number>;
    const dry = [...said].find(([command]) => command.includes('--dry-run'))![1];
    const dead = Object.entries(planted).reduce((sum, [name, count]) => sum + (name === 'ignored' ? 0 : count), 0);
    expect(dry).toContain(`${dead} of them dead letters, ${planted['ignored']!.toLocaleString('en')} ignored`);
    const countOf = (code: string) => Number(new RegExp(`${code} +│ decode │ +(\\d+)`).exec(dry)![1]);
    expect(countOf('TIME_INVALID')).toBe(planted['badTime']);
    expect(countOf('ACTION_UNKNOWN')).toBe(planted['unknownKind']);
    expect(countOf('RECORD_MALFORMED')).toBe(planted['notJson']);
    expect(countOf('FIELD_MISSING')).toBe(planted['noUser']! + planted['lineWithoutSku']!);
    expect([...said].find(([command]) => command.includes('--mode verify'))![1]).toMatch(
      /Verified[\s\S]*missing +0[\s\S]*extra +0[\s\S]*mismatches +0/,
    );
    expect([...said].find(([command]) => command.includes(' erase '))![1]).toContain('clean: nothing is left');
    running!.kill('SIGTERM');
  });

  async function untilProcessed(): Promise<void> {
    const { kafka: config } = requireKafka(
      await loadConfig({ file: join(ROOT, 'examples/shop/shop.yaml'), environment: env() }),
      'shop',
    );
    const kafka = kafkaClient(config);
    const isDone = async (group: string, topic: string) => {
      const done = await committedBy(kafka, group, [topic]);
      return (await resolveRanges(kafka, topic, () => ({}))).every(
        ({ partition, to }) => (done.get(`${partition}/${topic}`) ?? 0) >= to,
      );
    };
    await until(
      async () => (await isDone('shop-repartition', 'clickstream')) && (await isDone('shop', 'shop-repartition')),
      60_000,
    );
  }

  /** The newest embeddings of the topic with one full encode a customer of the history that the generator knows. */
  async function compare(): Promise<void> {
    const { kafka: config } = requireKafka(
      await loadConfig({ file: join(ROOT, 'examples/shop/shop.yaml'), environment: env() }),
      'shop',
    );
    const codec = new AvroCodec();
    const kafka = kafkaClient(config);
    const newest = new Map<string, { readonly version: number; readonly embedding: Float32Array }>();
    for await (const records of readRanges(kafka, await resolveRanges(kafka, 'user-embeddings', () => ({})), config))
      for (const { value } of records) {
        const read = value === null ? undefined : codec.decode('UserEmbedding', value as Uint8Array);
        if (read === undefined || read instanceof Fault) throw new Error(`no embedding: ${read?.message}`);
        if ((newest.get(read.userId)?.version ?? 0) <= read.version) newest.set(read.userId, read);
      }
    const lines = (await readFile(join(SHOP, 'full.jsonl'), 'utf8')).trim().split('\n');
    const full = lines.map((line) => JSON.parse(line) as { readonly userId: string; readonly embedding?: readonly number[] });
    const known = full.filter(({ embedding }) => embedding !== undefined);
    expect(newest.size).toBe(known.length);
    expect(known.length).toBeGreaterThan(200);
    let worst = 0;
    for (const { userId, embedding } of known)
      for (const [d, value] of embedding!.entries()) worst = Math.max(worst, Math.abs(value - newest.get(userId)!.embedding[d]!));
    expect(worst).toBeLessThan(1e-4);
  }
});
