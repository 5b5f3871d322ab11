/** `npx tsx test/golden/kafka-frames/make.ts PYTHON GO_PROGRAM`: the frames anew, by real clients on a real broker; see README.md. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import kafkajs from 'kafkajs';
import { startKafka } from '../../../infra/kafka/broker/start-kafka.ts';

interface Told {
  readonly frame: string;
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: readonly (readonly [string, string | null])[];
}

const HERE = fileURLToPath(new URL('.', import.meta.url));
const HSTU = join(HERE, '../../../.hstu');
const [python = 'python3', goProgram = 'frames'] = process.argv.slice(2);
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];
/** A value longer than this is told by its length and digest, a frame of more records by the digest of all. */
const MAX_VALUE_BYTES = 600;
const MAX_RECORDS = 100;

const of = (writer: string, kinds: readonly string[]) => kinds.map((kind) => `${writer}-${kind}`);
const frames = [
  ...of('java', [...CODECS, 'zstd-large', 'many', 'log-append-time', 'transactions', 'compacted']),
  ...of('librdkafka', [...CODECS, 'transactions']),
  ...of('franz-go', [...CODECS, 'transactions']),
  ...of('sarama', CODECS.slice(1)),
];
const SETTINGS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'java-log-append-time': { 'message.timestamp.type': 'LogAppendTime' },
  'java-compacted': { 'cleanup.policy': 'compact', 'segment.ms': '100', 'min.cleanable.dirty.ratio': '0.01' },
};

const jars = join(HSTU, 'kafka', 'libs');
const kafka = await startKafka({
  folder: join(HSTU, 'frames'),
  jars,
  brokers: 1,
  basePort: 0,
  overrides: { 'message.max.bytes': '5000000', 'log.cleaner.backoff.ms': '200' },
});
async function make(bootstrap: string): Promise<void> {
  const client = new kafkajs.Kafka({ brokers: [bootstrap], logLevel: kafkajs.logLevel.ERROR });
  const admin = client.admin();
  await admin.connect();
  const topics = frames.map((topic) => ({
    topic,
    numPartitions: 1,
    configEntries: Object.entries({ 'max.message.bytes': '5000000', 'retention.ms': '-1', ...SETTINGS[topic] }).map(([name, value]) => ({ name, value })),
  }));
  await admin.createTopics({ topics, waitForLeaders: true });
  await admin.disconnect();

  const java = (...args: string[]) => lines('java', ['-cp', join(jars, '*'), join(HERE, 'Frames.java'), ...args]);
  const writers = [
    () => java('write', bootstrap),
    () => lines(python, [join(HERE, 'frames.py'), bootstrap]),
    () => lines(goProgram, [bootstrap]),
  ];
  const written: Told[] = [];
  for (const write of writers) written.push(...(await write()));
  // The log cleaner looks five times a second.
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const read = async (isolation: string) => byFrame(await java('read', bootstrap, frames.join(), isolation));
  const all = await read('read_uncommitted');
  const committed = await read('read_committed');
  for (const frame of frames) {
    const told = written.filter((record) => record.frame === frame).sort((a, b) => a.offset - b.offset);
    await keep(frame, told, all.get(frame) ?? [], new Set(committed.get(frame)?.map(({ offset }) => offset)));
  }
}

async function segment(topic: string): Promise<Buffer> {
  const folder = join(kafka.folder, 'broker-1', `${topic}-0`);
  const files = (await readdir(folder)).filter((name) => name.endsWith('.log')).sort();
  return Buffer.concat(await Promise.all(files.map((name) => readFile(join(folder, name)))));
}

async function keep(frame: string, written: readonly Told[], read: readonly Told[], committed: ReadonlySet<number>): Promise<void> {
  const compacted = SETTINGS[frame]?.['cleanup.policy'] === 'compact';
  const appendTime = SETTINGS[frame]?.['message.timestamp.type'] === 'LogAppendTime';
  const facts = ({ offset, timestampMs, key, value, headers }: Told) =>
    JSON.stringify([offset, appendTime ? 0 : timestampMs, key, value, headers]);
  const remaining = new Set(read.map(({ offset }) => offset));
  const expected = compacted ? written.filter(({ offset }) => remaining.has(offset)) : written;
  if (expected.length === 0 || expected.map(facts).join('\n') !== read.map(facts).join('\n'))
    throw new Error(`${frame}: what was written (${expected.length}) is not what Java's consumer reads (${read.length}):\n${expected.map(facts).join('\n').slice(0, 2000)}\n${read.map(facts).join('\n').slice(0, 2000)}`);
  if (compacted && expected.length === written.length) throw new Error(`${frame}: the log was not cleaned`);
  const digest = createHash('sha256');
  for (const { offset, timestampMs, key, value, headers } of read)
    digest.update(`${JSON.stringify([offset, timestampMs, key, value, headers])}\n`);
  const records = read.map(({ frame: _, value, ...record }) => ({
    ...record,
    ...(value !== null && value.length > (MAX_VALUE_BYTES * 4) / 3 ? long(Buffer.from(value, 'base64')) : { value }),
    ...(!committed.has(record.offset) && { aborted: true }),
  }));
  await writeFile(join(HERE, `${frame}.bin`), await segment(frame));
  await writeFile(
    join(HERE, `${frame}.json`),
    `${JSON.stringify({
      abortedTransactions: await aborted(frame),
      records: read.length,
      digest: digest.digest('hex'),
    }).slice(0, -1)},"each":[${read.length > MAX_RECORDS ? '' : records.map((record) => `\n${JSON.stringify(record)}`).join()}]}\n`,
  );
}

const long = (value: Buffer) => ({ valueBytes: value.length, valueSha256: createHash('sha256').update(value).digest('hex') });

/** As the broker tells them in an answer: its index file has entries of version (int16), producer, first, last and stable offset (int64). */
async function aborted(topic: string) {
  const folder = join(kafka.folder, 'broker-1', `${topic}-0`);
  const files = (await readdir(folder)).filter((name) => name.endsWith('.txnindex')).sort();
  const bytes = Buffer.concat(await Promise.all(files.map((name) => readFile(join(folder, name)))));
  return Array.from({ length: bytes.length / 34 }, (_, i) => ({
    producerId: String(bytes.readBigInt64BE(34 * i + 2)),
    firstOffset: String(bytes.readBigInt64BE(34 * i + 10)),
  }));
}

function byFrame(records: readonly Told[]): Map<string, Told[]> {
  const frames = new Map<string, Told[]>();
  for (const record of records) {
    const list = frames.get(record.frame) ?? [];
    frames.set(record.frame, list);
    list.push(record);
  }
  return frames;
}

async function lines(program: string, args: readonly string[]): Promise<Told[]> {
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 2 ** 30 });
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Told);
}

try {
  await make(kafka.bootstrapServers[0]!);
} finally {
  await kafka.destroy();
}
