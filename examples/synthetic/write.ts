/** Writes synthetic events as JSON lines: `npx tsx examples/synthetic/write.ts --events 1000000 --seed 1 > events.jsonl`. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { synthetic } from './generate.ts';

/** Lines written at once. */
const LINES = 1_000;

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    late: { type: 'string', default: '0.01' },
    duplicates: { type: 'string', default: '0.005' },
    erasures: { type: 'string', default: '0.002' },
  },
});
const numbers = Object.fromEntries(Object.entries(values).map(([name, text]) => [name, Number(text)]));
const wrong = Object.entries(numbers).find(([, number]) => !Number.isFinite(number) || number < 0);
if (wrong !== undefined) {
  process.stderr.write(`--${wrong[0]}: expected a number of 0 or more\n`);
  process.exit(2);
}

await pipeline(Readable.from(chunks()), process.stdout);

function* chunks(): Generator<string> {
  let text = '';
  let lines = 0;
  for (const event of synthetic({ events: 0, ...numbers })) {
    text += `${JSON.stringify(event)}\n`;
    if (++lines % LINES > 0) continue;
    yield text;
    text = '';
  }
  if (text !== '') yield text;
}
