/** Records that no honest producer writes: each becomes a dead letter with its bytes, and nothing else is disturbed. */
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { chunks } from '../../../infra/kafka/partition-producer.ts';
import { statedPartition } from '../../../infra/kafka/transactions.ts';
import type { UserAction } from '../../../schemas/action.ts';
import { AvroCodec } from '../../../schemas/avro/avro-codec.ts';
import { createRecordDecoder } from '../../../schemas/avro/record-decoder.ts';
import { FIXED_SCHEMA_IDS } from '../../../schemas/avro/schemas.ts';
import { liveEvents } from '../live-bundle.ts';
import type { LiveWorld } from '../live-world.ts';
import { type Say, type Shown, settle } from './promise.ts';

const codec = new AvroCodec();
const HEADER = 5;
/** A long in Avro's zig-zag encoding of −2^62 or so: a count that no record can hold. */
const HUGE_COUNT = Buffer.from('ffffffffffffffff7f', 'hex');

/** One spoilt record; `good` is the honest one that it is made of. */
const SPOILERS: readonly ((good: Buffer) => Buffer | null)[] = [
  () => null,
  () => Buffer.alloc(0),
  (good) => good.subarray(0, randomInt(1, good.length)),
  (good) => flip(good, randomInt(1, 9)),
  (good) => flip(good.subarray(0, HEADER + randomInt(0, 4)), 3),
  (good) => withId(good, randomInt(1, 2 ** 30)),
  (good) => withId(good, FIXED_SCHEMA_IDS.UserEmbedding),
  (good) => Buffer.concat([good, randomBytes(randomInt(1, 40))]),
  (good) => Buffer.concat([good.subarray(0, HEADER), HUGE_COUNT, randomBytes(20)]),
  countBomb,
  () => randomBytes(randomInt(1, 300)),
  () => Buffer.from(JSON.stringify({ userId: 'user-1', action: 'view' })),
];

/** Strings, no value, a time, and a context of 2^40 entries, sized and unsized. */
function countBomb(good: Buffer): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.from([2 * value.length]), Buffer.from(value)]);
  const head = [good.subarray(0, HEADER), text('e'), text('user-1'), text('view'), text('item:1')];
  const count = randomInt(2) === 0 ? Buffer.from('808080808040', 'hex') : Buffer.from('ffffffffff3f80808080804000', 'hex');
  return Buffer.concat([...head, Buffer.from([0]), Buffer.from('80d0ace5f662', 'hex'), Buffer.from([2]), count]);
}

function flip(bytes: Buffer, bits: number): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = 0; i < bits; i++) {
    const at = randomInt(copy.length);
    copy[at] = copy[at]! ^ (1 << randomInt(8));
  }
  return copy;
}

function withId(good: Buffer, id: number): Buffer {
  const copy = Buffer.from(good);
  copy.writeUInt32BE(id, 1);
  return copy;
}

const print = (value: Uint8Array | null): string => (value === null ? 'null' : createHash('sha1').update(value).digest('hex'));

export interface FuzzOptions {
  readonly spoilt: number;
  /** Of them, records above `kafka.maxRecordBytes`. */
  readonly huge: number;
  /** The longest that the event loop may be blocked, s; undefined where other work takes the processors away. */
  readonly maxBlockedSeconds?: number;
  readonly say: Say;
}

/** What the process may grow to, bytes. */
const MAX_RSS_BYTES = 900 * 2 ** 20;

