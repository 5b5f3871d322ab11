/** Kafka's own tools on the JVM: what another client than ours writes, and what it reads of what we wrote. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { SourceRecord } from '../../../schemas/action.ts';

const JARS = fileURLToPath(new URL('../../../.hstu/kafka/libs', import.meta.url));
const JVM = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];
/** What the tool prints for null: no key or value of ours. */
const NULL = '-this is null-';
/** A reader that has heard nothing for this long has read all, ms. */
const SILENCE_MS = 3_000;

/**
 * Runs a tool to its end.
 *
 * @param options `onLine`: is given each line of its standard output. @default all of it is returned
 */
export async function javaTool(
  tool: string,
  args: readonly string[],
  { onLine, input = '' }: { readonly onLine?: (line: string) => void; readonly input?: string } = {},
): Promise<string[]> {
  const child = spawn('java', [...JVM, '-cp', join(JARS, '*'), tool, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4_000);
  });
  const ended = new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout }))
    if (onLine === undefined) lines.push(line);
    else onLine(line);
  const code = await ended;
  if (code !== 0) throw new Error(`${tool} ${args.join(' ')} ended with ${code}:\n${said}`);
  return lines;
}

/** All committed records of a topic, partition by partition, as Java's consumer reads them. */
export async function readByJava(broker: string, topic: string): Promise<SourceRecord[]> {
  const bytes = 'org.apache.kafka.common.serialization.BytesDeserializer';
  const format = {
    'print.partition': true,
    'print.offset': true,
    'print.timestamp': true,
    'print.key': true,
    'key.deserializer': bytes,
    'value.deserializer': bytes,
    'null.literal': NULL,
  };
  const options = Object.entries(format).flatMap(([name, value]) => ['--formatter-property', `${name}=${value}`]);
  const records: SourceRecord[] = [];
  await javaTool(
    'org.apache.kafka.tools.consumer.ConsoleConsumer',
    [
      ...['--bootstrap-server', broker, '--topic', topic, '--from-beginning', '--isolation-level', 'read_committed'],
      ...['--timeout-ms', String(SILENCE_MS), ...options],
    ],
    {
      onLine: (line) => {
        const [, time, partition, offset, key, value] =
          /^\w+:(-?\d+)\tPartition:(\d+)\tOffset:(\d+)\t(.*)\t(.*)$/.exec(line) ?? [];
        if (value === undefined) return;
        records.push({
          position: { topic, partition: Number(partition), offset: Number(offset) },
          timestampMs: Number(time),
          key: bytesOf(key!),
          value: bytesOf(value),
        });
      },
    },
  );
  return records.sort((a, b) => a.position.partition - b.position.partition || a.position.offset - b.position.offset);
}

/** As Kafka's `Bytes.toString` writes them: `\x5C` for what is not printable, or a backslash. */
function bytesOf(text: string): Buffer | null {
  if (text === NULL) return null;
  return Buffer.from(
    text.replace(/\\x([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
}

/** Writes lines of `key<tab>value`, or of values alone, as Java's console producer does: without a key, to any partition. */
export async function produceByJava(broker: string, topic: string, lines: readonly string[], keyed: boolean): Promise<void> {
  const args = ['--bootstrap-server', broker, '--topic', topic, '--batch-size', '2000'];
  const keys = ['--reader-property', 'parse.key=true', '--reader-property', 'key.separator=\t'];
  const input = lines.map((line) => `${line}\n`).join('');
  await javaTool('org.apache.kafka.tools.ConsoleProducer', [...args, ...(keyed ? keys : [])], { input });
}

export interface PerformanceOptions {
  readonly topic: string;
  readonly records: number;
  /** A line a record; each record is one of them, chosen at random. */
  readonly payloadFile: string;
  readonly settings: Readonly<Record<string, string | number>>;
}

/** Kafka's own load generator, an ordinary Java producer. */
export async function producerPerformance(broker: string, options: PerformanceOptions): Promise<void> {
  const { topic, records, payloadFile, settings } = options;
  const properties = Object.entries({ 'bootstrap.servers': broker, ...settings }).map(([name, value]) => `${name}=${value}`);
  const what = ['--topic', topic, '--num-records', String(records), '--payload-file', payloadFile, '--throughput', '-1'];
  await javaTool('org.apache.kafka.tools.ProducerPerformance', [...what, '--producer-props', ...properties]);
}
