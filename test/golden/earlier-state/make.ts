/** `npx tsx test/golden/earlier-state/make.ts`: what a deployment of the program as it is now leaves behind; see README.md. */
import { execFileSync } from 'node:child_process';
import { cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startKafka } from '../../../infra/kafka/broker/start-kafka.ts';
import { changelogOf } from '../../../infra/kafka/topics.ts';
import type { SourceRecord } from '../../../schemas/action.ts';
import { liveBundle, liveEvents } from '../../support/live-bundle.ts';
import { LiveWorld } from '../../support/live-world.ts';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const HSTU = join(HERE, '../../../.hstu');

const cluster = await startKafka({
  folder: join(HSTU, 'old-state'),
  jars: join(HSTU, 'kafka', 'libs'),
  brokers: 1,
  basePort: 0,
});
const { bundle, path: bundlePath } = await liveBundle();
const settings = { kafka: { partitions: 1, batchEvents: 16 } };
const world = await LiveWorld.create({ broker: cluster, name: 'before', bundlePath, bundle, settings });
try {
  const instance = await world.start('a');
  await instance.untilRunning();
  const actions = liveEvents({ events: 160, users: 12 });
  for (let i = 0; i < actions.length; i += 40) {
    await world.produce(actions.slice(i, i + 40));
    await world.untilConsumed(i + 40);
  }
  if ((await instance.stop()) !== 0) throw new Error(instance.log);
  await keep();
  await writeFile(join(HERE, 'actions.jsonl'), actions.map((action) => `${JSON.stringify(action)}\n`).join(''));
  const changelog = await world.read(changelogOf(world.config.kafka));
  await writeFile(join(HERE, 'changelog.jsonl'), transactions(changelog));
} finally {
  await world.close();
  await cluster.destroy();
}

async function keep(): Promise<void> {
  for (const name of ['bundle', 'state']) await rm(join(HERE, name), { recursive: true, force: true });
  await cp(bundlePath, join(HERE, 'bundle'), { recursive: true });
  const [found] = (await readdir(join(world.folder, 'a'), { recursive: true })).filter((name) => name.endsWith('data.mdb'));
  await mkdir(join(HERE, 'state'));
  await cp(join(world.folder, 'a', found!), join(HERE, 'state', 'data.mdb'));
  execFileSync('gzip', ['-9', '-n', join(HERE, 'state', 'data.mdb')]);
}

/** A line a transaction: the marker that ends one takes an offset. */
function transactions(records: readonly SourceRecord[]): string {
  const lines: { readonly key: string; readonly value: string | null }[][] = [];
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  records.forEach(({ position, key, value }, i) => {
    if (position.offset !== (records[i - 1]?.position.offset ?? -1) + 1) lines.push([]);
    if (lines.length === 0) lines.push([]);
    lines.at(-1)!.push({ key: text(key!), value: value === null ? null : text(value as Uint8Array) });
  });
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('');
}