/** Spoilt records among good ones, in every partition. The world's `maxRecordBytes` must be below 300,000. */
export async function spoiltRecordsBecomeDeadLetters(
  world: LiveWorld,
  { spoilt, huge, maxBlockedSeconds, say }: FuzzOptions,
): Promise<Shown> {
  const { topics, partitions, maxRecordBytes } = world.config.kafka;
  const decoder = createRecordDecoder({ ...world.config.kafka, ...world.config.time });
  const good = liveEvents({ events: Math.ceil(spoilt / 20), users: 200 });
  const instance = await world.start('a');
  await instance.untilRunning();
  const watch = watchProcess(instance.log);

  say(`producing ${spoilt} spoilt records among ${good.length} good ones`);
  const producer = world.kafka.producer({ idempotent: true, createPartitioner: statedPartition, allowAutoTopicCreation: false });
  await producer.connect();
  const wanted = new Map<string, number>();
  const isRefused = (value: Buffer | null): boolean => {
    const position = { topic: topics.userActions, partition: 0, offset: 0 };
    const result = decoder.decode({ position, value, key: null, timestampMs: Date.now() });
    const [action] = result.ok ? result.actions : [];
    return action === undefined || !/^item:([1-9]\d?|[12]\d\d|300)$/.test(action.entity) || action.action !== 'view';
  };
  const spoil = (action: UserAction): Buffer | null => {
    for (;;) {
      const bytes = SPOILERS[randomInt(SPOILERS.length)]!(codec.encode('UserAction', action));
      // A flip may leave an honest record of other content.
      if (isRefused(bytes)) return bytes;
    }
  };
  let made = 0;
  let large = 0;
  const perGood = Math.floor(spoilt / good.length);
  for (let i = 0; i < good.length; i += 100) {
    const some = good.slice(i, i + 100);
    const bad: (Buffer | null)[] = some.flatMap((action) => Array.from({ length: perGood }, () => spoil(action)));
    for (let n = 0; n < 4 && large < huge; n++) {
      bad.push(n % 2 === 0 ? randomBytes(300_000) : withId(Buffer.alloc(maxRecordBytes + 1, 'x'), FIXED_SCHEMA_IDS.UserAction));
      large += 1;
    }
    made += bad.length;
    for (const value of bad) wanted.set(print(value), (wanted.get(print(value)) ?? 0) + 1);
    for (let partition = 0; partition < partitions!; partition++) {
      const records = bad.filter((_, j) => j % partitions! === partition).map((value) => ({ key: 'k', value }));
      for (const messages of chunks(records, partition)) await producer.send({ topic: topics.userActions, messages });
    }
    await world.produce(some);
  }
  await producer.disconnect();

  say('waiting for the stream');
  await world.untilConsumed(good.length + made, 180_000);
  const seen = await watch.stop();
  const letters = await world.outputs(topics.deadLetters, 'DeadLetter');
  const problems: string[] = [];
  const codes = new Map<string, number>();
  for (const { value } of letters) {
    const name = print(value!.original as Uint8Array | null);
    wanted.set(name, (wanted.get(name) ?? 0) - 1);
    codes.set(value!.code, (codes.get(value!.code) ?? 0) + 1);
  }
  const lost = [...wanted.values()].filter((n) => n > 0).reduce((a, b) => a + b, 0);
  const doubled = [...wanted.values()].filter((n) => n < 0).reduce((a, b) => a - b, 0);
  if (lost > 0) problems.push(`${lost} spoilt records have no dead letter with their bytes`);
  if (doubled > 0) problems.push(`${doubled} dead letters too many`);
  if (letters.length !== made) problems.push(`${letters.length} dead letters of ${made}`);
  if (maxBlockedSeconds !== undefined && !(seen.blockedSeconds <= maxBlockedSeconds))
    problems.push(`the event loop was blocked for ${seen.blockedSeconds} s`);
  if (!(seen.rssBytes <= MAX_RSS_BYTES)) problems.push(`the process grew to ${Math.round(seen.rssBytes / 2 ** 20)} MiB`);
  const { facts, problems: rest } = await settle(world, good);
  return {
    facts: {
      spoilt: made,
      'of them too large': large,
      codes: [...codes].map(([code, n]) => `${code} ${n}`).join(', '),
      'blocked at most, ms': Math.round(1000 * seen.blockedSeconds),
      'RSS at most, MiB': Math.round(seen.rssBytes / 2 ** 20),
      ...facts,
    },
    problems: [...problems, ...rest],
  };
}

/** Asks an instance's /metrics, again and again, for its worst. */
function watchProcess(log: string) {
  const port = /"port":(\d+)/.exec(log)?.[1];
  if (port === undefined) throw new Error(`the instance did not say its port:\n${log}`);
  const worst = { blockedSeconds: 0, rssBytes: 0 };
  let stopping = false;
  const run = async () => {
    // What happened before the first question (loading the model) is not counted: asking resets the maximum.
    await ask(port);
    while (!stopping) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      const { blockedSeconds, rssBytes } = await ask(port);
      worst.blockedSeconds = Math.max(worst.blockedSeconds, blockedSeconds);
      worst.rssBytes = Math.max(worst.rssBytes, rssBytes);
    }
  };
  const running = run();
  return {
    async stop() {
      stopping = true;
      await running;
      return worst;
    },
  };
}

async function ask(port: string) {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const value = (name: string) => Number(new RegExp(`^${name} (\\S+)`, 'm').exec(text)?.[1] ?? Number.NaN);
  return {
    blockedSeconds: value('hstu_nodejs_eventloop_lag_max_seconds'),
    rssBytes: value('hstu_process_resident_memory_bytes'),
  };
}
