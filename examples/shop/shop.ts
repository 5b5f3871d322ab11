/**
 * The shop's files, and its stream:
 *
 *     npx tsx examples/shop/shop.ts generate --events 200000
 *     npx tsx examples/shop/shop.ts send --rate 2000
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { finished } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { createGzip } from 'node:zlib';
import { Kafka } from 'kafkajs';
import { connect } from '../../infra/clickhouse/connect.ts';
import { BRANDS, brandOf, categoryOf, NEW_PRODUCTS, type Planted, PRODUCTS, shopRecords } from './generate.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    events: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    folder: { type: 'string', default: '.hstu/shop' },
    rate: { type: 'string', default: '2000' },
    broker: { type: 'string', default: process.env['HSTU_KAFKA__BROKERS'] ?? '127.0.0.1:19092' },
    topic: { type: 'string', default: 'clickstream' },
  },
});
const folder = resolve(values.folder);
const actions: Readonly<Record<string, () => Promise<void>>> = { generate, send };
const action = actions[positionals[0] ?? ''];
if (action === undefined) {
  process.stderr.write(`shop.ts ${Object.keys(actions).join('|')}\n`);
  process.exit(2);
}
await action();

/** History into files, the stream into `live.jsonl` with its keys, the truth beside them. */
async function generate(): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const lines = (name: string, packed = false) => {
    const file = createWriteStream(join(folder, name));
    const out = packed ? createGzip() : file;
    if (packed) out.pipe(file);
    return {
      write: async (value: unknown) => {
        if (!out.write(`${typeof value === 'string' ? value : JSON.stringify(value)}\n`)) await once(out, 'drain');
      },
      end: async () => {
        out.end();
        await finished(file);
      },
    };
  };
  const months = [1, 2, 3].map((month) => lines(`events-2024-0${month}.jsonl.gz`, true));
  const [orders, live, truth] = [lines('orders.jsonl'), lines('live.jsonl'), lines('truth.jsonl')];
  const planted = { history: new Map<Planted, number>(), live: new Map<Planted, number>() };
  const counts = { history: 0, live: 0 };
  for (const record of shopRecords({ events: Number(values.events), seed: Number(values.seed) })) {
    const { phase, kind, raw, session } = record;
    counts[phase] += 1;
    if (record.planted !== undefined) planted[phase].set(record.planted, (planted[phase].get(record.planted) ?? 0) + 1);
    for (const one of record.truth) await truth.write({ phase, ...one });
    if (phase === 'live') await live.write({ key: session, value: typeof raw === 'string' ? raw : JSON.stringify(raw) });
    else if (kind === 'order') await orders.write(raw);
    else await months[new Date(record.atMs).getUTCMonth()]!.write(raw);
  }
  for (const file of [...months, orders, live, truth]) await file.end();
  await toParquet();
  const products = Array.from(
    { length: PRODUCTS + NEW_PRODUCTS },
    (_, i) => `product:${i + 1},b${brandOf(i + 1)},${categoryOf(i + 1)}`,
  );
  await writeFile(join(folder, 'products.csv'), `entity,brand,category\n${products.join('\n')}\n`);
  const plantedOf = (phase: 'history' | 'live') => Object.fromEntries(planted[phase]);
  const facts = { ...counts, brands: BRANDS, planted: { history: plantedOf('history'), live: plantedOf('live') } };
  await writeFile(join(folder, 'planted.json'), JSON.stringify(facts, null, 2));
  console.log(`${folder}: ${counts.history} records of history, ${counts.live} of the stream`);
}

/** Nested, as a warehouse exports it: one column `order` with the lines of each. */
async function toParquet(): Promise<void> {
  const engine = await connect({ path: join(folder, 'engine'), database: 'default' });
  const columns =
    "id String, type String, state String, session String, user Tuple(id String), order Tuple(no UInt64, lines Array(Tuple(sku Nullable(UInt32), price Float64, qty UInt32))), ts DateTime64(3, 'UTC')";
  try {
    await engine.command(
      `INSERT INTO FUNCTION file('${join(folder, 'orders.parquet')}', 'Parquet', '${columns.replaceAll("'", "\\'")}') ` +
        `SELECT * FROM file('${join(folder, 'orders.jsonl')}', 'JSONEachRow', '${columns.replaceAll("'", "\\'")}') ` +
        "SETTINGS date_time_input_format = 'best_effort', output_format_parquet_string_as_string = 1",
    );
  } finally {
    await engine.close();
  }
  for (const name of ['orders.jsonl', 'engine']) await rm(join(folder, name), { recursive: true, force: true });
}

/** The stream, keyed by session, at a rate. */
async function send(): Promise<void> {
  const messages = (await readFile(join(folder, 'live.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly key: string; readonly value: string });
  const producer = new Kafka({ brokers: [values.broker], clientId: 'collector' }).producer({ idempotent: true });
  await producer.connect();
  const began = performance.now();
  const batch = Math.max(1, Math.round(Number(values.rate) / 20));
  for (let sent = 0; sent < messages.length; sent += batch) {
    await producer.send({ topic: values.topic, messages: messages.slice(sent, sent + batch) });
    const dueMs = (1000 * (sent + batch)) / Number(values.rate) - (performance.now() - began);
    if (dueMs > 0) await new Promise((done) => setTimeout(done, dueMs));
  }
  await producer.disconnect();
  console.log(`sent ${messages.length} records to ${values.topic} in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}
