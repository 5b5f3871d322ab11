/** The readers that the examples show, as an application would run them: plain kafkajs and avsc; kafka-python and fastavro where Python has them. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../support/command-line.ts';
import { kafkaIsPossible, randomName, sharedKafka } from '../support/kafka-broker.ts';
import { liveBundle, liveEvents } from '../support/live-bundle.ts';
import { LiveWorld } from '../support/live-world.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const READERS = join(ROOT, 'examples/read');
/** `pip install --target .hstu/python kafka-python fastavro` */
const PYTHON_ENV = {
  ...process.env,
  PYTHONPATH: [join(ROOT, '.hstu/python'), process.env['PYTHONPATH']].filter(Boolean).join(delimiter),
};
const pythonReads = spawnSync('python3', ['-c', 'import kafka, fastavro'], { env: PYTHON_ENV }).status === 0;

interface Line {
  readonly topic: string;
  readonly user: string;
  readonly version: number;
  readonly first: readonly (string | number)[];
}

describe.skipIf(!kafkaIsPossible)('an application that reads the outputs', { timeout: 60_000 }, () => {
  let world: LiveWorld;
  let folder: string;
  let broker: string;
  const wanted = new Map<string, Pick<Line, 'version' | 'first'>>();

  beforeAll(async () => {
    const [{ bundle, path }, kafka] = await Promise.all([liveBundle(), sharedKafka()]);
    world = await LiveWorld.create({ broker: kafka, name: randomName('readers'), bundlePath: path, bundle });
    broker = kafka.bootstrapServers[0]!;
    folder = await mkdtemp(join(tmpdir(), 'hstu-readers-'));
    for (const name of ['UserEmbedding', 'CandidateScores']) {
      const { stdout } = await runCommand(['schemas', name]);
      await writeFile(join(folder, `${name}.avsc`), stdout);
    }
    const instance = await world.start('a');
    await world.produce(liveEvents({ events: 120, users: 9 }));
    await world.untilConsumed(120);
    await instance.stop();
    const { userEmbeddings, candidateScores } = world.config.kafka.topics;
    for (const { key, value } of await world.outputs(userEmbeddings, 'UserEmbedding'))
      wanted.set(`${userEmbeddings} ${key}`, { version: value!.version, first: [...value!.embedding.slice(0, 3)] });
    for (const { key, value } of await world.outputs(candidateScores, 'CandidateScores'))
      wanted.set(`${candidateScores} ${key}`, {
        version: value!.version,
        first: value!.candidates.slice(0, 3).map(({ entity }) => entity),
      });
  }, 120_000);
  afterAll(async () => {
    await world?.close();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  /** Runs a reader until it has said all that is wanted. */
  async function readBy(program: string, file: string): Promise<ReadonlyMap<string, Line>> {
    const { userEmbeddings, candidateScores } = world.config.kafka.topics;
    const child = spawn(program, [join(READERS, file), broker, userEmbeddings, candidateScores], {
      cwd: folder,
      env: PYTHON_ENV,
    });
    const found = new Map<string, Line>();
    let said = '';
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const isDone = () => [...wanted].every(([key, { version }]) => found.get(key)?.version === version);
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${found.size} of ${wanted.size} after 30 s:\n${errors}`)), 30_000);
      child.stdout.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        const lines = said.split('\n');
        said = lines.pop()!;
        for (const line of lines.filter((text) => text.startsWith('{'))) {
          const read = JSON.parse(line) as Line;
          // kafkajs' own log is JSON as well.
          if (read.user !== undefined) found.set(`${read.topic} ${read.user}`, read);
        }
        if (!isDone()) return;
        clearTimeout(late);
        resolve();
      });
      child.on('exit', (code) => reject(new Error(`ended with ${code}:\n${errors}`)));
    }).finally(() => child.kill());
    return found;
  }

  it.each([
    ['Node', process.execPath, 'read.mjs', true],
    ['Python', 'python3', 'read.py', pythonReads],
  ])('in %s sees the newest embedding and list of every user, in thirty lines', async (_, program, file, isPossible) => {
    expect((await readFile(join(READERS, file), 'utf8')).trimEnd().split('\n').length).toBeLessThanOrEqual(30);
    if (!isPossible) return;
    const found = await readBy(program, file);
    expect(found.size).toBe(wanted.size);
    for (const [key, { version, first }] of wanted) {
      expect(found.get(key)!.version).toBe(version);
      expect(found.get(key)!.first.map((one) => (typeof one === 'number' ? Math.fround(one) : one))).toEqual(first);
    }
  });
});
