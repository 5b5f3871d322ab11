/**
 * Another process that uses a store: `tsx clickhouse-process.ts <folder> write|hold`.
 *
 * Prints one JSON line a step: the engine's pid, then (`write`) the position after every acknowledged batch, endlessly.
 */
import { ClickHouseSink } from '../../infra/clickhouse/clickhouse-sink.ts';
import { connect } from '../../infra/clickhouse/connect.ts';
import { embeddedIn, sampleBatch } from './clickhouse-store.ts';

const [folder, mode] = process.argv.slice(2);
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

const clickhouse = await connect(embeddedIn(folder!));
say({ enginePid: clickhouse.enginePid });
if (mode === 'write') {
  const sink = new ClickHouseSink(clickhouse, { runId: 'other' });
  for (let n = 0; ; n++) {
    await sink.write(sampleBatch(n), n + 1);
    say({ position: n + 1 });
  }
}
process.stdin.once('data', () => {
  void clickhouse.close().then(() => process.stdin.destroy());
});
