/** A newer program on what an earlier one left: its local store, its changelog, its position. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { changelogOf } from '../../../../infra/kafka/topics.ts';
import { statedPartition } from '../../../../infra/kafka/transactions.ts';
import { openStateStore, type StateStoreMeta } from '../../../../infra/store/lmdb-state-store.ts';
import { type Bundle, loadBundle } from '../../../../models/hstu/bundle.ts';
import type { UserAction } from '../../../../schemas/action.ts';
import { liveEvents } from '../../live-bundle.ts';
import type { LiveWorld } from '../../live-world.ts';
import type { Shown } from '../promise.ts';

const HERE = fileURLToPath(new URL('../../../golden/earlier-state', import.meta.url));
/** The name that the deployment had. */
const THEN = 'before';

/** The world's `settings`, and its bundle. */
export const earlierSettings = { kafka: { partitions: 1, batchEvents: 16 } };
export async function earlierBundle(): Promise<{ readonly path: string; readonly bundle: Bundle }> {
  const path = join(HERE, 'bundle');
  return { path, bundle: await loadBundle(path) };
}

/**
 * As if the program had been stopped, replaced, and started again; `withStore`: on the same machine, else on a new one, from the
 * changelog alone.
 */
export async function anEarlierStateIsGoneOnWith(
  world: LiveWorld,
  { withStore }: { readonly withStore: boolean },
): Promise<Shown> {
  const text = await readFile(join(HERE, 'actions.jsonl'), 'utf8');
  const before = linesOf(text) as UserAction[];
  await world.produce(before);
  await leaveChangelog(world, before.length);
  if (withStore) await leaveStore(world);
  const instance = await world.start('a');
  await instance.untilRunning();
  const after = liveEvents({ events: 120, users: 12, from: before.length });
  await world.produce(after);
  await world.untilConsumed(before.length + after.length);
  await instance.stop();
  const problems = await world.verifyState([...before, ...after]);
  const { problems: wrong, maxDelta } = await world.verify([...before, ...after]);
  // Of every user all versions that the earlier program has not published, and no other.
  const published = new Map<string, number>();
  for (const { userId } of before) published.set(userId, (published.get(userId) ?? 0) + 1);
  const outputs = await world.outputs(world.config.kafka.topics.userEmbeddings, 'UserEmbedding');
  for (const [user, first] of published) {
    const versions = outputs.flatMap(({ value }) => (value?.userId === user ? [value.version] : []));
    const wanted = Array.from({ length: after.filter(({ userId }) => userId === user).length }, (_, i) => first + 1 + i);
    if (versions.join() !== wanted.join()) problems.push(`${user}: versions ${versions.join()}, expected ${wanted.join()}`);
  }
  problems.push(...wrong.filter((problem) => !problem.includes(': versions ')));
  if (!(maxDelta <= 1e-4)) problems.push(`an embedding differs by ${maxDelta} from its full encode`);
  if (withStore && instance.log.includes('restored from the changelog'))
    problems.push(`the earlier store was not gone on with:\n${instance.log.slice(-3_000)}`);
  return { facts: { actions: before.length + after.length, users: published.size, embeddings: outputs.length }, problems };
}

/** Transaction by transaction, so that every record has its offset again; the last one tells the group how far it is. */
async function leaveChangelog(world: LiveWorld, actions: number): Promise<void> {
  const { applicationId, topics } = world.config.kafka;
  const topic = changelogOf(world.config.kafka);
  const transactions = linesOf(await readFile(join(HERE, 'changelog.jsonl'), 'utf8')) as {
    key: string;
    value: string | null;
  }[][];
  const producer = world.kafka.producer({
    transactionalId: `${applicationId}-earlier`,
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: statedPartition,
  });
  await producer.connect();
  for (const [i, records] of transactions.entries()) {
    const transaction = await producer.transaction();
    const messages = records.map(({ key, value }) => ({
      partition: 0,
      key: Buffer.from(key, 'base64'),
      value: value === null ? null : renamed(Buffer.from(value, 'base64'), applicationId),
    }));
    await transaction.send({ topic, messages });
    if (i === transactions.length - 1)
      await transaction.sendOffsets({
        consumerGroupId: applicationId,
        topics: [{ topic: topics.userActions, partitions: [{ partition: 0, offset: String(actions) }] }],
      });
    await transaction.commit();
  }
  await producer.disconnect();
}

async function leaveStore(world: LiveWorld): Promise<void> {
  const { applicationId } = world.config.kafka;
  const path = join(world.folder, 'a', applicationId, '0');
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'data.mdb'), await promisify(gunzip)(await readFile(join(HERE, 'state', 'data.mdb.gz'))));
  const { store } = await openStateStore({ path });
  const meta = JSON.parse(renamed(Buffer.from(JSON.stringify(store.meta())), applicationId).toString()) as StateStoreMeta;
  await store.write([], { ...meta, savedAtMs: Date.now() });
  await store.close();
}

/** Positions are JSON, and name topics; users' records are neither. */
const renamed = (value: Buffer, name: string): Buffer =>
  value[0] === 0x7b ? Buffer.from(value.toString().replaceAll(`"${THEN}-`, `"${name}-`)) : value;

const linesOf = (text: string): unknown[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
