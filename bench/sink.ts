/** How many embeddings a second one `hstu-streams sink` stores: a full topic, a real broker, the real ClickHouse engine over HTTP. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startKafka } from '../infra/kafka/broker/start-kafka.ts';
import { SinkWorld } from '../test/support/sink-world.ts';
import { sleep } from './deployment.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ROWS = 200_000;
const USERS = 20_000;
const DIMENSION = 64;
const CHUNK = 5_000;
const PATIENCE_MS = 300_000;
export const SINK_FIGURES = ROWS;

export interface SinkFigures {
  readonly rows: number;
  /** Of one process, from its first commit to its last; engine and broker on the same cores. */
  readonly rowsPerSecond: number;
  /** Record as it lies in the topic, bytes. */
  readonly recordBytes: number;
}

export async function benchSink(onProgress: (done: number, label: string) => void): Promise<SinkFigures> {
  onProgress(0, 'broker');
  const broker = await startKafka({
    folder: join(ROOT, '.hstu', 'bench', 'kafka-sink'),
    jars: join(ROOT, '.hstu', 'kafka', 'libs'),
    basePort: 0,
  });
  try {
    const world = await SinkWorld.create(broker, `bench-sink-${Date.now()}`);
    try {
      onProgress(0, 'filling the topic');
      const recordBytes = await fill(world);
      // As configured without a word said: a test's world has small commits.
      await world.sink({ sink: { port: 0 } });
      const stored = () => world.count('embeddings', true);
      const began = performance.now();
      let [first, firstMs] = [0, 0];
      for (let rows = 0; rows < ROWS; rows = await stored()) {
        if (performance.now() - began > PATIENCE_MS) throw new Error(`${rows} of ${ROWS} embeddings were stored`);
        if (first === 0 && rows > 0) [first, firstMs] = [rows, performance.now()];
        onProgress(rows, 'storing');
        await sleep(100);
      }
      return { rows: ROWS, rowsPerSecond: (1e3 * (ROWS - first)) / (performance.now() - firstMs), recordBytes };
    } finally {
      await world.close();
    }
  } finally {
    await broker.destroy();
  }
}

/** @returns mean bytes of a record's value */
async function fill(world: SinkWorld): Promise<number> {
  const { topics } = world.config.kafka;
  const nowMs = Date.now();
  let bytes = 0;
  for (let from = 0; from < ROWS; from += CHUNK) {
    const records = Array.from({ length: CHUNK }, (_, i) => {
      const n = from + i;
      const userId = `user-${n % USERS}`;
      const version = 1 + Math.floor(n / USERS);
      const value = world.codec.encode('UserEmbedding', {
        userId,
        version,
        embedding: Float32Array.from({ length: DIMENSION }, (_, d) => Math.sin(n * 31 + d)),
        sequenceLength: version,
        lastEventTimeMs: nowMs + n,
        queryTimeMs: nowMs + n,
        lineage: {
          topic: topics.userActions,
          partition: n % 2,
          offset: n >> 1,
          sequenceDigest: '0123456789abcdef',
          modelDigest: 'model',
        },
        computedAtMs: nowMs + n,
        latencyMs: 5,
        rowsComputed: 2,
        outcome: 'hit',
      });
      bytes += value.length;
      return { topic: topics.userEmbeddings, key: userId, value, timestampMs: nowMs };
    });
    await world.produce(records);
  }
  return Math.round(bytes / ROWS);
}
