/** `hstu-streams encode`: users from a JSON-lines file, encoded whole or event by event. */

import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { type Command, Option } from 'commander';
import { count } from '../../infra/console/format.ts';
import { startProgress } from '../../infra/console/progress.ts';
import { HstuEncoder } from '../../models/encoder.ts';
import { loadBundle } from '../../models/hstu/bundle.ts';
import { messageOf, PipelineError } from '../../schemas/errors.ts';
import { LineEncoder } from '../encode-lines.ts';
import { positiveInteger, wholeNumber } from './options.ts';

interface Options {
  readonly bundle: string;
  readonly input: string;
  readonly output: string;
  readonly mode: 'full' | 'incremental';
  readonly topK: number;
  readonly rows?: true;
  readonly workers: number;
}

/** Users encoded together. */
const LINES_AT_ONCE = 16;

export function addEncode(program: Command): void {
  program
    .command('encode')
    .description('encode users given as JSON lines: {"userId", "events": [{"entity", "eventTimeMs", "action"?}], "queryTimeMs"?}')
    .requiredOption('--bundle <folder>', 'model bundle')
    .requiredOption('--input <file>', 'JSON lines')
    .requiredOption('--output <file>', 'JSON lines: {"userId", "embedding", "topK", "rows"?, "deadLetters"?}')
    .addOption(
      new Option('--mode <mode>', 'one encode a user, or one event at a time through the cache')
        .choices(['full', 'incremental'])
        .default('full'),
    )
    .option('--top-k <k>', 'entities to list for the embedding, nothing filtered', wholeNumber, 10)
    .option('--rows', "write every row of the user's window")
    .option('--workers <threads>', 'encoder threads', positiveInteger, 1)
    .action(async (options: Options) => {
      const bundle = await loadBundle(options.bundle);
      await checkInput(options.input);
      const encoder = new HstuEncoder(bundle, { workers: options.workers });
      try {
        const lineEncoder = new LineEncoder(bundle, encoder, {
          mode: options.mode,
          topK: options.topK,
          rows: options.rows === true,
        });
        const { users, faults } = await encodeFile(lineEncoder, options);
        process.stderr.write(`${count(users)} users encoded to ${options.output}, ${count(faults)} dead letters\n`);
        if (faults > 0) process.exitCode = 1;
      } finally {
        await encoder.close();
      }
    });
}

async function encodeFile(encoder: LineEncoder, { input, output }: Options): Promise<{ users: number; faults: number }> {
  const total = (await stat(input)).size;
  const out = createWriteStream(output);
  const written = finished(out).catch((cause: unknown) => {
    throw new PipelineError('CONFIG_INVALID', `cannot write ${output}: ${messageOf(cause)}`, { cause });
  });
  // Whoever awaits it first sees the failure; until then it must not count as unhandled.
  written.catch(() => undefined);
  const progress = startProgress('encoding (bytes)', total);
  let users = 0;
  let faults = 0;
  let bytes = 0;
  let batch: string[] = [];
  const flush = async () => {
    for (const result of await encoder.encode(batch)) {
      if (result.embedding !== undefined) users += 1;
      faults += result.deadLetters?.length ?? 0;
      if (!out.write(`${JSON.stringify(result)}\n`)) await Promise.race([once(out, 'drain'), written]);
    }
    batch = [];
    progress.update(bytes, `${count(users)} users`);
  };
  for await (const line of createInterface({ input: createReadStream(input), crlfDelay: Number.POSITIVE_INFINITY })) {
    bytes += Buffer.byteLength(line) + 1;
    if (line.trim() === '') continue;
    batch.push(line);
    if (batch.length === LINES_AT_ONCE) await flush();
  }
  if (batch.length > 0) await flush();
  progress.stop();
  out.end();
  await written;
  return { users, faults };
}

async function checkInput(file: string): Promise<void> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: ${messageOf(cause)}`, { cause });
  });
  if (!found.isFile()) throw new PipelineError('SOURCE_UNREADABLE', `cannot read ${file}: not a file`);
}
